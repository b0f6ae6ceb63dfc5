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
use invivo_format::livepatch::{Effect, Finding, Loaded, Options, Prediction, Rule, predict, read};
use xen_tests::{Answer, End, Hypervisor, Machine, Run, Script, Step};

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

/// What is asked of the hypervisor for one case, and at which steps.
struct Steps {
    upload: Step,
    replace: Option<Step>,
    apply: Step,
    again: Option<Step>,
}

fn ask(script: &mut Script, number: usize, case: &Case, prediction: &Prediction) -> Steps {
    let breaks = |rule| {
        prediction
            .findings
            .iter()
            .any(|finding| finding.rule == rule)
    };
    let name = format!("case{number}");
    for (below, file) in case.before.iter().enumerate() {
        script.upload(&format!("below{below}"), file);
        script.apply(&format!("below{below}"));
    }
    let upload = upload(script, &name, &case.file);
    let replace = breaks(Rule::X48).then(|| script.replace(&name));
    let apply = script.apply(&name);
    script.revert(&name);
    let again = breaks(Rule::X43).then(|| script.apply(&name));
    script.unload(&name);
    for below in 0..case.before.len() {
        script.revert(&format!("below{below}"));
        script.unload(&format!("below{below}"));
    }
    Steps {
        upload,
        replace,
        apply,
        again,
    }
}

/// Uploads the file. Our own code does not ask for a size that no Xen takes, so that is asked for
/// field by field.
fn upload(script: &mut Script, name: &str, file: &[u8]) -> Step {
    if (1..=2 << 20).contains(&file.len()) {
        return script.upload(name, file);
    }
    let mut argument = [0; 136];
    let mut put =
        |at: usize, value: u64| argument[at..at + 8].copy_from_slice(&value.to_le_bytes());
    // The call, its interface version; upload; the name's and the payload's size.
    put(0, 27 | 0x15 << 32);
    put(24, name.len() as u64 + 1);
    put(32, file.len() as u64);
    script.raw(&argument, format!("{name}\0").as_bytes(), file)
}

/// The errno of an answer; 0 if it was done.
fn errno(answer: &Answer) -> i32 {
    match answer {
        Answer::Number(number) => i32::try_from(-number).unwrap_or(i32::MAX),
        Answer::Done { .. } => 0,
        // An answer that no prediction has.
        other => other.errno().map_or(i32::MAX, |errno| errno.0),
    }
}

/// The difference between what was predicted and what came, in words.
fn compare(case: &Case, prediction: &Prediction, run: &Run, steps: &Steps) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut same = |what: &str, step: Step, expected: Option<Effect>| {
        let came = run.get(step).map(errno);
        let expected = expected.and_then(Effect::errno);
        if came != Some(expected.map_or(0, |errno| errno.number())) {
            let answer = run.get(step);
            wrong.push(format!(
                "{}: {what} is {answer:?}, expected {expected:?}: {:?}",
                case.name, prediction.findings
            ));
        }
    };
    let of = |rule: Rule| Some(rule.effect(prediction.version));
    let upload = prediction.upload();
    same("upload", steps.upload, upload.map(|(_, effect)| effect));
    if upload.is_none() {
        same(
            "apply",
            steps.apply,
            prediction.apply().map(|(_, effect)| effect),
        );
        if let Some(replace) = steps.replace {
            same("replace", replace, of(Rule::X48));
        }
        if let Some(again) = steps.again.filter(|_| prediction.apply().is_none()) {
            same("apply again", again, of(Rule::X43));
        }
    }
    let first = prediction.findings.first().map(|finding| finding.rule);
    if first != case.rule {
        wrong.push(format!(
            "{}: the first rule is {first:?}, not {:?}: {:?}",
            case.name, case.rule, prediction.findings
        ));
    }
    wrong
}

/// Has a hypervisor answer to all cases in one run, and holds the answers against the predictions.
fn hold(files: &Hypervisor, xen: &Xen, cases: &[Case]) -> Result<()> {
    let mut script = Script::new();
    let mut asked = Vec::new();
    for (number, case) in cases.iter().enumerate() {
        let prediction = predicted(xen, case);
        let steps = ask(&mut script, number, case, &prediction);
        asked.push((case, prediction, steps));
    }
    let run = Machine::of(files).run(&script)?;
    let (version, count, took) = (&files.version, cases.len(), run.took);
    if run.end != End::Finished {
        let done = |steps: &&(_, _, Steps)| run.get(steps.2.apply).is_some();
        let last = asked.iter().find(|steps| !done(steps));
        let last = last.map(|(case, prediction, _)| (&case.name, &prediction.findings));
        let log: Vec<&str> = run.log.lines().rev().take(30).collect();
        unreachable!(
            "Xen {version} with {last:?}: {:?}\n{}",
            run.end,
            log.join("\n")
        );
    }
    let wrong = asked
        .iter()
        .flat_map(|(case, prediction, steps)| compare(case, prediction, &run, steps));
    let wrong: Vec<String> = wrong.collect();
    println!("Xen {version}: {count} payloads in {took:?}");
    assert!(
        wrong.is_empty(),
        "Xen {version}: {} wrong\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    Ok(())
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
        hold(&files, &xen, &cases)?;
    }
    Ok(())
}

/// Bytes of a sound payload are changed here and there: nobody chose what that breaks.
#[test]
fn predictions_hold_for_changes_that_nobody_chose() -> Result<()> {
    for files in Hypervisor::all()? {
        let xen = Xen::new(&files)?;
        let cases = chance::cases(&xen);
        let harmless = cases.into_iter().filter_map(|mut case| {
            let prediction = predicted(&xen, &case);
            let harms = |finding: &Finding| {
                let effect = finding.rule.effect(xen.version);
                effect.errno().is_none()
            };
            case.rule = prediction.findings.first().map(|finding| finding.rule);
            (!prediction.findings.iter().any(harms)).then_some(case)
        });
        let harmless: Vec<Case> = harmless.collect();
        assert!(harmless.len() >= 150, "{}", harmless.len());
        hold(&files, &xen, &harmless)?;
    }
    Ok(())
}

/// Payloads that the writer's own property test draws go through the loader.
#[test]
fn predictions_hold_for_payloads_that_were_drawn() -> Result<()> {
    for files in Hypervisor::all()? {
        let xen = Xen::new(&files)?;
        let harms = |finding: &Finding| finding.rule.effect(xen.version).errno().is_none();
        let drawn = arbitrary::cases(&xen).into_iter().filter_map(|mut case| {
            let prediction = predicted(&xen, &case);
            case.rule = prediction.findings.first().map(|finding| finding.rule);
            (!prediction.findings.iter().any(harms)).then_some(case)
        });
        let drawn: Vec<Case> = drawn.collect();
        let is_live = |case: &&Case| {
            let prediction = predicted(&xen, case);
            prediction.upload().is_none() && prediction.apply().is_none()
        };
        let (count, live) = (drawn.len(), drawn.iter().filter(is_live).count());
        assert!(count >= 120 && live >= 50, "{live} of {count}");
        hold(&files, &xen, &drawn)?;
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
    let is_done = |step| run.get(step).is_some_and(|answer| errno(answer) == 0);
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
