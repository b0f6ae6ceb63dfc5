//! The programs that are mutated: some compiled here, the others given.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::subject::Subject;

/// Name, compiler and arguments; the output is `-o program`.
///
/// Debug data are left out everywhere: they are not loaded, and reading them again for each
/// mutation would take most of the time.
const COMPILED: [(&str, &[&str]); 6] = [
    ("C++", &["c++", "-O2", "shapes.cc"]),
    (
        "C++ at a fixed address",
        &["c++", "-O2", "-no-pie", "-Wl,-z,now", "shapes.cc"],
    ),
    ("C", &["cc", "-O2", "odd.c"]),
    (
        "C at a fixed address",
        &["cc", "-O2", "-no-pie", "-fno-pie", "odd.c"],
    ),
    (
        "C with musl, static",
        &["musl-gcc", "-O2", "-static", "-no-pie", "odd.c"],
    ),
    ("Rust", &["rustc", "-O", "-Cstrip=debuginfo", "texts.rs"]),
];

/// All subjects: the compiled programs, and `images` without their debug data.
pub(crate) fn subjects(images: &[PathBuf]) -> Result<Vec<Subject>> {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("programs");
    let folder = std::env::temp_dir().join(format!("invivo-mutation-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    let program = folder.join("program");
    let mut subjects = Vec::new();
    for (name, words) in COMPILED {
        let mut compiler = Command::new(words[0]);
        compiler
            .current_dir(&sources)
            .args(&words[1..])
            .arg("-o")
            .arg(&program);
        run(&mut compiler)?;
        subjects.push(Subject::new(name, std::fs::read(&program)?)?);
    }
    for image in images {
        let mut strip = Command::new("strip");
        strip
            .arg("--strip-debug")
            .arg("-o")
            .arg(&program)
            .arg(image);
        run(&mut strip)?;
        let name = image
            .file_name()
            .context("an image has a name")?
            .to_string_lossy();
        subjects.push(Subject::new(&name, std::fs::read(&program)?)?);
    }
    std::fs::remove_dir_all(&folder)?;
    Ok(subjects)
}

fn run(command: &mut Command) -> Result<()> {
    let name = command.get_program().to_string_lossy().into_owned();
    let done = command
        .output()
        .with_context(|| format!("cannot start {name}; `cargo xtask install` installs it"))?;
    if !done.status.success() {
        bail!("{name}: {}", String::from_utf8_lossy(&done.stderr));
    }
    Ok(())
}
