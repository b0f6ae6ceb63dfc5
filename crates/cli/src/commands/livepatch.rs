//! `invivo build --format livepatch`: from object files of two builds to a payload for Xen.

use std::collections::HashSet;
use std::path::Path;

use invivo_compare::{Comparison, Finding, Rule};
use invivo_format::livepatch::{
    Bound, Hypervisor, Loaded, Options as Asked, Payload, Splice, StructureVersion, XenVersion,
    bind, bypassed, efi_build_id, is_payload, predict, read, splice, write_listed,
};
use invivo_image::BuildId;
use invivo_patch::{Hex, Options, Refused};
use sha2::{Digest as _, Sha256};

use crate::arguments::Build;
use crate::commands::build::{Built, refused};
use crate::failure::{Failure, REFUSED, USAGE};
use crate::images::read_file;
use crate::output::{Output, counted};
use crate::patch_file::store;
use crate::verdict::Verdict;

pub(super) fn run(
    build: &Build,
    c: &Comparison<'_>,
    options: &Options,
    output: &Output,
) -> Result<u8, Failure> {
    if !c.base.is_of_objects() {
        let text = "a payload for Xen is made of object files";
        return Err(Failure::new(USAGE, text)
            .hint("give the object files of both builds, or two folders with them"));
    }
    if !build.callout.is_empty() {
        let text = "a payload has hooks of its own, and callouts are none";
        return Err(Failure::new(USAGE, text).hint("leave --callout out"));
    }
    let file = build.xen.as_deref().map(read_file).transpose()?;
    let hypervisor = match (&file, &build.xen) {
        (Some(file), Some(path)) => Some(self::hypervisor(path, file)?),
        _ => None,
    };
    let ids = Ids::of(build, hypervisor.as_ref())?;
    let verdict = Verdict::of(c, options);
    let patch = match verdict.patch {
        Ok(patch) => patch,
        Err(error) => return refused(&error, output),
    };
    let bound = Bound {
        hypervisor: hypervisor.as_ref(),
        version: StructureVersion::V2,
        depends: ids.depends,
        xen_depends: ids.xen,
        spliced: !build.splice.is_empty(),
    };
    let mut binding = match bind(c, &patch, &bound) {
        Ok(binding) => binding,
        Err(findings) => return refused(&Refused::Findings(findings), output),
    };
    let replaced = binding.payload.functions.iter();
    let replaced: Vec<String> = replaced.map(|function| function.name.clone()).collect();
    if !build.splice.is_empty() {
        match redirect(build, &mut binding.payload, hypervisor.as_ref())? {
            Ok(notes) => binding.findings.extend(notes),
            Err(finding) => return refused(&Refused::Findings(vec![finding]), output),
        }
    }
    if let Some(xen) = other_layout(hypervisor.as_ref(), &bound.xen_depends) {
        match binding.payload.by_names_alone(xen) {
            Ok(()) => binding.findings.extend(replaced.iter().map(|name| {
                let text = "Xen does not hold its code against what was there: --xen is another file \
                            than what runs, with other operands";
                Finding::note(Rule::Build, name, text)
            })),
            Err(name) => {
                let finding = Finding::refuse(Rule::Binding, name, ELSEWHERE);
                return refused(&Refused::Findings(vec![finding]), output);
            }
        }
    }
    let written = write_listed(&binding.payload)
        .map_err(|error| Failure::new(REFUSED, format!("no payload can be made: {error}")))?;
    foresee(&written.file, &bound, ids.bypassed)?;
    store(&build.output, &written.file)?;
    let mut findings: Vec<Finding> = verdict.findings;
    findings.extend(binding.findings);
    let built = Built {
        schema: "invivo.build/1",
        patch: Some(build.output.display().to_string()),
        name: Some(options.name.clone()),
        id: Some(Hex(Sha256::digest(&written.file).to_vec()).to_string()),
        build_id: Some(written.id.to_string()),
        size: Some(written.file.len()),
        live: true,
        functions: replaced,
        findings,
    };
    output.data(&built, || {
        let (file, size) = (build.output.display(), written.file.len());
        let functions = counted(built.functions.len(), "function");
        anstream::println!("{file}: {size} bytes, replaces {functions} of Xen");
        anstream::println!("build id {}", written.id);
        super::diff::print_findings(&built.findings);
    })?;
    Ok(0)
}

/// Why a distance in the hypervisor of `--xen` tells nothing of the one that runs.
pub(super) const ELSEWHERE: &str = "is what something without a name would be found by, as so many bytes away; \
     --xen tells that, and the hypervisor of --xen-id has it elsewhere";

/// The hypervisor of `--xen`, if it is another file than what runs: names are the same, places are not.
pub(super) fn other_layout<'h, 'f>(
    hypervisor: Option<&'h Hypervisor<'f>>,
    running: &BuildId,
) -> Option<&'h Hypervisor<'f>> {
    hypervisor.filter(|xen| xen.build_id().is_some_and(|own| own != running))
}

/// Leads what leads to replaced functions to their new code: a note of each, or what is in the way.
fn redirect(
    build: &Build,
    payload: &mut Payload,
    hypervisor: Option<&Hypervisor<'_>>,
) -> Result<Result<Vec<Finding>, Finding>, Failure> {
    let hypervisor = hypervisor.ok_or_else(|| {
        Failure::new(
            USAGE,
            "what leads to a function is found in the hypervisor's code",
        )
        .hint("give the xen-syms of the hypervisor that runs: --xen FILE")
    })?;
    let what: Vec<Splice> = build
        .splice
        .iter()
        .map(|name| Splice::from(*name))
        .collect();
    let spliced = match splice(payload, hypervisor, &what) {
        Ok(spliced) => spliced,
        Err(error) => {
            let text = format!("cannot be spliced: {}; leave --splice out", error.why);
            return Ok(Err(Finding::refuse(Rule::Hook, error.function, text)));
        }
    };
    let notes = spliced.into_iter().map(|one| {
        let mut text = format!(
            "{} calls and {} pointers lead to the new code",
            one.calls, one.pointers
        );
        text += &match one.jump {
            None => {
                ", and nothing else leads to the old one: it has no jump. A payload that is to go \
                     on top must be built with --depends and the file of this one"
                    .to_owned()
            }
            Some(why) => format!("; the jump stays: {why}"),
        };
        Finding::note(Rule::Hook, one.function, text)
    });
    Ok(Ok(notes.collect()))
}

/// The hypervisor that runs, from the file that `--xen` names.
pub(super) fn hypervisor<'f>(path: &Path, file: &'f [u8]) -> Result<Hypervisor<'f>, Failure> {
    Hypervisor::parse(file).map_err(|error| {
        Failure::new(USAGE, format!("{}: {error}", path.display()))
            .hint("give the xen-syms that was built with the hypervisor, or its .map file")
    })
}

/// Refuses a payload that the hypervisor would not take, or be harmed by.
fn foresee(file: &[u8], bound: &Bound<'_>, bypassed: HashSet<Vec<u8>>) -> Result<(), Failure> {
    // What it is applied upon has no names that this one needs.
    let below = (bound.depends != bound.xen_depends).then(|| Loaded {
        id: bound.depends.clone(),
        names: HashSet::new(),
        bypassed,
    });
    let loaded: Vec<Loaded> = below.into_iter().collect();
    for version in [XenVersion::FIRST, XenVersion::LAST] {
        let prediction = predict(
            file,
            &Asked {
                version,
                xen: bound.hypervisor,
                running: Some(&bound.xen_depends),
                loaded: &loaded,
            },
        );
        if !prediction.is_sound() {
            let reasons = prediction.findings.iter();
            let reasons: String = reasons.map(|finding| format!("\n  {finding}")).collect();
            let text = format!("Xen {version} would not take such a payload:{reasons}");
            return Err(Failure::new(REFUSED, text)
                .hint("see what a rule demands with: invivo explain RULE"));
        }
    }
    Ok(())
}

/// For which hypervisor a payload is, and upon what it is applied.
pub(super) struct Ids {
    pub(super) xen: BuildId,
    pub(super) depends: BuildId,
    /// The functions that what it is applied upon leads past, where its file was given.
    bypassed: HashSet<Vec<u8>>,
}

impl Ids {
    pub(super) fn of(build: &Build, hypervisor: Option<&Hypervisor<'_>>) -> Result<Ids, Failure> {
        let own = hypervisor.and_then(Hypervisor::build_id).cloned();
        let given = build.xen_id.as_deref().map(build_id).transpose()?;
        let depends = build.depends.as_deref().map(below).transpose()?;
        let (depends, bypassed) = depends.unzip();
        let xen = given.or(own).or_else(|| depends.clone()).ok_or_else(|| {
            Failure::new(USAGE, "the build id of the hypervisor is not known").hint(
                "give its xen-syms with --xen FILE, or its build id with --xen-id ID; it tells \
                 that itself: xl info | grep build_id",
            )
        })?;
        let depends = depends.unwrap_or_else(|| xen.clone());
        let bypassed = bypassed.unwrap_or_default();
        Ok(Ids {
            xen,
            depends,
            bypassed,
        })
    }
}

/// A build id: its digits, or that of a payload or of a `xen.efi`.
fn build_id(text: &str) -> Result<BuildId, Failure> {
    below(text).map(|(id, _)| id)
}

/// The same, and the functions that the payload leads past.
fn below(text: &str) -> Result<(BuildId, HashSet<Vec<u8>>), Failure> {
    let digits: Option<Vec<u8>> = text
        .as_bytes()
        .chunks(2)
        .map(|pair| {
            let pair = std::str::from_utf8(pair)
                .ok()
                .filter(|pair| pair.len() == 2)?;
            u8::from_str_radix(pair, 16).ok()
        })
        .collect();
    if let Some(digits) = digits.filter(|digits| (1..=64).contains(&digits.len())) {
        return Ok((BuildId(digits), HashSet::new()));
    }
    let path = Path::new(text);
    let wrong = |what: String| {
        Failure::new(USAGE, format!("{text}: {what}"))
            .hint("give a build id in hexadecimal digits, a payload, xen-syms or a xen.efi")
    };
    if !path.exists() {
        return Err(wrong("neither a build id nor a file".to_owned()));
    }
    let file = read_file(path)?;
    if is_payload(&file) {
        let read = read(&file).map_err(|error| wrong(error.to_string()))?;
        let names = bypassed(&read.payload).into_iter();
        let names = names.map(|name| name.as_bytes().to_vec());
        return Ok((read.id, names.collect()));
    }
    if let Some(id) = efi_build_id(&file) {
        return Ok((id, HashSet::new()));
    }
    let hypervisor = Hypervisor::parse(&file).map_err(wrong)?;
    let id = hypervisor.build_id().cloned();
    let id = id.ok_or_else(|| wrong("it has no build id".to_owned()))?;
    Ok((id, HashSet::new()))
}
