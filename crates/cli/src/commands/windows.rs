//! `invivo build` for Windows images: the fixed build with metadata that make it a patch.

use std::collections::BTreeSet;
use std::sync::Arc;

use invivo_compare::{Comparison, Finding};
use invivo_format::hotp1::{self, HookShape};
use invivo_format::hpat::{self, HotPatch, Options, PlaceError, validate};
use invivo_image::Binding;
use invivo_image::pe::{HotPatchObject, PeError, PeImage};
use invivo_patch::FinalPlan;
use sha2::{Digest as _, Sha256};

use super::build::{Built, refused};
use super::cold;
use super::marks::{hold_against_marks, objects};
use crate::arguments::{Build, Format, Pair};
use crate::failure::{Failure, REFUSED, USAGE};
use crate::output::{Output, counted};
use crate::patch_file::store;
use crate::verdict::FinalVerdict;

/// What a comparison led to.
pub(crate) enum Made {
    /// All is done; the exit code.
    Ended(u8),
    /// A final image is still to be written, for which nothing but this is needed: a copy of the
    /// largest images is large itself, and the comparison need not be held beside it.
    Final(Box<FinalImage>),
}

/// A final image that is not written yet.
pub(crate) struct FinalImage {
    base: PeImage,
    fixed: PeImage,
    metadata: HotPatch,
    plan: FinalPlan,
    findings: Vec<Finding>,
}

pub(crate) fn run(
    build: &Build,
    pair: &Pair,
    c: &Comparison<'_>,
    output: &Output,
) -> Result<Made, Failure> {
    let is_cold = build.format == Format::Cold;
    // The format of Windows has no field for any of these; what is for the disk has one for some.
    for (given, option) in [
        (!build.callout.is_empty(), "--callout"),
        (!build.label.is_empty() && !is_cold, "--label"),
        (build.name.is_some() && !is_cold, "--name"),
        (!build.judged.allow.is_empty(), "--allow"),
    ] {
        if given {
            let text = format!("a Windows image cannot carry what {option} says");
            return Err(Failure::new(USAGE, text).hint(format!("leave {option} out")));
        }
    }
    let objects = objects(build)?;
    if let Some(path) = &build.emit_functions_file {
        let (list, unknown) = functions(c, &objects);
        store(path, list.as_bytes())?;
        for name in unknown {
            anstream::eprintln!(
                "invivo: {name} is private, and the PDB file has not the name by which its compiler \
                 knows it; give the fixed build's object files: --object FILE (of rustc: --emit=obj)"
            );
        }
    }
    let verdict = match build.format {
        Format::Cold => FinalVerdict::of_file(c),
        Format::Hotp1 => FinalVerdict::of_module(c),
        _ => FinalVerdict::of(c),
    };
    hold_against_marks(build, &objects, c, output)?;
    let plan = match verdict.plan {
        Ok(plan) => plan,
        Err(error) => return refused(&error, output).map(Made::Ended),
    };
    let (base, fixed) = (
        c.base.windows().map_err(read)?,
        c.fixed.windows().map_err(read)?,
    );
    if is_cold {
        let (pair, findings) = ((build, pair), verdict.findings);
        return cold::of_builds(pair, &base, &fixed, &plan, findings, output).map(Made::Ended);
    }
    if build.format == Format::Hotp1 {
        let made = legacy(build, &base, &fixed, plan, verdict.findings, output);
        return made.map(Made::Ended);
    }
    if build.hook.is_some() {
        let text = "modern Windows hooks functions in one way only";
        return Err(Failure::new(USAGE, text).hint("leave --hook out, or add --format hotp1"));
    }
    let metadata = hpat::build(&base, &fixed, &plan, build.sequence)
        .map_err(|error| Failure::new(REFUSED, error.to_string()))?;
    Ok(Made::Final(Box::new(FinalImage {
        base,
        fixed,
        metadata,
        plan,
        findings: verdict.findings,
    })))
}

fn read(error: PeError) -> Failure {
    Failure::new(USAGE, error.to_string())
}

/// Writes the copy of the fixed build with the metadata, once it is held against all rules.
pub(crate) fn write(made: FinalImage, build: &Build, output: &Output) -> Result<u8, Failure> {
    let FinalImage {
        base,
        fixed,
        metadata,
        plan,
        findings,
    } = made;
    let placed = hpat::place(&fixed, &metadata).map_err(place_failure)?;
    drop(fixed);
    let made = PeImage::parse(Arc::clone(&placed.file)).map_err(read)?;
    let options = Options {
        base: Some(&base),
        capacity: None,
    };
    let report = validate(&made, &options);
    if !report.is_sound() {
        let lines = report.findings.iter();
        let lines = lines.map(|found| format!("\n  {} {}", found.rule, found.text));
        let text = format!(
            "the final image would break rules:{}",
            lines.collect::<String>()
        );
        return Err(Failure::new(REFUSED, text).hint("see what a rule demands: invivo explain A25"));
    }
    store(&build.output, &placed.file)?;
    let names = plan.replaced.iter().map(|link| link.name.clone());
    let built = Built {
        schema: "invivo.build/1",
        patch: Some(build.output.display().to_string()),
        name: None,
        id: Some(invivo_patch::Hex(Sha256::digest(&placed.file).to_vec()).to_string()),
        build_id: None,
        size: Some(placed.file.len()),
        live: true,
        functions: names.collect(),
        findings,
    };
    output.data(&built, || {
        anstream::println!(
            "{}: {} bytes, replaces {}; leads {}, {} and {} back to the base",
            build.output.display(),
            placed.file.len(),
            counted(plan.replaced.len(), "function"),
            counted(plan.unchanged.len(), "function"),
            counted(plan.variables.len(), "variable"),
            counted(plan.imports.len(), "import"),
        );
        if placed.certificates > 0 {
            anstream::println!("the signature of the fixed build was left out; sign the new file");
        }
        for finding in &report.findings {
            anstream::println!("{} {}", finding.rule, finding.text);
        }
        super::diff::print_findings(&built.findings);
    })?;
    Ok(0)
}

/// A patch module of older Windows.
fn legacy(
    build: &Build,
    base: &PeImage,
    fixed: &PeImage,
    plan: FinalPlan,
    findings: Vec<Finding>,
    output: &Output,
) -> Result<u8, Failure> {
    let pair = build.builds.0.as_ref();
    let target = pair.and_then(|pair| pair.base.file_name());
    let target = target.unwrap_or_default().to_string_lossy();
    let hook = build.hook.map(HookShape::from);
    let file = hotp1::build(base, fixed, &plan, &target, hook)
        .map_err(|error| Failure::new(REFUSED, error.to_string()))?;
    store(&build.output, &file)?;
    let names = plan.replaced.iter().map(|link| link.name.clone());
    let built = Built {
        schema: "invivo.build/1",
        patch: Some(build.output.display().to_string()),
        name: None,
        id: Some(invivo_patch::Hex(Sha256::digest(&file).to_vec()).to_string()),
        build_id: None,
        size: Some(file.len()),
        live: true,
        functions: names.collect(),
        findings,
    };
    output.data(&built, || {
        let functions = counted(built.functions.len(), "function");
        anstream::println!(
            "{}: {} bytes, a patch module of older Windows; replaces {functions} of {target}",
            build.output.display(),
            file.len(),
        );
        super::diff::print_findings(&built.findings);
    })?;
    Ok(0)
}

/// Functions that changed or are new, by the names that compilers know them by: only these run in
/// the fixed image, and must reach variables through pointers. And those of which that name is not
/// known.
fn functions(c: &Comparison<'_>, objects: &[HotPatchObject]) -> (String, Vec<String>) {
    let hot = c.hot.iter().map(|hot| hot.fixed.main);
    let (mut names, mut unknown) = (BTreeSet::new(), Vec::new());
    for id in hot.chain(c.added.iter().copied()) {
        let symbol = c.fixed.entity(id).symbol();
        let name = &*symbol.name;
        // The linker's own name is the compiler's, too.
        let found = match symbol.binding {
            Binding::Local => objects
                .iter()
                .filter_map(|one| one.linkage.get(name))
                .collect(),
            _ => Vec::new(),
        };
        if found.is_empty() {
            names.insert(c.fixed.compiled_name(symbol));
            if symbol.binding == Binding::Local && name.contains("::") {
                unknown.push(name.to_owned());
            }
        }
        let found = found.into_iter().flatten();
        names.extend(found.map(|name| c.fixed.compiled_name_of(name)));
    }
    let list = names.iter().map(|name| format!("{name}\n"));
    (list.collect(), unknown)
}

fn place_failure(error: PlaceError) -> Failure {
    Failure::new(REFUSED, error.to_string())
}
