//! `invivo build --format livepatch`: from object files of two builds to a payload for Xen.

use std::collections::HashSet;
use std::path::Path;

use invivo_compare::{Comparison, Finding};
use invivo_format::livepatch::{
    Bound, Hypervisor, Loaded, Options as Asked, StructureVersion, XenVersion, bind, efi_build_id,
    is_payload, predict, read, write,
};
use invivo_image::BuildId;
use invivo_patch::{Hex, Options, Refused};
use sha2::{Digest as _, Sha256};

use crate::arguments::Build;
use crate::commands::build::{Built, refused};
use crate::failure::{Failure, REFUSED, USAGE};
use crate::images::read_file;
use crate::output::Output;
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
        (Some(file), Some(path)) => Some(Hypervisor::parse(file).map_err(|error| {
            Failure::new(USAGE, format!("{}: {error}", path.display()))
                .hint("give the xen-syms that was built with the hypervisor, or its .map file")
        })?),
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
    };
    let binding = match bind(c, &patch, &bound) {
        Ok(binding) => binding,
        Err(findings) => return refused(&Refused::Findings(findings), output),
    };
    let written = write(&binding.payload)
        .map_err(|error| Failure::new(REFUSED, format!("no payload can be made: {error}")))?;
    foresee(&written.file, &bound)?;
    store(&build.output, &written.file)?;
    let mut findings: Vec<Finding> = verdict.findings;
    findings.extend(binding.findings);
    let functions = binding.payload.functions.iter();
    let built = Built {
        schema: "invivo.build/1",
        patch: Some(build.output.display().to_string()),
        name: Some(options.name.clone()),
        id: Some(Hex(Sha256::digest(&written.file).to_vec()).to_string()),
        build_id: Some(written.id.to_string()),
        size: Some(written.file.len()),
        live: true,
        functions: functions.map(|function| function.name.clone()).collect(),
        findings,
    };
    output.data(&built, || {
        let (file, size) = (build.output.display(), written.file.len());
        let count = built.functions.len();
        let plural = if count == 1 { "" } else { "s" };
        anstream::println!("{file}: {size} bytes, replaces {count} function{plural} of Xen");
        anstream::println!("build id {}", written.id);
        super::diff::print_findings(&built.findings);
    })?;
    Ok(0)
}

/// Refuses a payload that the hypervisor would not take, or be harmed by.
fn foresee(file: &[u8], bound: &Bound<'_>) -> Result<(), Failure> {
    // What it is applied upon has no names that this one needs.
    let below = (bound.depends != bound.xen_depends).then(|| Loaded {
        id: bound.depends.clone(),
        names: HashSet::new(),
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
struct Ids {
    xen: BuildId,
    depends: BuildId,
}

impl Ids {
    fn of(build: &Build, hypervisor: Option<&Hypervisor<'_>>) -> Result<Ids, Failure> {
        let own = hypervisor.and_then(Hypervisor::build_id).cloned();
        let given = build.xen_id.as_deref().map(build_id).transpose()?;
        let depends = build.depends.as_deref().map(build_id).transpose()?;
        let xen = given.or(own).or_else(|| depends.clone()).ok_or_else(|| {
            Failure::new(USAGE, "the build id of the hypervisor is not known").hint(
                "give its xen-syms with --xen FILE, or its build id with --xen-id ID; it tells \
                 that itself: xl info | grep build_id",
            )
        })?;
        let depends = depends.unwrap_or_else(|| xen.clone());
        Ok(Ids { xen, depends })
    }
}

/// A build id: its digits, or that of a payload or of a `xen.efi`.
fn build_id(text: &str) -> Result<BuildId, Failure> {
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
        return Ok(BuildId(digits));
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
        return Ok(read.id);
    }
    if let Some(id) = efi_build_id(&file) {
        return Ok(id);
    }
    let hypervisor = Hypervisor::parse(&file).map_err(wrong)?;
    let id = hypervisor.build_id().cloned();
    id.ok_or_else(|| wrong("it has no build id".to_owned()))
}
