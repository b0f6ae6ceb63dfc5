//! The program `invivo` in a Linux that a real Xen runs as its control domain.

mod verbs;

use anyhow::{Context, Result};
use invivo_format::livepatch::{Expectation, read};
use object::{Object, ObjectSection};
use verbs::{COMMON, common_verbs_say, counting, is_error, says};
use xen_tests::Hypervisor;
use xen_tests::kept::{keep, write};
use xen_tests::linux::Linux;
use xen_tests::payload::tagged;

/// The payload with code that has no alignment: Xen takes it, and puts the code over other code.
fn without_alignment(payload: &[u8]) -> Result<Vec<u8>> {
    let file = object::File::parse(payload)?;
    let mut sections = file.sections();
    let text = sections.find(|section| section.kind() == object::SectionKind::Text);
    let number = text.context("code is in the payload")?.index().0;
    let table = payload[40..].first_chunk().context("an ELF header")?;
    let at = usize::try_from(u64::from_le_bytes(*table))? + number * 64 + 48;
    let mut spoiled = payload.to_vec();
    spoiled[at..at + 8].fill(0);
    Ok(spoiled)
}

#[test]
fn people_drive_xen_with_invivo() -> Result<()> {
    let xen = Hypervisor::get("4.20")?;
    let fix = tagged(&xen, "fixed", None, &[])?;
    let mut other = fix.clone();
    let text = fix.windows(6).position(|bytes| bytes == b"fixed\0");
    other[text.context("the text is in the payload")?] = b'F';
    let harmful = without_alignment(&fix)?;
    keep(&other);
    keep(&harmful);
    let next = tagged(&xen, "next", None, &[])?;
    let mut misfit = read(&tagged(&xen, "misfit", None, &[])?)?.payload;
    misfit.functions[0].expectation = Expectation::new(vec![0xcc; 4]);
    let misfit = write(&misfit)?.file;
    let foreign = tagged(&Hypervisor::get("4.17")?, "foreign", None, &[])?;
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
        "xen upload harmful",
        "xen upload next.livepatch",
        "xen replace next --rendezvous 500 --json",
        "xen list",
        "xen upload misfit.livepatch",
        "xen replace misfit --rendezvous 500",
        "xen list",
        "xen unload misfit",
        "xen unload next",
        "xen revert fix --rendezvous 500",
        "xen unload fix",
        "xen get fix",
        "xen list",
    ];
    let steps = [&steps[..], &COMMON, &["xen list"]].concat();
    let ran = Linux::on(&xen)
        .with("fix.livepatch", &fix)
        .with("other.livepatch", &other)
        .with("program", b"not a payload")
        .with("harmful", &harmful)
        .with("count.livepatch", &counting(&xen)?)
        .with("next.livepatch", &next)
        .with("misfit.livepatch", &misfit)
        .with("foreign.livepatch", &foreign)
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
    let [
        twice,
        same_id,
        program,
        harmful,
        _,
        replaced,
        swapped,
        _,
        unpatched,
        nothing,
        misfit_gone,
        next_gone,
        reverted,
        unloaded,
        gone,
        last,
        common @ ..,
        end,
    ] = rest
    else {
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
    is_error(harmful, 1, &["X54", "would fail", "invivo explain X54"]);
    says(replaced, &["\"action\": \"replace\"", "\"changed\": true"]);
    says(swapped, &["Xen 4.20next,", "next: applied", "fix: checked"]);
    // Xen takes back what is live before it looks whether the other fits.
    let words = [
        "EINVAL",
        "(next)",
        "without any payload",
        "invivo xen apply",
    ];
    is_error(unpatched, 1, &words);
    says(nothing, &["Xen 4.20.", "next: checked", "misfit: checked"]);
    says(misfit_gone, &["misfit: unloaded"]);
    says(next_gone, &["next: unloaded"]);
    says(reverted, &["nothing to do"]);
    says(unloaded, &["fix: unloaded"]);
    is_error(gone, 1, &["ENOENT", "invivo xen list"]);
    assert_eq!(last, empty);
    common_verbs_say(common);
    assert_eq!(end, empty);
    Ok(())
}
