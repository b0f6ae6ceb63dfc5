//! The source of a hypervisor that tests boot, up to where its files can be compiled one by one: with
//! Debian's changes, Debian's configuration, and the headers that its build makes.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::LIMIT;
use super::apt::Apt;
use crate::process;

/// The folder of the source beside the hypervisor.
pub(super) const FOLDER: &str = "source";

/// What a build of the hypervisor alone reads.
const KEPT: [&str; 3] = ["xen", "Config.mk", "config"];

/// The compiler that the package was built with, and for which processor.
const TOOLS: [&str; 3] = [
    "CC=gcc-12",
    "XEN_COMPILE_ARCH=x86_64",
    "XEN_TARGET_ARCH=x86_64",
];

/// What makes the headers: the first half of what Xen's own Makefile does before it compiles.
const HEADERS: &str = "\
include Makefile
headers: outputmakefile FORCE
\t$(Q)$(MAKE) $(build)=tools
\t$(Q)$(MAKE) $(build)=. include/xen/compile.h
\t$(Q)$(MAKE) $(build)=include all
\t$(Q)$(MAKE) $(build)=arch/$(SRCARCH) include
\t$(Q)$(MAKE) $(build)=. arch/$(SRCARCH)/include/asm/asm-offsets.h
";

/// Downloads the source of the newest package that the archive has source and binaries of: of old
/// versions archives keep only one of the two for a while. Its version.
pub(super) fn fetch(apt: &Apt, xen: &str) -> Result<String> {
    let package = format!("xen-hypervisor-{xen}-amd64");
    let said = apt.say("apt-cache", &["madison", &package])?;
    let versions = said
        .stdout
        .lines()
        .filter(|line| line.ends_with("Packages"));
    let versions: Vec<&str> = versions
        .filter_map(|line| line.split('|').nth(1).map(str::trim))
        .collect();
    let mut why = apt.updated.clone();
    for version in versions {
        let named = format!("xen={version}");
        let downloaded = apt.run(&["source", "--download-only", "-q", &named])?;
        if downloaded.status.success() {
            return Ok(version.to_owned());
        }
        why += &downloaded.stderr;
    }
    bail!("the source of no {package} can be had\n{why}")
}

/// Unpacks what was downloaded beside the hypervisor `made` and makes its headers.
pub(super) fn prepare(apt: &Apt, made: &Path) -> Result<()> {
    let unpacked = apt.work.join("unpacked");
    let mut description = None;
    for entry in fs::read_dir(&apt.work)? {
        let path = entry?.path();
        if path.extension().is_some_and(|ending| ending == "dsc") {
            description = Some(path);
        }
    }
    let description = description.context("the source has no description")?;
    let mut unpack = Command::new("dpkg-source");
    // apt has looked at the signature of the list that names each file's digest.
    unpack
        .args(["--no-check", "-x"])
        .arg(&description)
        .arg(&unpacked);
    done(&mut unpack)?;
    // The rest is for control domains.
    for entry in fs::read_dir(&unpacked)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default();
        if !KEPT.iter().any(|kept| *kept == name) {
            let removed = if path.is_dir() && !path.is_symlink() {
                fs::remove_dir_all(&path)
            } else {
                fs::remove_file(&path)
            };
            removed.with_context(|| format!("cannot remove {}", path.display()))?;
        }
    }
    let folder = made.join(FOLDER);
    fs::rename(unpacked, &folder)?;
    let xen = folder.join("xen");
    fs::copy(made.join("config"), xen.join(".config"))?;
    fs::write(xen.join("headers.mk"), HEADERS)?;
    for words in [
        &["olddefconfig"][..],
        &["-j2", "-f", "headers.mk", "headers"],
    ] {
        let mut make = Command::new("make");
        make.arg("-C").arg(&xen).args(words).args(TOOLS);
        done(&mut make)?;
    }
    Ok(())
}

fn done(command: &mut Command) -> Result<()> {
    let ran = process::capture(command, LIMIT)?;
    if !ran.status.success() {
        let last: Vec<&str> = ran.stdout.lines().rev().take(5).collect();
        let last: Vec<&str> = last.into_iter().rev().collect();
        bail!("{command:?} failed\n{}\n{}", last.join("\n"), ran.stderr);
    }
    Ok(())
}
