//! `invivo symbols`

use std::path::Path;

use invivo_apply::{PatchSymbols, State};
use invivo_format::symbols::{SymbolFile, write};
use invivo_image::{LiveAddr, demangle};
use invivo_linux::{Access, Process};
use schemars::JsonSchema;
use serde::Serialize;

use crate::arguments::Symbols;
use crate::failure::{Failure, USAGE};
use crate::output::Output;
use crate::patch_file::store;

/// `symbols --json`.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Named {
    schema: &'static str,
    pid: i32,
    patches: Vec<PatchSymbols>,
}

pub(crate) fn run(symbols: &Symbols, output: &Output) -> Result<u8, Failure> {
    let process = Process::open(symbols.pid, Access::Read)?;
    let mut patches = invivo_apply::symbols(&process)?;
    if let Some(name) = &symbols.patch {
        patches.retain(|patch| patch.name == *name);
        if patches.is_empty() {
            let text = format!("process {} has no patch {name}", symbols.pid);
            return Err(Failure::new(USAGE, text).hint("list them with: invivo list"));
        }
    }
    if let Some(path) = &symbols.output {
        write_file(path, symbols.pid, &patches)?;
    }
    let named = Named {
        schema: "invivo.symbols/1",
        pid: symbols.pid,
        patches,
    };
    output.data(&named, || {
        if symbols.output.is_none() {
            print(&named);
        }
    })?;
    Ok(0)
}

/// Debuggers take one place for the unwind data of a file, so it is about one patch: the only
/// one, or the one that is live.
fn write_file(path: &Path, pid: i32, patches: &[PatchSymbols]) -> Result<(), Failure> {
    let live = || patches.iter().filter(|p| p.state == State::Applied);
    let patch = match (patches, live().count()) {
        ([only], _) => Some(only),
        (_, 1) => live().next(),
        _ => None,
    };
    let patch = patch.ok_or_else(|| {
        let names: Vec<&str> = patches.iter().map(|patch| patch.name.as_str()).collect();
        if names.is_empty() {
            return Failure::new(USAGE, format!("process {pid} has no patch"))
                .hint("make one live with: invivo apply PATCH -p PID");
        }
        let text = format!("process {pid} has several patches: {}", names.join(", "));
        Failure::new(USAGE, text).hint("name the one that the file is to be about")
    })?;
    let (start, size) = patch.region;
    let file = SymbolFile {
        code: start..LiveAddr(start.0.saturating_add(size)),
        functions: patch
            .functions
            .iter()
            .map(|function| (function.name.as_str(), function.at, function.size))
            .collect(),
        unwind: patch.unwind.as_ref().map(|(at, data)| (*at, &data[..])),
    };
    let bytes = write(&file)
        .map_err(|error| Failure::new(USAGE, format!("cannot write symbols: {error}")))?;
    store(path, &bytes)
}

/// As `perf` reads it from `/tmp/perf-PID.map`: start and size in hexadecimal digits, name.
fn print(named: &Named) {
    for patch in &named.patches {
        for function in &patch.functions {
            let name = demangle(&function.name).replace('\n', " ");
            anstream::println!("{:x} {:x} {name}", function.at.0, function.size);
        }
    }
}
