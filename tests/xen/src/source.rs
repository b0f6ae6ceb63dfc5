//! The source of a hypervisor, as whoever maintains it has it: patched, compiled file by file with the
//! compiler and the configuration of Debian's package, and compared by the program `invivo`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

use crate::Hypervisor;
use crate::hypervisor::run;
use crate::kept::keep;
use crate::linux::built;

/// How a payload is to be made.
#[derive(Clone, Copy, Debug, Default)]
pub struct Asked<'a> {
    /// The payload that it goes on top of.
    pub after: Option<&'a Path>,
    /// What is led to the new code: `callers` or `tables`.
    pub splice: Option<&'a str>,
    /// True if the hypervisor's `.map` file is all that is known of it.
    pub by_map: bool,
    /// True if it is for the `xen.efi` of the same build.
    pub efi: bool,
}

/// A payload that `invivo` made and finds sound.
#[derive(Clone, Debug)]
pub struct Built {
    /// The file.
    pub file: PathBuf,
    /// What `invivo build` said.
    pub said: String,
    /// What `invivo check` said.
    pub checked: String,
}

/// A copy of the source that a hypervisor was made of.
#[derive(Debug)]
pub struct Source {
    xen: Hypervisor,
    folder: TempDir,
    invivo: PathBuf,
}

impl Source {
    /// The source of that hypervisor, of which tests compile `files`, such as `common/kernel.o`. They
    /// are compiled as Debian did it.
    ///
    /// # Errors
    ///
    /// If the source was not fetched, or the compiler says something.
    pub fn of(xen: &Hypervisor, files: &[&str]) -> Result<Source> {
        let fetched = xen.source().context("no source of it was fetched")?;
        let folder = tempfile::tempdir()?;
        let mut copy = Command::new("cp");
        copy.arg("-a").arg(fetched).arg(folder.path().join("tree"));
        run(&mut copy)?;
        let source = Source {
            xen: xen.clone(),
            folder,
            invivo: built()?,
        };
        source.make(files)?;
        source.keep("base", files)?;
        Ok(source)
    }

    fn tree(&self) -> PathBuf {
        self.folder.path().join("tree")
    }

    /// Some of the files as they are without a change, and with that of `programs/NAME.patch`: the
    /// folders with both.
    ///
    /// # Errors
    ///
    /// If the change does not fit, or the compiler says something.
    pub fn compiled(&self, name: &str, files: &[&str]) -> Result<(PathBuf, PathBuf)> {
        let [base, fixed] =
            ["base", "fixed"].map(|which| self.folder.path().join(name).join(which));
        for file in files {
            copy(&self.folder.path().join("base"), &base, file)?;
        }
        let change = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("programs/{name}.patch"));
        let mut patch = Command::new("patch");
        patch.args(["-s", "-p1", "-i"]).arg(change);
        run(patch.current_dir(self.tree()))?;
        self.make(files)?;
        self.keep(&format!("{name}/fixed"), files)?;
        run(patch.arg("-R"))?;
        Ok((base, fixed))
    }

    fn make(&self, files: &[&str]) -> Result<()> {
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
        run(&mut make)
    }

    fn keep(&self, name: &str, files: &[&str]) -> Result<()> {
        let mut files = files.iter();
        files.try_for_each(|file| {
            copy(
                &self.tree().join("xen"),
                &self.folder.path().join(name),
                file,
            )
        })
    }

    /// What `invivo build` writes from both folders as it is asked to, and what `invivo check` says
    /// to it, with the same knowledge of the hypervisor: it is sound.
    ///
    /// # Errors
    ///
    /// If the program refuses either.
    pub fn payload(&self, folders: (&Path, &Path), asked: Asked<'_>) -> Result<Built> {
        let (base, fixed) = folders;
        let file = fixed.with_file_name(format!(
            "payload-{}{}{}.livepatch",
            asked.splice.unwrap_or("jump"),
            if asked.by_map { "-map" } else { "" },
            if asked.efi { "-efi" } else { "" }
        ));
        let (map, symbols) = (self.xen.map(), self.xen.symbols());
        let known = if asked.by_map { &map } else { &symbols };
        let mut build = self.build(base, fixed, known, &file);
        let mut check = Command::new(&self.invivo);
        check.arg("check").arg(&file).arg("--xen").arg(known);
        check.args(["--xen-version", &self.xen.version]);
        if let Some(below) = asked.after {
            build.arg("--depends").arg(below);
            check.arg("--after").arg(below);
        }
        if let Some(what) = asked.splice {
            build.args(["--splice", what]);
        }
        if asked.by_map {
            // The list of names does not tell the build id.
            build.arg("--xen-id").arg(&symbols);
        }
        if asked.efi {
            build.arg("--xen-id").arg(self.xen.efi());
            check.arg("--efi").arg(self.xen.efi());
        }
        let said = [said(&mut build)?, said(&mut check)?];
        keep(&fs::read(&file)?);
        let [said, checked] = said;
        Ok(Built {
            file,
            said,
            checked,
        })
    }

    /// What `invivo build` takes for that: the median time of some runs, and the most memory in MiB.
    ///
    /// # Errors
    ///
    /// If it refuses, or does not tell its memory.
    pub fn cost(&self, base: &Path, fixed: &Path) -> Result<(Duration, u64)> {
        let (mut times, mut memory) = (Vec::new(), 0);
        for _ in 0..5 {
            let begun = Instant::now();
            let file = fixed.with_file_name("cost.livepatch");
            let mut build = self.build(base, fixed, &self.xen.symbols(), &file);
            let said = build.arg("--time").output()?;
            times.push(begun.elapsed());
            let said = String::from_utf8_lossy(&said.stderr).into_owned();
            let most = said.lines().find_map(|line| {
                let number = line.trim().split_once(" MiB of memory")?.0;
                number.parse::<u64>().ok()
            });
            memory = memory.max(most.with_context(|| said.clone())?);
        }
        times.sort_unstable();
        Ok((times[times.len() / 2], memory))
    }

    fn build(&self, base: &Path, fixed: &Path, known: &Path, file: &Path) -> Command {
        let mut build = Command::new(&self.invivo);
        build.arg("build").arg(base).arg(fixed);
        build.args(["--format", "livepatch", "--xen"]).arg(known);
        build.arg("-o").arg(file);
        build
    }

    /// The words with which `invivo build` refuses to make a payload.
    ///
    /// # Errors
    ///
    /// If it makes one.
    pub fn refusal(&self, base: &Path, fixed: &Path) -> Result<String> {
        let file = fixed.with_file_name("refused.livepatch");
        let mut build = self.build(base, fixed, &self.xen.symbols(), &file);
        let output = build.output()?;
        if output.status.success() {
            bail!("it was built");
        }
        Ok(String::from_utf8_lossy(&output.stderr).into_owned())
    }
}

/// What a program prints that succeeds.
fn said(command: &mut Command) -> Result<String> {
    let output = command.output()?;
    if !output.status.success() {
        bail!("{command:?} failed: {output:?}");
    }
    Ok(String::from_utf8(output.stdout)?)
}

fn copy(from: &Path, to: &Path, file: &str) -> Result<()> {
    let to = to.join(file);
    fs::create_dir_all(to.parent().context("a file in a folder")?)?;
    fs::copy(from.join(file), to)?;
    Ok(())
}
