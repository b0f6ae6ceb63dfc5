//! Payloads made by a C compiler and the linker alone, as people made them by hand.

use std::path::Path;
use std::process::Command;

use anyhow::Result;

use crate::hypervisor::run;

/// Compiles a file of `programs` into a payload for the hypervisor with a build id, which is to be
/// applied on top of what has the build id `depends`.
///
/// # Errors
///
/// What the compiler or the linker says.
pub fn compile(program: &str, xen: &[u8], depends: &[u8], words: &[&str]) -> Result<Vec<u8>> {
    let folder = tempfile::tempdir()?;
    let (object, payload) = (
        folder.path().join("object.o"),
        folder.path().join("payload"),
    );
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("programs");
    let mut compiler = Command::new("gcc");
    compiler
        .args(["-O2", "-ffreestanding", "-fPIC", "-fvisibility=hidden"])
        .args(["-fno-asynchronous-unwind-tables", "-fno-stack-protector"])
        .args([
            "-mno-red-zone",
            "-mgeneral-regs-only",
            "-fcf-protection=none",
        ])
        .args(["-fno-common", "-fno-jump-tables", "-Wall", "-Werror"])
        .args(["-mfunction-return=thunk-extern", "-c"])
        .arg(format!("-DXEN_ID=\"{}\"", listed(xen)))
        .arg(format!("-DDEPENDS_ID=\"{}\"", listed(depends)))
        .args(words)
        .arg(source.join(program))
        .arg("-o")
        .arg(&object);
    run(&mut compiler)?;
    let mut linker = Command::new("ld");
    linker.args(["-r", "--build-id=sha1", "-o"]);
    run(linker.arg(&payload).arg(&object))?;
    Ok(std::fs::read(payload)?)
}

/// Bytes as an assembler wants them.
fn listed(bytes: &[u8]) -> String {
    let bytes: Vec<String> = bytes.iter().map(u8::to_string).collect();
    bytes.join(",")
}
