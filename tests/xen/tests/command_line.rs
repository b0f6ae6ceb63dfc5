//! The program `invivo` in a Linux that a real Xen runs as its control domain.

use anyhow::{Context, Result};
use xen_tests::Hypervisor;
use xen_tests::linux::{Linux, Ran};
use xen_tests::payload::tagged;

/// An error with that code, which says these words; nothing is on standard output.
fn is_error(ran: &Ran, code: i32, words: &[&str]) {
    assert_eq!(ran.code, code, "{ran:?}");
    assert!(ran.stdout.is_empty(), "{ran:?}");
    for word in ["error: ", "hint: "].iter().chain(words) {
        assert!(ran.stderr.contains(word), "{word} is missing: {ran:?}");
    }
}

fn says(ran: &Ran, words: &[&str]) {
    assert_eq!(ran.code, 0, "{ran:?}");
    for word in words {
        assert!(ran.stdout.contains(word), "{word} is missing: {ran:?}");
    }
}

#[test]
fn people_drive_xen_with_invivo() -> Result<()> {
    let xen = Hypervisor::get("4.20")?;
    let fix = tagged(&xen, "fixed", None, &[])?;
    let mut other = fix.clone();
    let text = fix.windows(6).position(|bytes| bytes == b"fixed\0");
    other[text.context("the text is in the payload")?] = b'F';
    let steps = [
        // The driver is loaded only after the first command.
        "xen list",
        "user xen list",
        "xen list",
        "xen upload fix.livepatch",
        "xen apply fix --rendezvous 500 --json",
        "xen apply fix",
        "list",
        "xen unload fix",
        "xen get fix --json",
        "xen upload fix.livepatch --name again",
        "xen upload other.livepatch",
        "xen upload program",
        "xen revert fix --rendezvous 500",
        "xen unload fix",
        "xen get fix",
        "xen list",
    ];
    let ran = Linux::on(&xen)
        .with("fix.livepatch", &fix)
        .with("other.livepatch", &other)
        .with("program", b"not a payload")
        .run(2, &steps)?;
    for (step, ran) in steps.iter().zip(&ran) {
        println!("# invivo {step}\n{}{}", ran.stdout, ran.stderr);
    }
    let [
        no_driver,
        user,
        empty,
        uploaded,
        applied,
        again,
        list,
        in_use,
        get,
        rest @ ..,
    ] = &ran[..]
    else {
        unreachable!("{ran:?}")
    };
    let [twice, same_id, program, reverted, unloaded, gone, last] = rest else {
        unreachable!("{ran:?}")
    };
    is_error(no_driver, 5, &["runs on Xen", "modprobe xen-privcmd"]);
    is_error(user, 5, &["/dev/xen/privcmd may not be opened", "sudo"]);
    let id: String = xen
        .build_id()?
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    says(empty, &["Xen 4.20.", &id, "no payload is loaded"]);
    says(uploaded, &["fix: loaded"]);
    says(applied, &["\"action\": \"apply\"", "\"changed\": true"]);
    says(again, &["nothing to do"]);
    // The function that tells the version is the one that was replaced.
    says(
        list,
        &["no patch is live", "Xen 4.20fixed,", "fix: applied"],
    );
    is_error(in_use, 1, &["it is live", "invivo xen revert"]);
    says(get, &["\"state\": \"applied\"", "\"result\": \"done\""]);
    is_error(twice, 1, &["EEXIST", "this build id"]);
    is_error(same_id, 1, &["EEXIST"]);
    is_error(program, 1, &["EINVAL", "another build of Xen", "xl dmesg"]);
    says(reverted, &["fix: reverted"]);
    says(unloaded, &["fix: unloaded"]);
    is_error(gone, 1, &["ENOENT", "invivo xen list"]);
    assert_eq!(last, empty);
    Ok(())
}
