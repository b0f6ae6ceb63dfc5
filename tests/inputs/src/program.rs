//! The sources, and compiling and linking them.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::layout::{Compiler, Layout};
use crate::tool::run;

/// A program in C or C++ below `programs/`.
///
/// The first line of its main file names the functions that the fix changes:
/// `//#changes NAME|NAME…`.
#[derive(Clone, Copy, Debug)]
pub struct Program {
    folder: &'static str,
    /// Its files, the one with the annotation first.
    files: &'static [&'static str],
}

/// C.
pub const PLAIN: Program = Program {
    folder: "plain",
    files: &["main.c", "parts.c"],
};

/// C++.
pub const CLASSES: Program = Program {
    folder: "classes",
    files: &["main.cpp", "check.cpp"],
};

/// Which of both builds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// Without the fix.
    Base,
    /// With it.
    Fixed,
}

impl Version {
    /// The folder that it is built in.
    #[must_use]
    pub fn folder(self) -> &'static str {
        match self {
            Version::Base => "base",
            Version::Fixed => "fixed",
        }
    }
}

/// The folder of a program's sources.
#[must_use]
pub fn sources(folder: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("programs")
        .join(folder)
}

/// The functions that a source says the fix changes, in order.
///
/// # Errors
/// When it does not say.
pub fn annotated(source: &Path) -> Result<Vec<String>> {
    let text = std::fs::read_to_string(source)
        .with_context(|| format!("cannot read {}", source.display()))?;
    let line = text.lines().next().unwrap_or_default();
    let names = line
        .strip_prefix("//#changes ")
        .with_context(|| format!("{} begins without //#changes", source.display()))?;
    let mut names: Vec<String> = names
        .split('|')
        .map(|name| name.trim().to_owned())
        .collect();
    names.sort();
    Ok(names)
}

impl Program {
    /// The functions that its fix changes, in order.
    ///
    /// # Errors
    /// When its source does not say.
    pub fn changes(&self) -> Result<Vec<String>> {
        annotated(&sources(self.folder).join(self.files[0]))
    }

    fn driver(&self, compiler: Compiler) -> &'static str {
        match (compiler, self.files[0].ends_with(".cpp")) {
            (Compiler::Gcc, false) => "gcc",
            (Compiler::Gcc, true) => "g++",
            (Compiler::Clang, false) => "clang",
            (Compiler::Clang, true) => "clang++",
        }
    }

    /// Compiles each file of one version into `out`; the object files.
    ///
    /// Both versions are compiled from the same place, so that they differ by the fix alone.
    ///
    /// # Errors
    /// When the compiler is missing or refuses.
    pub fn compile(&self, layout: &Layout, version: Version, out: &Path) -> Result<Vec<PathBuf>> {
        let out = out.join(version.folder());
        std::fs::create_dir_all(&out)?;
        let mut objects = Vec::new();
        for file in self.files {
            let object = out.join(file).with_extension("o");
            let mut command = Command::new(self.driver(layout.compiler));
            command
                .current_dir(sources(self.folder))
                .args(layout.compile_flags()?)
                .args((version == Version::Fixed).then_some("-DFIXED"))
                .args(["-c", file, "-o"])
                .arg(&object);
            run(&mut command)?;
            objects.push(object);
        }
        Ok(objects)
    }

    /// Links object files, in the order that is given.
    ///
    /// # Errors
    /// When the linker is missing or refuses.
    pub fn link(
        &self,
        layout: &Layout,
        objects: &[PathBuf],
        more: &[&str],
        out: &Path,
    ) -> Result<()> {
        let mut command = Command::new(self.driver(layout.compiler));
        command
            .args(layout.link_flags()?)
            .args(objects)
            .args(more)
            .arg("-o")
            .arg(out);
        run(&mut command).map(|_| ())
    }
}
