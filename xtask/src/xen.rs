//! The hypervisors that tests boot, and a Linux for them: Debian's packages, downloaded and unpacked
//! below `target/xen`, never installed.
//!
//! Each release has another version of Xen, so packages of two are wanted, whichever runs here.
//! They come from where this machine has its own packages from: its list of sources is copied
//! with the release's name exchanged, and `apt-get` works on the copy, in folders of its own.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::process;
use crate::workspace::Workspace;

/// Versions of Xen, and the release of Debian that has each.
const HYPERVISORS: &[(&str, &str)] = &[("4.17", "bookworm"), ("4.20", "trixie")];

/// The release whose Linux runs on each of them.
const LINUX: &str = "bookworm";

const LIMIT: Duration = Duration::from_secs(600);

/// Where a package has it, and what it is called here; `VERSION` is the version of Xen.
const FILES: &[(&str, &str)] = &[
    ("boot/xen-VERSION-amd64.efi", "xen.efi"),
    ("boot/xen-VERSION-amd64.config", "config"),
    ("usr/lib/debug/boot/xen-syms-VERSION-amd64", "xen-syms"),
    (
        "usr/lib/debug/boot/xen-syms-VERSION-amd64.map",
        "xen-syms.map",
    ),
    (
        "usr/lib/debug/boot/xen-VERSION-amd64.efi.map",
        "xen.efi.map",
    ),
];

/// Makes sure that each hypervisor is there, and the Linux.
pub(crate) fn fetch(workspace: &Workspace) -> Result<()> {
    let there = |name: &str, release: &str, fill: &dyn Fn(&Apt, &Path) -> Result<()>| {
        let folder = workspace.target.join("xen").join(name);
        if folder.is_dir() {
            return Ok(());
        }
        eprintln!("fetching: {name} for the tests with Xen, unpacked only");
        let number = std::process::id();
        let work = workspace.fresh_folder(&format!("xen/fetch-{name}-{number}"))?;
        let made = work.join("made");
        fs::create_dir(&made)?;
        let apt = Apt::new(&work, release)?;
        fill(&apt, &made).with_context(|| format!("cannot fetch {name} for tests with Xen"))?;
        // Whoever finds the folder finds all of it; another run may have been first.
        if let Err(error) = fs::rename(&made, &folder)
            && !folder.is_dir()
        {
            return Err(error).with_context(|| format!("cannot make {}", folder.display()));
        }
        fs::remove_dir_all(&work).with_context(|| format!("cannot remove {}", work.display()))
    };
    for &(version, release) in HYPERVISORS {
        there(version, release, &|apt, made| {
            hypervisor(apt, version, made)
        })?;
    }
    there("linux", LINUX, &linux)
}

/// A hypervisor with its symbols.
fn hypervisor(apt: &Apt, version: &str, made: &Path) -> Result<()> {
    let package = format!("xen-hypervisor-{version}-amd64");
    let symbols = format!("{package}-dbg");
    let root = apt.unpacked(&[&package, &symbols])?;
    for (from, to) in FILES {
        let from = root.join(from.replace("VERSION", version));
        fs::copy(&from, made.join(to)).with_context(|| format!("no {}", from.display()))?;
    }
    // An emulator starts only what is not compressed.
    let compressed = root.join(format!("boot/xen-{version}-amd64.gz"));
    let mut unpack = Command::new("gzip");
    unpack.arg("-dc").arg(&compressed);
    unpack.stdout(File::create(made.join("xen"))?);
    if !process::succeeds(&mut unpack, LIMIT)? {
        bail!("{} cannot be unpacked", compressed.display());
    }
    if !fs::read_to_string(made.join("config"))?.contains("CONFIG_LIVEPATCH=y") {
        bail!("this Xen was built without live patching");
    }
    Ok(())
}

/// A kernel of Linux, and the driver of the device that leads to the hypervisor.
fn linux(apt: &Apt, made: &Path) -> Result<()> {
    // The package of this name only leads to the one of the current version.
    let named = apt.run(&["--print-uris", "-qq", "install", "linux-image-amd64"])?;
    let mut words = named.stdout.split_whitespace();
    let package = words.find_map(|word| {
        let package = word.split('_').next()?;
        let version = package.strip_prefix("linux-image-")?;
        version.starts_with(char::is_numeric).then_some(package)
    });
    let package = package.context("no package has the kernel")?;
    let root = apt.unpacked(&[package])?;
    let version = package.trim_start_matches("linux-image-");
    let driver = format!("lib/modules/{version}/kernel/drivers/xen/xen-privcmd.ko");
    for (from, to) in [
        (format!("boot/vmlinuz-{version}"), "vmlinuz"),
        (driver, "xen-privcmd.ko"),
    ] {
        let from = root.join(from);
        fs::copy(&from, made.join(to)).with_context(|| format!("no {}", from.display()))?;
    }
    Ok(())
}

/// `apt-get` with sources and folders of its own.
struct Apt {
    work: PathBuf,
    options: Vec<String>,
    /// What was said when the lists of packages were read.
    updated: String,
}

impl Apt {
    fn new(work: &Path, release: &str) -> Result<Apt> {
        let sources = work.join("sources.list.d");
        fs::create_dir(&sources)?;
        copy_sources(&sources, release)?;
        for folder in ["state/lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(work.join(folder))?;
        }
        // No package counts as installed.
        File::create(work.join("status"))?;
        let options = [
            ("Dir::Etc::sourcelist", "/dev/null".to_owned()),
            ("Dir::Etc::sourceparts", format!("{}", sources.display())),
            ("Dir::State", format!("{}", work.join("state").display())),
            (
                "Dir::State::status",
                format!("{}", work.join("status").display()),
            ),
            ("Dir::Cache", format!("{}", work.join("cache").display())),
            // The user that root's apt becomes may not look into these folders.
            ("APT::Sandbox::User", String::new()),
        ];
        let options = options.into_iter();
        let mut apt = Apt {
            work: work.to_owned(),
            options: options
                .flat_map(|(name, value)| ["-o".to_owned(), format!("{name}={value}")])
                .collect(),
            updated: String::new(),
        };
        // A source among them that does not answer need not be the one that matters.
        apt.updated = apt.run(&["update", "-q"])?.stderr;
        Ok(apt)
    }

    /// The folder with what is in packages.
    fn unpacked(&self, packages: &[&str]) -> Result<PathBuf> {
        let words = [&["download", "-q"], packages].concat();
        let downloaded = self.run(&words)?;
        if !downloaded.status.success() {
            bail!("{}{}", self.updated, downloaded.stderr);
        }
        let root = self.work.join("root");
        for entry in fs::read_dir(&self.work)? {
            let package = entry?.path();
            if package
                .extension()
                .is_some_and(|extension| extension == "deb")
            {
                let mut unpack = Command::new("dpkg-deb");
                unpack.arg("-x").arg(&package).arg(&root);
                if !process::succeeds(&mut unpack, LIMIT)? {
                    bail!("{} cannot be unpacked", package.display());
                }
            }
        }
        Ok(root)
    }

    fn run(&self, arguments: &[&str]) -> Result<process::Output> {
        let mut command = Command::new("apt-get");
        command.args(&self.options).args(arguments);
        command
            .current_dir(&self.work)
            .env("DEBIAN_FRONTEND", "noninteractive");
        process::capture(&mut command, LIMIT)
    }
}

/// Copies the machine's own sources, with its release's name exchanged.
fn copy_sources(to: &Path, release: &str) -> Result<()> {
    let system = fs::read_to_string("/etc/os-release").context("no /etc/os-release")?;
    let value = |name: &str| {
        let line = system.lines().find_map(|line| line.strip_prefix(name))?;
        Some(line.trim_matches('"').to_owned())
    };
    let Some(own) =
        value("VERSION_CODENAME=").filter(|_| value("ID=").as_deref() == Some("debian"))
    else {
        bail!("its packages are Debian's, and this machine is none of Debian");
    };
    let mut copied = 0;
    let parts = fs::read_dir("/etc/apt/sources.list.d")
        .into_iter()
        .flatten();
    let parts = parts.flatten().map(|entry| entry.path());
    for source in parts.chain([PathBuf::from("/etc/apt/sources.list")]) {
        let kind = source.extension().and_then(|kind| kind.to_str());
        let Some(kind @ ("list" | "sources")) = kind else {
            continue;
        };
        let text = fs::read_to_string(&source).unwrap_or_default();
        // What does not name the release is somebody else's.
        if text.contains(&own) {
            let copy = to.join(format!("{copied}.{kind}"));
            fs::write(copy, text.replace(&own, release))?;
            copied += 1;
        }
    }
    if copied == 0 {
        bail!("no source of packages in /etc/apt names {own}");
    }
    Ok(())
}
