//! May it be patched? All that is found against a patch: by comparing, by planning, and by
//! choosing the hooks.

use invivo_apply::x86_64::{Form, choose};
use invivo_compare::{Comparison, Finding, Judgement, NotJudged, Rule, Severity};
use invivo_image::{Image, LinkAddr, LiveAddr, Machine, demangle};
use invivo_patch::{
    FinalPlan, Options, Patch, Refused, bind_to_program, plan, plan_cold, plan_final, plan_module,
};
use owo_colors::OwoColorize;

use crate::arguments::Judged;
use crate::failure::{Failure, REFUSED, USAGE};

/// A patch or the reason why there is none, and everything that was found.
pub(crate) struct Verdict {
    pub(crate) patch: Result<Patch, Refused>,
    pub(crate) findings: Vec<Finding>,
}

/// The same for two Windows images.
pub(crate) struct FinalVerdict {
    pub(crate) plan: Result<FinalPlan, Refused>,
    pub(crate) findings: Vec<Finding>,
}

impl FinalVerdict {
    pub(crate) fn of(c: &Comparison<'_>) -> FinalVerdict {
        FinalVerdict::with(c, plan_final(c))
    }

    /// For a patch module of older Windows.
    pub(crate) fn of_module(c: &Comparison<'_>) -> FinalVerdict {
        FinalVerdict::with(c, plan_module(c))
    }

    /// For a file that is patched on disk.
    pub(crate) fn of_file(c: &Comparison<'_>) -> FinalVerdict {
        FinalVerdict::with(c, plan_cold(c))
    }

    fn with(c: &Comparison<'_>, plan: Result<FinalPlan, Refused>) -> FinalVerdict {
        let mut findings = c.findings.clone();
        if let Err(Refused::Findings(planned)) = &plan
            && !c.is_refused()
        {
            findings.extend(planned.iter().cloned());
        }
        findings.sort_by_key(|finding| finding.severity);
        FinalVerdict { plan, findings }
    }
}

/// All that is found against a patch, whatever kind of images they are.
pub(crate) fn findings(c: &Comparison<'_>) -> Vec<Finding> {
    if c.base.machine == Machine::X86 {
        // Most patches of such images are modules.
        FinalVerdict::of_module(c).findings
    } else if c.base.is_windows() {
        FinalVerdict::of(c).findings
    } else {
        Verdict::of(c, &Options::default()).findings
    }
}

impl Verdict {
    pub(crate) fn of(c: &Comparison<'_>, options: &Options) -> Verdict {
        let mut findings = c.findings.clone();
        let mut patch = plan(c, options);
        match &patch {
            // Where the functions of object files are, and so what is around them, is made up.
            Ok(_) if c.base.is_of_objects() => {}
            Ok(planned) => {
                let hooks = hooks(c.base.base, planned);
                let refused = |finding: &&Finding| finding.severity == Severity::Refuse;
                let in_the_way: Vec<_> = hooks.iter().filter(refused).cloned().collect();
                findings.extend(hooks);
                if !in_the_way.is_empty() {
                    patch = Err(Refused::Findings(in_the_way));
                }
            }
            // What was found by comparing is there already.
            Err(Refused::Findings(planned)) if !c.is_refused() => {
                findings.extend(planned.iter().cloned());
            }
            Err(_) => {}
        }
        findings.sort_by_key(|finding| finding.severity);
        let mut seen = std::collections::HashSet::new();
        findings.retain(|finding| {
            seen.insert((finding.rule, finding.subject.clone(), finding.text.clone()))
        });
        Verdict { patch, findings }
    }

    /// The same of object files, for the program that the base's were linked into.
    pub(crate) fn in_program(c: &Comparison<'_>, options: &Options, program: &Image) -> Verdict {
        let Verdict {
            patch,
            mut findings,
        } = Verdict::of(c, options);
        let mut patch = patch.and_then(|patch| bind_to_program(c, patch, program));
        if let Ok(bound) = &patch {
            let hooks = hooks(program.base, bound);
            let refused = |finding: &&Finding| finding.severity == Severity::Refuse;
            let in_the_way: Vec<_> = hooks.iter().filter(refused).cloned().collect();
            findings.extend(hooks);
            if !in_the_way.is_empty() {
                patch = Err(Refused::Findings(in_the_way));
            }
        }
        findings.sort_by_key(|finding| finding.severity);
        Verdict { patch, findings }
    }
}

/// R-HOOK and R-SIGNATURE: which entries take no hook, which only while the threads stand, and
/// what must not meet frames inside old code.
///
/// The live preflight decides again, when it has compared the bytes that are in the process.
fn hooks(base: LinkAddr, patch: &Patch) -> Vec<Finding> {
    let mut taken = Vec::new();
    let apart = patch.order.apart.iter().map(|function| {
        Finding::note(
            Rule::Signature,
            demangle(function),
            "a frame that is still inside old code expects registers, the stack, a result, variables, \
             or what is freed and unlocked otherwise than the new code leaves them: the patch goes \
             live only while no thread is inside what is replaced",
        )
    });
    let mut findings: Vec<Finding> = apart.collect();
    for redirect in patch.redirects.iter().filter(|redirect| redirect.hooked) {
        let at = LinkAddr(base.0.saturating_add(redirect.at.0));
        let name = demangle(&redirect.function);
        if redirect.entry.again {
            findings.push(Finding::note(
                Rule::Hook,
                name.clone(),
                "jumps back to its own first instruction, where its hook will be: the patch goes \
                 live only while no thread is inside what is replaced",
            ));
        }
        match choose(&redirect.entry, LiveAddr(at.0), redirect.size, &mut taken) {
            Err(why) => findings.push(Finding::refuse(
                Rule::Hook,
                name,
                format!("cannot be hooked: {why}"),
            )),
            Ok(choice) if choice.form == Form::Overwrite => findings.push(Finding::note(
                Rule::Hook,
                name,
                "has no single instruction at its entry that a jump fits over: all threads stop \
                 for a moment",
            )),
            Ok(_) => {}
        }
    }
    findings
}

/// Applies what a person has judged.
pub(crate) fn allow(c: &mut Comparison<'_>, judged: &Judged) -> Result<(), Failure> {
    let (allowed, reasons) = (&judged.allow, &judged.because);
    if reasons.len() > 1 && reasons.len() != allowed.len() {
        let text = format!(
            "{} findings are allowed for {} reasons",
            allowed.len(),
            reasons.len()
        );
        return Err(Failure::new(USAGE, text)
            .hint("give --because once for all that is allowed, or once for each"));
    }
    let reasons = reasons.iter().cycle();
    let judgements = allowed.iter().zip(reasons);
    let judgements = judgements.map(|((rule, name), because)| Judgement {
        rule: *rule,
        name: name.clone(),
        because: because.clone(),
    });
    c.allow(judgements.collect()).map_err(|error| {
        let hint = match &error {
            NotJudged::Rule(rule) => format!("see what it demands: invivo explain {}", rule.id()),
            NotJudged::Nothing { refusals, .. } if refusals.is_empty() => {
                "nothing is refused here that could be allowed: leave --allow out".to_owned()
            }
            NotJudged::Nothing { .. } => "allow one of those that are listed".to_owned(),
        };
        Failure::new(REFUSED, error.to_string()).hint(hint)
    })
}

/// Shows what a person has judged.
pub(crate) fn print_judgements(judgements: &[Judgement]) {
    if !judgements.is_empty() {
        anstream::println!("\nallowed by a person");
    }
    for judgement in judgements {
        let (rule, name) = (judgement.rule.id(), judgement.name.bold());
        anstream::println!("  {} {name}: {}", rule.yellow(), judgement.because);
    }
}
