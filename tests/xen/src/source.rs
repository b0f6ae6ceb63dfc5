//! The source of a hypervisor, as whoever maintains it has it: patched, compiled file by file with the
//! compiler and the configuration of Debian's package, and compared by the program `invivo`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

use crate::Hypervisor;
use crate::hypervisor::run;
use crate::linux::built;

/// A copy of the source that a hypervisor was made of.
#[derive(Debug)]
pub struct Source {
    xen: Hypervisor,
    folder: TempDir,
    invivo: PathBuf,
}

impl Source {
    /// The source of that hypervisor, as Debian compiled it.
    ///
    /// # Errors
    ///
    /// If it was not fetched, or cannot be copied.
    pub fn of(xen: &Hypervisor) -> Result<Source> {
        let source = xen.source().context("no source of it was fetched")?;
        let folder = tempfile::tempdir()?;
        let mut copy = Command::new("cp");
        copy.arg("-a")
            .arg(source.join("."))
            .arg(folder.path().join("tree"));
        run(&mut copy)?;
        Ok(Source {
            xen: xen.clone(),
            folder,
            invivo: built()?,
        })
    }

    fn tree(&self) -> PathBuf {
        self.folder.path().join("tree")
    }

    /// Compiles files, such as `common/kernel.o`, as they are without a change and with the change of
    /// `programs/NAME.patch`: the folders with both.
    ///
    /// # Errors
    ///
    /// If the change does not fit, or the compiler says something.
    pub fn compiled(&self, name: &str, files: &[&str]) -> Result<(PathBuf, PathBuf)> {
        let base = self.compile("base", files)?;
        let change = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("programs/{name}.patch"));
        let mut patch = Command::new("patch");
        patch.args(["-s", "-p1", "-i"]).arg(change);
        run(patch.current_dir(self.tree()))?;
        let fixed = self.compile(name, files)?;
        run(patch.arg("-R"))?;
        Ok((base, fixed))
    }

    fn compile(&self, name: &str, files: &[&str]) -> Result<PathBuf> {
        let tree = self.tree();
        let shown = tree.display();
        let mut make = Command::new("make");
        make.arg("-C").arg(tree.join("xen")).args(files);
        make.args([
            "CC=gcc-12",
            "XEN_COMPILE_ARCH=x86_64",
            "XEN_TARGET_ARCH=x86_64",
        ]);
        // Debug data, which change no code; and no path of this machine in it, as Debian builds.
        make.arg(format!(
            "EXTRA_CFLAGS_XEN_CORE=-g -ffile-prefix-map={shown}=. -fdebug-prefix-map={shown}=."
        ));
        run(&mut make)?;
        let folder = self.folder.path().join(name);
        for file in files {
            let to = folder.join(file);
            fs::create_dir_all(to.parent().context("a file in a folder")?)?;
            fs::copy(tree.join("xen").join(file), to)?;
        }
        Ok(folder)
    }

    /// What `invivo build` writes from both folders, with more words; and what `invivo check` says
    /// to it: it is sound.
    ///
    /// # Errors
    ///
    /// If the program refuses either.
    pub fn payload(&self, folders: (&Path, &Path), after: Option<&Path>) -> Result<PathBuf> {
        let (base, fixed) = folders;
        let payload = fixed.with_extension("livepatch");
        let mut build = Command::new(&self.invivo);
        build.arg("build").arg(base).arg(fixed);
        build
            .args(["--format", "livepatch", "--xen"])
            .arg(self.xen.symbols());
        build.arg("-o").arg(&payload);
        let mut check = Command::new(&self.invivo);
        check
            .arg("check")
            .arg(&payload)
            .arg("--xen")
            .arg(self.xen.symbols());
        check.args(["--xen-version", &self.xen.version]);
        if let Some(below) = after {
            build.arg("--depends").arg(below);
            check.arg("--after").arg(below);
        }
        run(&mut build)?;
        run(&mut check)?;
        Ok(payload)
    }

    /// The words with which `invivo build` refuses to make a payload.
    ///
    /// # Errors
    ///
    /// If it makes one.
    pub fn refusal(&self, base: &Path, fixed: &Path) -> Result<String> {
        let mut build = Command::new(&self.invivo);
        build.arg("build").arg(base).arg(fixed);
        build
            .args(["--format", "livepatch", "--xen"])
            .arg(self.xen.symbols());
        let output = build
            .arg("-o")
            .arg(self.folder.path().join("none"))
            .output()?;
        if output.status.success() {
            bail!("it was built");
        }
        Ok(String::from_utf8_lossy(&output.stderr).into_owned())
    }
}
