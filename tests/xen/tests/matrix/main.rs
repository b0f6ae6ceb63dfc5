//! The prediction of what Xen answers, held against what it answers: payloads of all kinds, sound
//! ones and ones with a single mistake, on each hypervisor.

mod arbitrary;
mod base;
mod chance;
mod draft;
#[path = "../../../../crates/format/tests/payload/drawn.rs"]
mod drawn;
#[path = "../../../../crates/format/tests/payload/example.rs"]
mod example;
mod functions;
mod harm;
mod headers;
mod models;
mod symbols;

use std::collections::BTreeSet;

use anyhow::Result;
use invivo_format::livepatch::{Loaded, Options, Prediction, Rule, predict, read};
use xen_tests::held::{self, Held, errno_of};
use xen_tests::kept::keep;
use xen_tests::{End, Hypervisor, Machine, Script};

use base::{Case, Xen};
use harm::Seen;

/// More than a hypervisor takes to crash.
const LIMIT: std::time::Duration = std::time::Duration::from_secs(20);

/// Payloads that a hypervisor survives.
fn all(xen: &Xen) -> Vec<Case> {
    let kinds = [
        models::cases,
        headers::cases,
        symbols::cases,
        functions::cases,
    ];
    kinds.into_iter().flat_map(|cases| cases(xen)).collect()
}

fn predicted(xen: &Xen, case: &Case) -> Prediction {
    let predict_after = |loaded: &[Loaded], file: &[u8]| {
        let options = Options {
            version: xen.version,
            xen: Some(&xen.known),
            running: None,
            loaded,
        };
        predict(file, &options)
    };
    let mut loaded = Vec::new();
    for before in &case.before {
        loaded.extend(predict_after(&loaded, before).loaded);
    }
    predict_after(&loaded, &case.file)
}

fn held(xen: &Xen, case: &Case) -> Held {
    Held {
        name: case.name.clone(),
        file: case.file.clone(),
        before: case.before.clone(),
        prediction: predicted(xen, case),
    }
}

/// Has a hypervisor answer to all cases in one run, and holds the answers against the predictions.
fn hold(files: &Hypervisor, all: &[Held]) -> Result<()> {
    let (version, wrong) = (&files.version, held::hold(files, all)?);
    let (count, wrong) = (wrong.len(), wrong.join("\n"));
    assert_eq!(count, 0, "Xen {version}:\n{wrong}");
    Ok(())
}

/// Those of them that are not expected to do harm, of which there are so many. The others are kept, and
/// are sent last of all.
fn harmless(xen: &Xen, cases: &[Case], at_least: usize) -> Vec<Held> {
    let all = cases.iter().map(|case| held(xen, case));
    let (harmful, harmless): (Vec<Held>, _) = all.partition(Held::harms);
    harmful.iter().for_each(|held| keep(&held.file));
    let count = harmless.len();
    assert!(count >= at_least, "{count}");
    harmless
}

#[test]
fn predictions_are_what_the_hypervisor_answers() -> Result<()> {
    for files in Hypervisor::all()? {
        let xen = Xen::new(&files)?;
        // Some of what harms one version is refused by another.
        let harm = harm::cases(&xen).into_iter().map(|(case, _)| case);
        let is_refused = |case: &Case| {
            let upload = predicted(&xen, case).upload();
            upload.is_some_and(|(_, effect)| effect.errno().is_some())
        };
        let cases: Vec<Case> = all(&xen)
            .into_iter()
            .chain(harm.filter(is_refused))
            .collect();
        assert!(cases.len() >= 280, "{}", cases.len());
        for case in &cases {
            let found = predicted(&xen, case).findings;
            let first = found.first().map(|finding| finding.rule);
            assert_eq!(first, case.rule, "{}: {found:?}", case.name);
        }
        let all: Vec<Held> = cases.iter().map(|case| held(&xen, case)).collect();
        hold(&files, &all)?;
    }
    Ok(())
}

/// Bytes of a sound payload are changed here and there: nobody chose what that breaks.
#[test]
fn predictions_hold_for_changes_that_nobody_chose() -> Result<()> {
    for files in Hypervisor::all()? {
        let xen = Xen::new(&files)?;
        hold(&files, &harmless(&xen, &chance::cases(&xen), 150))?;
    }
    Ok(())
}

/// Payloads that the writer's own property test draws go through the loader.
#[test]
fn predictions_hold_for_payloads_that_were_drawn() -> Result<()> {
    for files in Hypervisor::all()? {
        let xen = Xen::new(&files)?;
        let drawn = harmless(&xen, &arbitrary::cases(&xen), 120);
        let is_live =
            |held: &&Held| held.prediction.upload().is_none() && held.prediction.apply().is_none();
        let live = drawn.iter().filter(is_live).count();
        assert!(live >= 50, "{live} of {}", drawn.len());
        hold(&files, &drawn)?;
    }
    Ok(())
}

/// What Xen takes can be read into a model, but for what the model does not have.
#[test]
fn sound_payloads_can_be_read() -> Result<()> {
    let xen = Xen::new(&Hypervisor::get("4.17")?)?;
    let mut unread = BTreeSet::new();
    for case in all(&xen) {
        let is_sound = predicted(&xen, &case).is_sound();
        if is_sound && read(&case.file).is_err() {
            unread.insert(case.name);
        }
    }
    // A distance to a number, which is no symbol.
    assert_eq!(unread, ["rel_pc32_to_near_number".to_owned()].into());
    Ok(())
}

/// What forbids it is found, and a hypervisor that is not asked first crashes.
#[test]
fn what_harms_the_hypervisor_is_refused() -> Result<()> {
    for files in Hypervisor::all()? {
        let xen = Xen::new(&files)?;
        let cases = harm::cases(&xen);
        for (case, _) in &cases {
            let prediction = predicted(&xen, case);
            let first = prediction.findings.first().map(|finding| finding.rule);
            assert_eq!(first, case.rule, "{}: {:?}", case.name, prediction.findings);
            assert!(!prediction.is_sound(), "{}", case.name);
            keep(&case.file);
        }
        for name in harm::sample(&files.version) {
            let found = cases.iter().find(|(case, _)| case.name == *name);
            let (case, seen) = found.unwrap_or_else(|| unreachable!("no case {name}"));
            shown(&files, case, *seen)?;
        }
    }
    Ok(())
}

/// The hypervisor takes all steps before the one that it crashes with.
fn shown(files: &Hypervisor, case: &Case, seen: Seen) -> Result<()> {
    let mut script = Script::new();
    let upload = script.upload("a", &case.file);
    let apply = script.apply("a");
    let called = [
        script.extra_version(),
        script.revert("a"),
        script.unload("a"),
    ];
    script.extra_version();
    let run = Machine::of(files).limit(LIMIT).run(&script)?;
    let name = format!("Xen {}: {}: {:?}", files.version, case.name, run.answers);
    assert_ne!(run.end, End::Finished, "{name}");
    let is_done = |step| run.get(step).is_some_and(|answer| errno_of(answer) == 0);
    let done = [upload, apply].map(is_done);
    let expected = match seen {
        Seen::Upload => [false, false],
        Seen::Apply => [true, false],
        Seen::Call | Seen::Nothing => [true, true],
    };
    assert_eq!(done, expected, "{name}");
    assert!(
        called
            .iter()
            .any(|step| run.get(*step).is_none() || seen == Seen::Call),
        "{name}"
    );
    Ok(())
}

/// Each rule is the first that some case breaks, but for those of versions that are not at hand.
#[test]
fn each_rule_has_a_case() -> Result<()> {
    let xen = Xen::new(&Hypervisor::get("4.17")?)?;
    let harm = harm::cases(&xen).into_iter().map(|(case, _)| case);
    let cases = all(&xen).into_iter().chain(harm);
    let broken: BTreeSet<Rule> = cases.filter_map(|case| case.rule).collect();
    let missing: Vec<&Rule> = Rule::ALL
        .iter()
        .filter(|rule| !broken.contains(rule))
        .collect();
    assert_eq!(missing, [&Rule::X05; 0]);
    Ok(())
}
