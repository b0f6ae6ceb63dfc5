//! The verbs that patches of processes have, for payloads: lines of a script, and what is to come of
//! each.

use std::process::Command;

use anyhow::{Result, ensure};
use xen_tests::Hypervisor;
use xen_tests::kept::keep;
use xen_tests::linux::{Ran, built};

/// An error with that code, which says these words; nothing is on standard output.
pub(crate) fn is_error(ran: &Ran, code: i32, words: &[&str]) {
    assert_eq!(ran.code, code, "{ran:?}");
    assert!(ran.stdout.is_empty(), "{ran:?}");
    for word in ["error: ", "hint: "].iter().chain(words) {
        assert!(ran.stderr.contains(word), "{word} is missing: {ran:?}");
    }
}

pub(crate) fn says(ran: &Ran, words: &[&str]) {
    assert_eq!(ran.code, 0, "{ran:?}");
    for word in words {
        assert!(ran.stdout.contains(word), "{word} is missing: {ran:?}");
    }
}

/// A payload that counts, as the program builds it.
pub(crate) fn counting(xen: &Hypervisor) -> Result<Vec<u8>> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("count.livepatch");
    let mut build = Command::new(built()?);
    build.args(["build", "--trace", "do_xen_version", "--json", "--xen"]);
    let ran = build.arg(xen.symbols()).arg("-o").arg(&file).output()?;
    ensure!(ran.status.success(), "{ran:?}");
    let said = String::from_utf8_lossy(&ran.stdout);
    for word in ["invivo.build/1", "\"do_xen_version\""] {
        ensure!(said.contains(word), "{word} is missing: {said}");
    }
    let file = std::fs::read(file)?;
    keep(&file);
    Ok(file)
}

/// What is done with the verbs that patches of processes have, once nothing is loaded.
pub(crate) const COMMON: [&str; 23] = [
    "plan count.livepatch",
    "status count.livepatch",
    "apply count.livepatch --rendezvous 500",
    "apply count.livepatch",
    "apply count.livepatch --dry-run",
    "status count.livepatch next.livepatch --json",
    "plan next.livepatch",
    "apply next.livepatch --rendezvous 500",
    "status next.livepatch",
    "replace next.livepatch --rendezvous 500 --json",
    "list",
    "apply next.livepatch",
    "status next.livepatch count.livepatch",
    "apply other.livepatch --name count",
    "apply harmful",
    "plan foreign.livepatch",
    "status foreign.livepatch",
    "apply foreign.livepatch",
    "apply count.livepatch -p 1",
    "revert next --rendezvous 500",
    "revert next --xen --rendezvous 500",
    "revert next --xen --unload",
    "revert count --xen --unload --json",
];

pub(crate) fn common_verbs_say(ran: &[Ran]) {
    let [
        plan,
        absent,
        applied,
        again,
        nothing,
        both,
        not_on_top,
        refused,
        left,
        replaced,
        list,
        untold,
        swapped,
        taken,
        rest @ ..,
    ] = ran
    else {
        unreachable!("{ran:?}")
    };
    says(
        plan,
        &[
            "Xen 4.20.",
            "upload done, apply done",
            "sound as far",
            "X18",
        ],
    );
    says(absent, &["count (count.livepatch): unpatched"]);
    says(applied, &["count: applied"]);
    says(again, &["count: applied (nothing to do)"]);
    says(nothing, &["nothing to do"]);
    says(
        both,
        &[
            "invivo.status/1",
            "\"state\": \"applied\"",
            "\"state\": \"unpatched\"",
        ],
    );
    // It is built on Xen itself, where another one is live.
    assert_eq!(not_on_top.code, 1, "{not_on_top:?}");
    for word in ["X44", "apply EINVAL"] {
        assert!(not_on_top.stdout.contains(word), "{not_on_top:?}");
    }
    is_error(refused, 1, &["EINVAL"]);
    says(left, &["next (next.livepatch): unpatched"]);
    says(replaced, &["\"action\": \"replace\"", "\"changed\": true"]);
    says(list, &["next: applied", "count: checked", "invivo.id="]);
    // It was made by hand: a name proves nothing.
    is_error(untold, 1, &["does not tell", "--name", "revert next --xen"]);
    says(
        swapped,
        &["applied: by its name", "count (count.livepatch): checked"],
    );
    is_error(taken, 1, &["another payload with the name count"]);
    let [
        harmful,
        foreign,
        foreign_status,
        foreign_apply,
        process,
        nowhere,
        reverted,
        unloaded,
        last,
    ] = rest
    else {
        unreachable!("{ran:?}")
    };
    is_error(harmful, 1, &["X54", "invivo check harmful"]);
    assert_eq!(foreign.code, 1, "{foreign:?}");
    for word in ["X14", "upload EINVAL"] {
        assert!(foreign.stdout.contains(word), "{foreign:?}");
    }
    says(foreign_status, &["refused: it is for the hypervisor"]);
    is_error(foreign_apply, 1, &["EINVAL", "xl dmesg"]);
    is_error(process, 2, &["no process", "leave -p out"]);
    assert_eq!(nowhere.code, 2, "{nowhere:?}");
    assert!(nowhere.stderr.contains("--xen"), "{nowhere:?}");
    says(reverted, &["next: reverted"]);
    says(unloaded, &["next: unloaded"]);
    says(last, &["\"action\": \"unload\"", "invivo.xen-outcome/1"]);
}
