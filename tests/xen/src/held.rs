//! Predictions of what a hypervisor answers to payloads, held against what it does answer.

use std::time::Duration;

use anyhow::{Result, bail};
use invivo_format::livepatch::{Effect, Errno, Prediction, Rule};

use crate::{Answer, End, Hypervisor, Machine, Run, Script, Step};

/// Some hundreds of payloads take seconds.
const LIMIT: Duration = Duration::from_secs(120);

/// A payload, and what is expected of it.
#[derive(Clone, Debug)]
pub struct Held {
    /// What it is called where something is wrong.
    pub name: String,
    /// The file.
    pub file: Vec<u8>,
    /// Payloads that are applied before it.
    pub before: Vec<Vec<u8>>,
    /// What is expected.
    pub prediction: Prediction,
}

impl Held {
    /// True if it is expected to do harm, whenever.
    #[must_use]
    pub fn harms(&self) -> bool {
        let version = self.prediction.version;
        let mut rules = self.prediction.findings.iter().map(|found| found.rule);
        rules.any(|rule| rule.effect(version).errno().is_none())
    }

    fn breaks(&self, rule: Rule) -> bool {
        let mut findings = self.prediction.findings.iter();
        findings.any(|finding| finding.rule == rule)
    }

    /// What is wrong with an answer to the upload; nothing if it is as expected.
    #[must_use]
    pub fn uploaded(&self, answer: Option<&Answer>) -> Option<String> {
        let expected = self.prediction.upload().map(|(_, effect)| effect);
        self.differs("upload", answer, expected)
    }

    fn differs(
        &self,
        what: &str,
        answer: Option<&Answer>,
        expected: Option<Effect>,
    ) -> Option<String> {
        let errno = expected.and_then(Effect::errno);
        let wanted = errno.map_or(0, |errno| errno.number());
        (answer.map(errno_of) != Some(wanted)).then(|| {
            let (name, findings) = (&self.name, &self.prediction.findings);
            format!("{name}: {what} is {answer:?}, expected {expected:?}: {findings:?}")
        })
    }
}

/// At which steps a hypervisor is asked for one payload.
#[derive(Debug)]
struct Steps {
    upload: Step,
    /// And the rule for which it fails.
    replace: Option<(Rule, Step)>,
    apply: Step,
    revert: Step,
    again: Option<Step>,
    unload: Step,
    /// Of the payloads below it: upload and apply, and when all is over revert and unload.
    below: Vec<Step>,
}

fn ask(script: &mut Script, number: usize, held: &Held) -> Steps {
    let name = format!("case{number}");
    let mut below = Vec::new();
    for (number, file) in held.before.iter().enumerate() {
        below.push(script.upload(&format!("below{number}"), file));
        below.push(script.apply(&format!("below{number}")));
    }
    let upload = upload(script, &name, &held.file);
    // What is below would be taken back.
    let is_alone = held.before.is_empty();
    let unpatched = held.prediction.unpatched.filter(|_| is_alone);
    let replace = unpatched.or(held.breaks(Rule::X48).then_some(Rule::X48));
    let replace = replace.map(|rule| (rule, script.replace(&name)));
    let apply = script.apply(&name);
    let revert = script.revert(&name);
    let again = held.breaks(Rule::X43).then(|| script.apply(&name));
    let unload = script.unload(&name);
    for number in (0..held.before.len()).rev() {
        below.push(script.revert(&format!("below{number}")));
        below.push(script.unload(&format!("below{number}")));
    }
    Steps {
        upload,
        replace,
        apply,
        revert,
        again,
        unload,
        below,
    }
}

/// Uploads the file. Our own code does not ask for a size that no Xen takes, so that is asked for
/// field by field.
pub fn upload(script: &mut Script, name: &str, file: &[u8]) -> Step {
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
#[must_use]
pub fn errno_of(answer: &Answer) -> i32 {
    match answer {
        Answer::Number(number) => i32::try_from(-number).unwrap_or(i32::MAX),
        Answer::Done { .. } => 0,
        // An answer that no prediction has.
        other => other.errno().map_or(i32::MAX, |errno| errno.0),
    }
}

/// The differences between what was predicted and what came, in words.
fn compare(held: &Held, run: &Run, steps: &Steps) -> Vec<String> {
    let prediction = &held.prediction;
    let of = |rule: Rule| Some(rule.effect(prediction.version));
    let same = |what, step, expected| held.differs(what, run.get(step), expected);
    // What was not taken is not there to be taken back. What was not applied is as it is taken back: that is
    // nothing to do, and no failure.
    let gone = prediction.upload().map(|_| Effect::Upload(Errno::ENOENT));
    let mut wrong: Vec<_> = held.uploaded(run.get(steps.upload)).into_iter().collect();
    if prediction.upload().is_none() {
        let apply = prediction.apply().map(|(_, effect)| effect);
        wrong.extend(same("apply", steps.apply, apply));
        if let Some((rule, replace)) = steps.replace {
            wrong.extend(same("replace", replace, of(rule)));
        }
        if let Some(again) = steps.again.filter(|_| prediction.apply().is_none()) {
            wrong.extend(same("apply again", again, of(Rule::X43)));
        }
    }
    wrong.extend(same("revert", steps.revert, gone));
    wrong.extend(same("unload", steps.unload, gone));
    let below = steps.below.iter();
    wrong.extend(below.filter_map(|step| same("a step of one below", *step, None)));
    wrong
}

/// Has a hypervisor take all these payloads through their lives in one run, and tells what is
/// otherwise than predicted.
///
/// # Errors
///
/// If the hypervisor does not survive it, or cannot be booted.
pub fn hold(files: &Hypervisor, all: &[Held]) -> Result<Vec<String>> {
    let mut script = Script::new();
    let ask = |(number, held)| (held, ask(&mut script, number, held));
    let asked: Vec<(&Held, Steps)> = all.iter().enumerate().map(ask).collect();
    let run = Machine::of(files).limit(LIMIT).run(&script)?;
    if run.end != End::Finished {
        let done = |asked: &&(&Held, Steps)| run.get(asked.1.apply).is_some();
        let last = asked.iter().find(|asked| !done(asked));
        let last = last.map(|(held, _)| (&held.name, &held.prediction.findings));
        let log: Vec<&str> = run.log.lines().rev().take(30).collect();
        let (version, end) = (&files.version, &run.end);
        bail!("Xen {version} with {last:?}: {end:?}\n{}", log.join("\n"));
    }
    println!(
        "Xen {}: {} payloads in {:?}",
        files.version,
        all.len(),
        run.took
    );
    let wrong = asked
        .iter()
        .flat_map(|(held, steps)| compare(held, &run, steps));
    Ok(wrong.collect())
}
