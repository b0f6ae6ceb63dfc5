//! `invivo check` of a payload for Xen: what the hypervisor will answer to it.

mod print;
mod running;

use std::path::Path;

use invivo_format::livepatch::{
    Effect, Hypervisor, Loaded, Options, Prediction, Rule, XenVersion, efi_build_id, predict,
};
use invivo_image::BuildId;
use schemars::JsonSchema;
use serde::Serialize;

use crate::arguments::Check;
use crate::commands::apply::Replaces;
use crate::commands::xen::Below;
use crate::failure::{Failure, REFUSED, USAGE};
use crate::images::read_file;
use crate::output::Output;

use print::print;
pub(crate) use running::{Running, plan};

/// `check --json` and `plan --json` of a payload.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct CheckedPayload {
    schema: &'static str,
    file: String,
    /// The release of Xen that the findings are about, such as `4.17`.
    xen_version: String,
    /// The file with the hypervisor's names, if one was given.
    xen: Option<String>,
    /// True if nothing forbids the payload. Findings may be left that limit what can be done.
    sound: bool,
    /// What Xen answers to the upload: `done`, the name of an error, or `harm` where the
    /// hypervisor itself fails.
    upload: String,
    /// The same of the first apply, if the upload is done.
    apply: Option<String>,
    /// True if Xen, told to put the payload in the place of all others, takes those back, finds then
    /// that this one does not fit, and goes on without any.
    replace_unpatches: bool,
    /// In the order in which Xen looks; what it does not look at comes last.
    findings: Vec<PayloadFinding>,
    /// True if there are more, which are not told.
    more: bool,
    /// Rules that could not be looked at in full without the hypervisor's names and code.
    without_xen: Vec<&'static str>,
    /// Releases that answer in another way, where none was chosen.
    elsewhere: Vec<Elsewhere>,
    /// By `plan`: the hypervisor below, which was asked, and how the payload stands in it.
    #[serde(skip_serializing_if = "Option::is_none")]
    below: Option<Below>,
}

#[derive(Debug, Serialize, JsonSchema)]
struct PayloadFinding {
    /// The rule; `invivo explain` tells more.
    rule: &'static str,
    /// Where it shows: `upload`, `apply`, `apply again`, `replace`, `revert`, `run`.
    action: &'static str,
    /// Xen's error; none if it does harm instead.
    errno: Option<String>,
    text: String,
}

/// A release that answers in another way.
#[derive(Debug, PartialEq, Eq, Serialize, JsonSchema)]
struct Elsewhere {
    xen_version: String,
    upload: String,
    apply: Option<String>,
}

/// The files that the answer depends on.
struct Files {
    xen: Option<std::sync::Arc<[u8]>>,
    running: Option<BuildId>,
    before: Vec<std::sync::Arc<[u8]>>,
}

pub(crate) fn check(check: &Check, bytes: &[u8], output: &Output) -> Result<u8, Failure> {
    let files = Files::read(check)?;
    let names = match (&files.xen, &check.xen) {
        (Some(bytes), Some(path)) => Some(hypervisor(path, bytes)?),
        _ => None,
    };
    let ask = |version| files.ask(check, version, names.as_ref(), bytes);
    let version = check.xen_version.unwrap_or(XenVersion::LAST);
    let prediction = ask(version)?;
    let mut elsewhere: Vec<Elsewhere> = Vec::new();
    if check.xen_version.is_none() {
        for other in XenVersion::all().rev().skip(1) {
            elsewhere.extend(differing(&prediction, &ask(other)?));
        }
    }
    let mut checked = checked(&check.image, &prediction);
    checked.xen = check.xen.as_ref().map(|path| path.display().to_string());
    checked.elsewhere = elsewhere;
    output.data(&checked, || print(&checked))?;
    Ok(if checked.sound { 0 } else { REFUSED })
}

/// Refuses a payload that a hypervisor of the release 4.`minor` would take and fail with, as far as
/// that can be told from the payload alone; to replace others also one with which it would go on
/// without any.
pub(crate) fn harmless(
    name: &str,
    payload: &[u8],
    minor: u32,
    replaces: Replaces,
) -> Result<(), Failure> {
    let known = u8::try_from(minor).ok().and_then(XenVersion::new);
    let options = Options {
        version: known.unwrap_or(XenVersion::LAST),
        xen: None,
        running: None,
        loaded: &[],
    };
    let prediction = predict(payload, &options);
    let harms = |rule: Rule| rule.effect(prediction.version).errno().is_none();
    let mut findings = prediction.findings.iter();
    if let Some(finding) = findings.clone().find(|finding| harms(finding.rule)) {
        let text = format!("{name}: {finding}: the hypervisor would fail with it");
        let hint = format!("see what it means with: invivo explain {}", finding.rule);
        return Err(Failure::new(REFUSED, text).hint(hint));
    }
    let unpatched = prediction
        .unpatched
        .filter(|_| replaces == Replaces::Any)
        .and_then(|rule| findings.find(|finding| finding.rule == rule));
    unpatched.map_or(Ok(()), |finding| {
        let text = format!(
            "{name}: {finding}: Xen would find that out when it has taken all other payloads back, and \
             go on without any"
        );
        Err(Failure::new(REFUSED, text).hint("build the payload for this hypervisor"))
    })
}

impl Files {
    fn read(check: &Check) -> Result<Files, Failure> {
        let efi = check.efi.as_deref().map(|path| {
            let found = efi_build_id(&read_file(path)?);
            found.ok_or_else(|| {
                let text = format!("{}: it has no build id of xen.efi", path.display());
                Failure::new(USAGE, text)
            })
        });
        Ok(Files {
            xen: check.xen.as_deref().map(read_file).transpose()?,
            running: efi.transpose()?,
            before: check
                .after
                .iter()
                .map(|path| read_file(path))
                .collect::<Result<_, _>>()?,
        })
    }

    /// What this release answers, with what was applied before.
    fn ask(
        &self,
        check: &Check,
        version: XenVersion,
        xen: Option<&Hypervisor<'_>>,
        payload: &[u8],
    ) -> Result<Prediction, Failure> {
        let predict_on = |loaded: &[Loaded], file: &[u8]| {
            let options = Options {
                version,
                xen,
                running: self.running.as_ref(),
                loaded,
            };
            predict(file, &options)
        };
        let mut loaded = Vec::new();
        for (file, path) in self.before.iter().zip(&check.after) {
            let before = predict_on(&loaded, file);
            loaded.push(before.loaded.ok_or_else(|| {
                let text = format!("{}: Xen {version} does not take it", path.display());
                Failure::new(REFUSED, text).hint("see why with: invivo check on that payload")
            })?);
        }
        Ok(predict_on(&loaded, payload))
    }
}

/// The names of a hypervisor, from its file.
fn hypervisor<'f>(path: &Path, bytes: &'f [u8]) -> Result<Hypervisor<'f>, Failure> {
    Hypervisor::parse(bytes).map_err(|error| {
        Failure::new(USAGE, format!("{}: {error}", path.display()))
            .hint("distributions have xen-syms and its .map file in a package of debug data")
    })
}

/// The other release's answer, where it is another one.
fn differing(one: &Prediction, other: &Prediction) -> Option<Elsewhere> {
    let answers = |prediction: &Prediction| (answer(prediction.upload()), applied(prediction));
    let (upload, apply) = answers(other);
    (answers(one) != (upload.clone(), apply.clone())).then(|| Elsewhere {
        xen_version: other.version.to_string(),
        upload,
        apply,
    })
}

fn answer(first: Option<(Rule, Effect)>) -> String {
    match first.map(|(_, effect)| effect.errno()) {
        None => "done".to_owned(),
        Some(None) => "harm".to_owned(),
        Some(Some(errno)) => errno.to_string(),
    }
}

fn applied(prediction: &Prediction) -> Option<String> {
    let is_taken = prediction.upload().is_none();
    is_taken.then(|| answer(prediction.apply()))
}

fn checked(file: &Path, prediction: &Prediction) -> CheckedPayload {
    let findings = prediction.findings.iter().map(|finding| {
        let effect = finding.rule.effect(prediction.version);
        PayloadFinding {
            rule: finding.rule.id(),
            action: effect.action(),
            errno: effect.errno().map(|errno| errno.to_string()),
            text: finding.text.clone(),
        }
    });
    CheckedPayload {
        schema: "invivo.check-payload/1",
        file: file.display().to_string(),
        xen_version: prediction.version.to_string(),
        xen: None,
        sound: prediction.is_sound(),
        upload: answer(prediction.upload()),
        apply: applied(prediction),
        replace_unpatches: prediction.unpatched.is_some(),
        findings: findings.collect(),
        more: prediction.more,
        without_xen: prediction
            .without_xen
            .iter()
            .map(|rule| rule.id())
            .collect(),
        elsewhere: Vec::new(),
        below: None,
    }
}
