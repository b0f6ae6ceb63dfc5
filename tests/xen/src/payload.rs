//! Payloads made by a C compiler and the linker alone, as people made them by hand.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use object::{Object, ObjectSymbol};

use crate::Hypervisor;
use crate::hypervisor::run;
use crate::kept::keep;

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
    let payload = std::fs::read(payload)?;
    keep(&payload);
    Ok(payload)
}

/// A payload that makes `xen_extra_version` return `text`.
///
/// Its names end with `text`; it is applied on top of Xen, or of what has the build id `on`.
///
/// # Errors
///
/// What the compiler or the linker says.
pub fn tagged(xen: &Hypervisor, tag: &str, on: Option<&[u8]>, more: &[&str]) -> Result<Vec<u8>> {
    let own = xen.build_id()?;
    let (tag, text) = (format!("-DTAG={tag}"), format!("-DTEXT=\"{tag}\""));
    let size = format!("-DOLD_SIZE={}", size_of(xen, "xen_extra_version")?);
    let words: Vec<&str> = [&tag[..], &text, &size]
        .into_iter()
        .chain(more.iter().copied())
        .collect();
    compile("extra_version.c", &own, on.unwrap_or(&own), &words)
}

/// The size of a function of the hypervisor, in bytes.
///
/// # Errors
///
/// If there is none of that name.
pub fn size_of(xen: &Hypervisor, function: &str) -> Result<u64> {
    let file = std::fs::read(xen.symbols())?;
    let file = object::File::parse(&*file)?;
    let symbol = file.symbol_by_name(function);
    Ok(symbol.context("the function is in the hypervisor")?.size())
}

/// Bytes as an assembler wants them.
fn listed(bytes: &[u8]) -> String {
    let bytes: Vec<String> = bytes.iter().map(u8::to_string).collect();
    bytes.join(",")
}

/// How Debian's build of Xen 4.17 compiles: another flag, and the code is not the hypervisor's.
const XEN: &[&str] = &[
    "-O2",
    "-g",
    "-std=gnu99",
    "-ffreestanding",
    "-fomit-frame-pointer",
    "-fpic",
    "-fvisibility=hidden",
    "-fno-common",
    "-fno-strict-aliasing",
    "-fno-asynchronous-unwind-tables",
    "-fno-stack-protector",
    "-fno-jump-tables",
    "-ffunction-sections",
    "-fdata-sections",
    "-msoft-float",
    "-mno-mmx",
    "-mno-sse",
    "-mno-red-zone",
    "-mskip-rax-setup",
    "-mpreferred-stack-boundary=3",
    "-mfunction-return=thunk-extern",
    "-mindirect-branch=thunk-extern",
    "-mindirect-branch-register",
    "-fcf-protection=branch",
    "-mmanual-endbr",
];

/// Compiles a file of `programs` as a build of Xen compiles `common/PROGRAM`: to an object file
/// whose static names are known by that path.
///
/// # Errors
///
/// What the compiler says.
pub fn compile_object(program: &str, words: &[&str]) -> Result<Vec<u8>> {
    let folder = tempfile::tempdir()?;
    let (object, renamed) = (folder.path().join("a.o"), folder.path().join("b.o"));
    let mut compiler = Command::new("gcc");
    compiler
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("programs"))
        .args(XEN)
        .args(["-Wall", "-Werror", "-c"])
        .args(words);
    run(compiler.arg(program).arg("-o").arg(&object))?;
    let mut rename = Command::new("objcopy");
    rename.arg(format!("--redefine-sym={program}=common/{program}"));
    run(rename.arg(&object).arg(&renamed))?;
    Ok(std::fs::read(renamed)?)
}
