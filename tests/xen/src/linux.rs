//! Linux as Xen's control domain, and the program `invivo` in it: what people have.
//!
//! It takes half a minute to boot, so it is for what only a Linux can show: the device, the
//! permissions, the command line.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::emulator::Emulator;
use crate::hypervisor::{cargo, root, run, target};
use crate::{Hypervisor, archive::Archive};

/// What one command gave.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ran {
    /// Its exit code.
    pub code: i32,
    /// What it printed.
    pub stdout: String,
    /// What else it said.
    pub stderr: String,
}

/// Linux on Xen, before it is started.
#[derive(Debug)]
pub struct Linux {
    hypervisor: Hypervisor,
    files: Vec<(String, Vec<u8>)>,
}

impl Linux {
    /// A Linux on that hypervisor.
    #[must_use]
    pub fn on(hypervisor: &Hypervisor) -> Linux {
        Linux {
            hypervisor: hypervisor.clone(),
            files: Vec::new(),
        }
    }

    /// The same with a file in the folder in which the commands run.
    #[must_use]
    pub fn with(mut self, name: &str, bytes: &[u8]) -> Linux {
        self.files.push((name.to_owned(), bytes.to_vec()));
        self
    }

    /// Boots, runs `invivo` with each of the lines' words, and ends the machine. `user` before a
    /// line runs it as an ordinary user.
    ///
    /// # Errors
    ///
    /// If something cannot be built or started, or not all of it ends in time.
    pub fn run(&self, processors: u32, lines: &[&str]) -> Result<Vec<Ran>> {
        const LIMIT: Duration = Duration::from_secs(300);
        let folder = tempfile::tempdir()?;
        symlink(self.hypervisor.image(), folder.path().join("xen"))?;
        let kernel = target().join("xen/linux");
        symlink(kernel.join("vmlinuz"), folder.path().join("linux"))?;
        fs::write(folder.path().join("disk"), self.disk(&kernel, lines)?)?;
        let begun = Instant::now();
        let files = "linux console=hvc0 rdinit=/init quiet panic=-1,disk";
        let emulator = Emulator::start(folder.path(), processors, 768, "dom0_mem=512M", files)?;
        let mut log = String::new();
        let mut ran: Vec<Ran> = Vec::new();
        loop {
            let left = LIMIT.saturating_sub(begun.elapsed());
            let Ok(line) = emulator.lines.recv_timeout(left) else {
                bail!("the Linux did not come to its end:\n{log}");
            };
            log.push_str(&line);
            log.push('\n');
            let (kind, rest) = line.split_once(' ').unwrap_or((&line, ""));
            let last = ran.last_mut();
            match (kind, last) {
                ("@run", _) => ran.push(Ran::default()),
                ("@code", Some(last)) => last.code = rest.parse()?,
                ("@stdout", Some(last)) => last.stdout += &format!("{rest}\n"),
                ("@stderr", Some(last)) => last.stderr += &format!("{rest}\n"),
                ("@end", _) => break,
                _ => {}
            }
        }
        if ran.len() != lines.len() {
            bail!("{} of {} commands ran:\n{log}", ran.len(), lines.len());
        }
        Ok(ran)
    }

    /// The initial RAM disk: the first process, `invivo` and the libraries that it wants.
    fn disk(&self, kernel: &Path, lines: &[&str]) -> Result<Vec<u8>> {
        let work = tempfile::tempdir()?;
        let (init, invivo) = (work.path().join("init"), work.path().join("invivo"));
        let mut compiler = Command::new("rustc");
        compiler
            .args(["--edition", "2024", "-O", "-C", "strip=symbols", "-o"])
            .arg(&init)
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("programs/init.rs"));
        run(&mut compiler)?;
        // Debug data would fill the memory that a RAM disk is.
        let mut strip = Command::new("strip");
        run(strip.arg(built()?).arg("-o").arg(&invivo))?;
        let mut archive = Archive::default();
        for program in [&init, &invivo] {
            for library in libraries(program)? {
                archive.file(&library.to_string_lossy(), &fs::read(&library)?)?;
            }
        }
        archive.file("/init", &fs::read(init)?)?;
        archive.file("/bin/invivo", &fs::read(invivo)?)?;
        let module = fs::read(kernel.join("xen-privcmd.ko"))?;
        archive.file("/xen-privcmd.ko", &module)?;
        for (name, bytes) in &self.files {
            archive.file(&format!("/test/{name}"), bytes)?;
        }
        let script: String = lines.iter().map(|line| format!("{line}\n")).collect();
        archive.file("/test/script", script.as_bytes())?;
        archive.end()
    }
}

/// The program that the variable INVIVO names, else the workspace's own, built here.
///
/// # Errors
///
/// What the compiler says.
pub fn built() -> Result<PathBuf> {
    if let Some(named) = std::env::var_os("INVIVO") {
        return Ok(root().join(named));
    }
    let mut build = cargo();
    build.current_dir(root());
    run(build.args(["build", "--quiet", "--package", "invivo-cli"]))?;
    Ok(target().join("debug/invivo"))
}

/// The libraries of a program, and its loader; none of one that is static.
fn libraries(program: &Path) -> Result<Vec<PathBuf>> {
    let asked = Command::new("ldd").arg(program).output();
    let asked = asked.context("cannot start ldd")?.stdout;
    let asked = String::from_utf8_lossy(&asked).into_owned();
    let words = asked.split_whitespace();
    Ok(words
        .filter(|word| word.starts_with('/') && Path::new(word).is_file())
        .map(PathBuf::from)
        .collect())
}
