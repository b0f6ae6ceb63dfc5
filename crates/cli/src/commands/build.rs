//! `invivo build`

use invivo_compare::{Comparison, Finding, Phases};
use invivo_format::elf;
use invivo_image::Image;
use invivo_patch::{Options, Refused};
use schemars::JsonSchema;
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use crate::arguments::{Build, Format, Pair};
use crate::commands::windows::{self, Made};
use crate::commands::{cold, final_image, livepatch, trace};
use crate::debug_files::Search;
use crate::failure::{Failure, REFUSED, USAGE};
use crate::images::{load, load_pair};
use crate::output::{Output, counted};
use crate::patch_file::store;
use crate::timing;
use crate::verdict::{Verdict, allow};

/// `build --json`.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Built {
    pub(super) schema: &'static str,
    /// Where the patch was written; absent if it was refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) patch: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) name: Option<String>,
    /// SHA-256 of the file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) id: Option<String>,
    /// What a payload for Xen is called by those that are applied upon it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) build_id: Option<String>,
    /// Bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) size: Option<usize>,
    /// True if it can be made live in running processes.
    pub(super) live: bool,
    /// Functions that are replaced; of a trace those whose entries are counted.
    pub(super) functions: Vec<String>,
    /// Why there is no patch, and what a person should know.
    pub(super) findings: Vec<Finding>,
}

pub(crate) fn run(build: &Build, output: &Output) -> Result<u8, Failure> {
    let Some(pair) = &build.builds.0 else {
        return trace::run(build, output);
    };
    if let Some(done) = cold::of_module(build, pair, output) {
        return done;
    }
    let busy = output.busy("comparing");
    let mut read = Phases::start(Some(timing::processor_time));
    let (base, fixed) = load_pair(pair)?;
    read.end("read");
    let mut comparison = Comparison::with(&base, &fixed, pair.options());
    allow(&mut comparison, &build.judged)?;
    drop(busy);
    if pair.time {
        timing::print(&read, &comparison.phases);
    }
    if !build.splice.is_empty() && build.format != Format::Livepatch {
        let text = "only calls and tables of Xen are led to new code";
        return Err(
            Failure::new(USAGE, text).hint("leave --splice out, or add: --format livepatch")
        );
    }
    if base.is_windows() {
        let made = windows::run(build, pair, &comparison, output)?;
        drop(comparison);
        drop((base, fixed));
        return match made {
            Made::Ended(code) => Ok(code),
            Made::Final(image) => windows::write(*image, build, output),
        };
    }
    if build.format == Format::Hotp1 || build.hook.is_some() {
        let text = "patch modules of older Windows are made of Windows images only";
        return Err(Failure::new(USAGE, text).hint("leave --format hotp1 and --hook out"));
    }
    let lists = build.functions_file.is_some() || !build.functions_list.is_empty();
    if lists || !build.object.is_empty() {
        let text = "only functions of Windows images are compiled for hot patching";
        return Err(Failure::new(USAGE, text)
            .hint("leave --functions-file, --functions-list and --object out"));
    }
    if build.emit_functions_file.is_some() {
        let text = "functions are named to compilers of Windows images only";
        return Err(Failure::new(USAGE, text).hint("leave --emit-functions-file out"));
    }
    let is_final = matches!(build.format, Format::Final | Format::Cold);
    if build.keep_layout && !is_final {
        let text = "a patch for running processes has no layout to keep";
        return Err(Failure::new(USAGE, text).hint("add: --format final"));
    }
    let file_name = |path: &std::path::Path| {
        path.file_name()
            .map(|name| name.to_string_lossy().into_owned())
            .unwrap_or_default()
    };
    let stem = build
        .output
        .file_stem()
        .map(|stem| stem.to_string_lossy().into_owned());
    let options = Options {
        name: build
            .name
            .clone()
            .or(stem)
            .unwrap_or_else(|| "patch".to_owned()),
        labels: build.label.clone(),
        creator: format!("invivo {}", env!("CARGO_PKG_VERSION")),
        file_name: file_name(build.program.as_deref().unwrap_or(&pair.base)),
        sequence: build.sequence,
        callouts: build.callout.clone(),
    };
    if build.format == Format::Livepatch {
        return livepatch::run(build, &comparison, &options, output);
    }
    let program = program(build, pair, base.is_of_objects(), is_final)?;
    let verdict = match &program {
        Some(program) => Verdict::in_program(&comparison, &options, program),
        None => Verdict::of(&comparison, &options),
    };
    let patch = match verdict.patch {
        Ok(patch) => Some(patch),
        // What is started from it is fixed all the same.
        Err(Refused::Findings(_) | Refused::NoBuildId) if is_final && !build.keep_layout => None,
        Err(error) => return refused(&error, output),
    };
    let live = patch.as_ref().map(elf::write).transpose();
    let live = live.map_err(|error| Failure::new(REFUSED, error.to_string()))?;
    let bytes = match live {
        Some(live) if !is_final => live,
        Some(live) if build.keep_layout => {
            let patch = patch.as_ref().expect("it was written just now");
            final_image::keep_layout(pair, &comparison, patch, &live)?
        }
        live => {
            let in_the_way = final_image::in_the_way(&comparison, &verdict.findings)?;
            if !in_the_way.is_empty() {
                return refused(&Refused::Findings(in_the_way), output);
            }
            final_image::write(pair, &comparison, &options, live.as_deref())?
        }
    };
    store(&build.output, &bytes)?;
    if is_final {
        let like = if build.keep_layout {
            &pair.base
        } else {
            &pair.fixed
        };
        final_image::may_run(&build.output, like)?;
    }
    let redirects = patch.as_ref().map_or(&[][..], |patch| &patch.redirects);
    let built = Built {
        schema: "invivo.build/1",
        patch: Some(build.output.display().to_string()),
        name: Some(options.name),
        id: Some(invivo_patch::Hex(Sha256::digest(&bytes).to_vec()).to_string()),
        build_id: None,
        size: Some(bytes.len()),
        live: patch.is_some(),
        functions: redirects
            .iter()
            .map(|r| invivo_image::demangle(&r.function))
            .collect(),
        findings: verdict.findings,
    };
    output.data(&built, || {
        let (file, size) = (build.output.display(), bytes.len());
        let base = &options.file_name;
        if patch.is_none() {
            anstream::println!("{file}: {size} bytes, for {base} on disk; not for what runs, for:");
            super::diff::print_findings(&built.findings);
            return;
        }
        let functions = redirects.len();
        let hooked = redirects.iter().filter(|redirect| redirect.hooked).count();
        let unhooked = match functions - hooked {
            0 => String::new(),
            count => format!(" ({count} reached only through the others)"),
        };
        anstream::println!(
            "{file}: {size} bytes, replaces {} of {base}{unhooked}",
            counted(functions, "function")
        );
        super::diff::print_findings(&built.findings);
    })?;
    Ok(0)
}

/// The program that the base's object files were linked into, if object files are given.
fn program(
    build: &Build,
    pair: &Pair,
    of_objects: bool,
    is_final: bool,
) -> Result<Option<Image>, Failure> {
    match &build.program {
        None if of_objects => {
            let text = "object files have no addresses, so processes cannot be patched with them";
            Err(Failure::new(USAGE, text).hint(
                "give the program that was linked of them and runs: --program FILE; for Xen say \
                 --format livepatch",
            ))
        }
        Some(_) if !of_objects => {
            let text = "the program is given with object files";
            Err(Failure::new(USAGE, text)
                .hint("leave --program out: the first of the two builds is the program"))
        }
        Some(_) if is_final => {
            let text = "what starts next is made of the fixed build, linked";
            Err(Failure::new(USAGE, text).hint("link both builds and give the programs"))
        }
        None => Ok(None),
        Some(program) => load(&Search {
            program,
            given: pair.base_debug.as_deref(),
            option: "--base-debug",
            folders: &pair.debug_directory,
        })
        .map(Some),
    }
}

pub(super) fn refused(error: &Refused, output: &Output) -> Result<u8, Failure> {
    match error {
        Refused::Unchanged => Err(Failure::new(REFUSED, format!("nothing to patch: {error}"))
            .hint("check that the second file is the build with the fix")),
        Refused::NoBuildId => Err(Failure::new(REFUSED, error.to_string())
            .hint("link the program with -Wl,--build-id, as distributions do")),
        Refused::Findings(findings) => {
            let built = Built {
                schema: "invivo.build/1",
                patch: None,
                name: None,
                id: None,
                build_id: None,
                size: None,
                live: false,
                functions: Vec::new(),
                findings: findings.clone(),
            };
            output.data(&built, || {})?;
            let reasons = findings.iter().map(|finding| {
                format!(
                    "\n  {} {} {}",
                    finding.rule.id(),
                    finding.subject,
                    finding.text
                )
            });
            Err(
                Failure::new(REFUSED, format!("{error}:{}", reasons.collect::<String>()))
                    .hint("see what changed with: invivo diff BASE FIXED, and what a rule demands with: invivo explain RULE"),
            )
        }
    }
}
