//! A fixture, built without and with its fix.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::compile::{Build, Version, compile, compile_objects, link};
use crate::fixture::Fixture;
use crate::invivo;
use crate::target::Target;

/// Both versions of a fixture.
#[derive(Debug)]
pub struct Pair {
    /// What it was built from.
    pub fixture: Fixture,
    /// The program without the fix.
    pub base: PathBuf,
    /// The program with the fix.
    pub fixed: PathBuf,
    dir: PathBuf,
}

impl Pair {
    /// Builds both versions of the fixture `source` below `dir`.
    ///
    /// # Errors
    ///
    /// When the source has no such fixture or does not compile.
    pub fn build(dir: &Path, source: &str, build: Build<'_>) -> Result<Self> {
        let fixture = Fixture::load(source)?;
        let base = compile(dir, &fixture, Version::Base, build)?;
        let fixed = compile(dir, &fixture, Version::Fixed, build)?;
        Ok(Self {
            fixture,
            base,
            fixed,
            dir: dir.to_owned(),
        })
    }

    /// Builds the object files of both versions of a fixture, and links those of the base: `fixed` is the
    /// folder of the fixed ones.
    ///
    /// # Errors
    ///
    /// As [`Pair::build`].
    pub fn of_objects(dir: &Path, source: &str, build: Build<'_>) -> Result<Self> {
        let fixture = Fixture::load(source)?;
        let objects = compile_objects(dir, &fixture, Version::Base, build)?;
        let fixed = compile_objects(dir, &fixture, Version::Fixed, build)?;
        let base = dir.join(Version::Base.folder()).join(&fixture.name);
        link(&objects, &base, build)?;
        Ok(Self {
            fixture,
            base,
            fixed,
            dir: dir.to_owned(),
        })
    }

    /// The images that are compared: the library if the fixture has one, else the program.
    #[must_use]
    pub fn images(&self) -> (PathBuf, PathBuf) {
        let image = |program: &Path| match &self.fixture.library {
            Some(library) => program.with_file_name(format!("lib{}.so", library.name)),
            None => program.to_owned(),
        };
        (image(&self.base), image(&self.fixed))
    }

    /// Builds the patch, with the name `fix` and the label `CVE-2026-0001`.
    ///
    /// # Errors
    ///
    /// When the tool refuses.
    pub fn patch(&self) -> Result<PathBuf> {
        let patch = self.dir.join("fix.patch");
        let (base, fixed) = self.images();
        invivo::build(
            &base,
            &fixed,
            &patch,
            &["--name", "fix", "--label", "CVE-2026-0001"],
        )
        .with_context(|| format!("building the patch of {}", self.fixture.source))?;
        Ok(patch)
    }

    /// Starts the base with the arguments of the fixture.
    ///
    /// # Errors
    ///
    /// When it does not start.
    pub fn start(&self) -> Result<Target> {
        Target::start(&self.base, &self.fixture.args)
    }
}
