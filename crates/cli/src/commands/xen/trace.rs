//! `invivo xen trace`

use invivo_format::livepatch::{Hypervisor, trace, write};
use invivo_image::BuildId;
use owo_colors::OwoColorize;
use schemars::JsonSchema;
use serde::Serialize;

use crate::arguments::Trace;
use crate::failure::{Failure, REFUSED, USAGE};
use crate::images::read_file;
use crate::output::Output;
use crate::patch_file::store;

/// `xen trace --json`.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Traced {
    schema: &'static str,
    /// The payload.
    file: String,
    /// Bytes of it.
    size: usize,
    /// Its own build id.
    build_id: String,
    /// What is counted.
    functions: Vec<String>,
}

pub(crate) fn run(asked: &Trace, output: &Output) -> Result<u8, Failure> {
    let bytes = read_file(&asked.xen)?;
    let xen = Hypervisor::parse(&bytes).map_err(|error| {
        Failure::new(USAGE, format!("{}: {error}", asked.xen.display())).hint(
            "give the xen-syms of the Xen that runs, as the package with its debug symbols has it",
        )
    })?;
    let names: Vec<&str> = asked.functions.iter().map(String::as_str).collect();
    let depends = asked.depends.as_ref().map(|id| BuildId(id.0.clone()));
    let payload = trace(&xen, &names, depends.as_ref()).map_err(|error| {
        Failure::new(REFUSED, error.to_string())
            .hint("trace one of its callers or of the functions that it calls instead")
    })?;
    let written = write(&payload).map_err(|error| Failure::new(REFUSED, error.to_string()))?;
    store(&asked.output, &written.file)?;
    let traced = Traced {
        schema: "invivo.xen-trace/1",
        file: asked.output.display().to_string(),
        size: written.file.len(),
        build_id: written
            .id
            .0
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect(),
        functions: asked.functions.clone(),
    };
    output.data(&traced, || {
        let (size, functions) = (traced.size, traced.functions.join(", "));
        anstream::println!("{}: {size} bytes, counts {functions}", traced.file.bold());
        anstream::println!("    the counts are on Xen's console after: invivo xen revert NAME");
    })?;
    Ok(0)
}
