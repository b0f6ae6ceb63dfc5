//! `invivo plan` of a payload: what the hypervisor below will answer to it.

use std::collections::HashSet;

use invivo_format::livepatch::{
    Effect, Finding, Loaded, Options, Prediction, Rule, XenVersion, predict,
};
use invivo_image::BuildId;

use super::{checked, print};
use crate::commands::apply::Replaces;
use crate::commands::xen::Below;
use crate::failure::{Failure, REFUSED};
use crate::output::Output;
use crate::patch_file::PayloadFile;

/// What the hypervisor below tells of itself.
pub(crate) struct Running {
    /// Of its release, 4.`minor`.
    pub(crate) minor: u32,
    pub(crate) build_id: Option<BuildId>,
    /// True if payloads are live, of which Xen does not tell the build ids.
    pub(crate) on_top: bool,
}

/// Prints what is to be expected; the exit code of that.
pub(crate) fn plan(
    file: &PayloadFile,
    running: &Running,
    below: Below,
    replaces: Replaces,
    output: &Output,
) -> Result<u8, Failure> {
    let prediction = expected(file, running, replaces);
    let mut checked = checked(&file.path, &prediction);
    let version = prediction.version;
    let mut effects = prediction.findings.iter().map(|f| f.rule.effect(version));
    if replaces == Replaces::Any && effects.any(|effect| matches!(effect, Effect::Replace(_))) {
        checked.sound = false;
    }
    let is_live = below.payload.state == "applied";
    checked.below = Some(below);
    output.data(&checked, || {
        if let Some(below) = &checked.below {
            below.hypervisor.print();
            below.payload.print();
        }
        if is_live {
            anstream::println!("nothing to do");
        } else {
            print(&checked);
        }
    })?;
    Ok(if is_live || checked.sound { 0 } else { REFUSED })
}

fn expected(file: &PayloadFile, running: &Running, replaces: Replaces) -> Prediction {
    let known = u8::try_from(running.minor).ok();
    let depends = &file.read.payload.depends;
    // A replacement goes upon Xen alone. What else is live is taken for what it depends on, which
    // nobody can say.
    let on_top = running.on_top && replaces == Replaces::Earlier;
    let last = Loaded {
        id: depends.clone(),
        names: HashSet::new(),
        bypassed: HashSet::new(),
    };
    let options = Options {
        version: known.and_then(XenVersion::new).unwrap_or(XenVersion::LAST),
        xen: None,
        running: running.build_id.as_ref(),
        loaded: if on_top {
            std::slice::from_ref(&last)
        } else {
            &[]
        },
    };
    let mut prediction = predict(&file.bytes, &options);
    if !on_top {
        return prediction;
    }
    if running.build_id.as_ref() == Some(depends) {
        let text = "the payload is built on Xen itself, and another one is live".to_owned();
        let rule = Rule::X44;
        let later = |finding: &Finding| finding.rule > rule;
        let place = prediction.findings.iter().position(later);
        let place = place.unwrap_or(prediction.findings.len());
        prediction.findings.insert(place, Finding { rule, text });
    } else {
        not_looked_at(&mut prediction, Rule::X44);
    }
    // What is live may lead calls past functions that this payload names.
    not_looked_at(&mut prediction, Rule::X68);
    prediction
}

fn not_looked_at(prediction: &mut Prediction, rule: Rule) {
    if let Err(place) = prediction.without_xen.binary_search(&rule) {
        prediction.without_xen.insert(place, rule);
    }
}
