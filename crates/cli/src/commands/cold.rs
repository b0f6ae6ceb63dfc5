//! `invivo build --format cold` for Windows images: the base's own file with the fixed functions
//! behind it, for the disk.

use std::path::Path;

use invivo_compare::Finding;
use invivo_format::final_image::{FileIdentity, Manifest, WindowsBuild, write_windows};
use invivo_format::hotp1::{self, HookShape};
use invivo_image::pe::{PeError, PeImage};
use invivo_patch::{FinalPlan, Hex, Identity};
use sha2::{Digest as _, Sha256};

use super::build::Built;
use super::final_image::may_run;
use crate::arguments::{Build, Format, Pair};
use crate::failure::{Failure, REFUSED, USAGE};
use crate::images::{parse_pe, read_file};
use crate::output::{Output, counted};
use crate::patch_file::store;

fn refused(error: impl std::fmt::Display) -> Failure {
    Failure::new(REFUSED, error.to_string())
}

/// Made of two builds: they become a patch module first.
pub(crate) fn of_builds(
    (build, pair): (&Build, &Pair),
    base: &PeImage,
    fixed: &PeImage,
    plan: &FinalPlan,
    findings: Vec<Finding>,
    output: &Output,
) -> Result<u8, Failure> {
    let name = file_name(&pair.base);
    let hook = build.hook.map(HookShape::from);
    let module = hotp1::build(base, fixed, plan, &name, hook).map_err(refused)?;
    let read = |error: PeError| Failure::new(USAGE, error.to_string());
    let module = PeImage::parse(module).map_err(read)?;
    let names = plan.replaced.iter().map(|link| link.name.clone());
    let made = Made {
        base,
        module: &module,
        plan: Some(plan),
        functions: names.collect(),
        findings,
    };
    write((build, pair), made, output)
}

/// Made of a patch module, where the second file is one; `None` where it is none.
pub(crate) fn of_module(
    build: &Build,
    pair: &Pair,
    output: &Output,
) -> Option<Result<u8, Failure>> {
    if build.format != Format::Cold {
        return None;
    }
    let path = &pair.fixed;
    let bytes = read_file(path).ok().filter(|bytes| PeImage::is_pe(bytes))?;
    let module = match parse_pe(path, bytes) {
        Ok(module) => module,
        Err(failure) => return Some(Err(failure)),
    };
    let is_module = module.sections.iter().any(|s| hotp1::is_section(&s.name));
    is_module.then(|| {
        let base = parse_pe(&pair.base, read_file(&pair.base)?)?;
        let made = Made {
            base: &base,
            module: &module,
            plan: None,
            functions: Vec::new(),
            findings: Vec::new(),
        };
        write((build, pair), made, output)
    })
}

struct Made<'a> {
    base: &'a PeImage,
    module: &'a PeImage,
    plan: Option<&'a FinalPlan>,
    functions: Vec<String>,
    findings: Vec<Finding>,
}

fn write((build, pair): (&Build, &Pair), made: Made<'_>, output: &Output) -> Result<u8, Failure> {
    let cold = hotp1::cold(made.base, made.module, made.plan).map_err(refused)?;
    let read = |error: PeError| Failure::new(USAGE, error.to_string());
    let image = PeImage::parse(cold.file).map_err(read)?;
    let stem = build.output.file_stem().unwrap_or_default();
    let name = build.name.clone();
    let identity = Identity {
        name: name.unwrap_or_else(|| stem.to_string_lossy().into_owned()),
        labels: build.label.clone(),
        creator: format!("invivo {}", env!("CARGO_PKG_VERSION")),
    };
    let base = identify(&pair.base, made.base);
    let fixed = FileIdentity {
        file_name: base.file_name.clone(),
        ..identify(&build.output, &image)
    };
    let mut manifest = Manifest::new(identity, base, fixed);
    manifest.kept_layout = true;
    manifest.code_of = Some(WindowsBuild::of(made.module));
    let file = write_windows(&image, &manifest).map_err(refused)?;
    store(&build.output, &file)?;
    may_run(&build.output, &pair.base)?;
    let built = Built {
        schema: "invivo.build/1",
        patch: Some(build.output.display().to_string()),
        name: Some(manifest.identity.name),
        id: Some(Hex(Sha256::digest(&file).to_vec()).to_string()),
        build_id: None,
        size: Some(file.len()),
        live: false,
        functions: made.functions,
        findings: made.findings,
    };
    output.data(&built, || {
        let (out, size, target) = (build.output.display(), file.len(), manifest.base.file_name);
        let functions = match built.functions.len() {
            0 => "what its patch module hooks".to_owned(),
            count => counted(count, "function"),
        };
        anstream::println!("{out}: {size} bytes, for {target} on disk; replaces {functions}");
        if cold.certificates > 0 {
            anstream::println!("the signature of the base was left out; sign the new file");
        }
        if cold.overlay > 0 {
            anstream::println!(
                "the {} bytes behind the base's sections stay where they are; who looks for them from \
                 the end of the file does not find them any more",
                cold.overlay
            );
        }
        super::diff::print_findings(&built.findings);
    })?;
    Ok(0)
}

fn file_name(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default();
    name.to_string_lossy().into_owned()
}

fn identify(path: &Path, image: &PeImage) -> FileIdentity {
    FileIdentity {
        file_name: file_name(path),
        build_id: None,
        sha256: Hex(Sha256::digest(image.file()).to_vec()),
        size: image.file().len() as u64,
    }
}
