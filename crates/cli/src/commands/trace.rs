//! `invivo build --trace`: a payload for Xen that counts how often functions are entered.

use invivo_format::livepatch::{trace, write_listed};
use invivo_patch::Hex;
use owo_colors::OwoColorize;
use sha2::{Digest as _, Sha256};

use crate::arguments::Build;
use crate::commands::build::Built;
use crate::commands::livepatch::{ELSEWHERE, Ids, hypervisor, other_layout};
use crate::failure::{Failure, REFUSED, USAGE};
use crate::images::read_file;
use crate::output::Output;
use crate::patch_file::store;

pub(super) fn run(build: &Build, output: &Output) -> Result<u8, Failure> {
    let path = build.xen.as_deref().ok_or_else(|| {
        Failure::new(USAGE, "a trace is made of the hypervisor's code")
            .hint("give the xen-syms of the Xen that runs with --xen FILE")
    })?;
    let bytes = read_file(path)?;
    let xen = hypervisor(path, &bytes)?;
    let ids = Ids::of(build, Some(&xen))?;
    let names: Vec<&str> = build.trace.iter().map(String::as_str).collect();
    let mut payload = trace(&xen, &names, Some(&ids.depends)).map_err(|error| {
        Failure::new(REFUSED, error.to_string())
            .hint("trace one of its callers or of the functions that it calls instead")
    })?;
    if let Some(xen) = other_layout(Some(&xen), &ids.xen) {
        payload.by_names_alone(xen).map_err(|name| {
            Failure::new(REFUSED, format!("{name} cannot be traced: it {ELSEWHERE}"))
                .hint("trace one of its callers or of the functions that it calls instead")
        })?;
    }
    payload.xen_depends = Some(ids.xen);
    let written =
        write_listed(&payload).map_err(|error| Failure::new(REFUSED, error.to_string()))?;
    store(&build.output, &written.file)?;
    let stem = build.output.file_stem().unwrap_or_default();
    let name = build.name.clone();
    let built = Built {
        schema: "invivo.build/1",
        patch: Some(build.output.display().to_string()),
        name: Some(name.unwrap_or_else(|| stem.to_string_lossy().into_owned())),
        id: Some(Hex(Sha256::digest(&written.file).to_vec()).to_string()),
        build_id: Some(written.id.to_string()),
        size: Some(written.file.len()),
        live: true,
        functions: build.trace.clone(),
        findings: Vec::new(),
    };
    output.data(&built, || {
        let (file, size) = (build.output.display(), written.file.len());
        let functions = built.functions.join(", ");
        anstream::println!("{}: {size} bytes, counts {functions}", file.bold());
        anstream::println!("build id {}", written.id);
        anstream::println!("the counts are on Xen's console after: invivo revert NAME --xen");
    })?;
    Ok(0)
}
