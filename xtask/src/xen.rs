//! The hypervisors that tests boot, the source of one of them, and a Linux for them: Debian's packages,
//! downloaded and unpacked below `target/xen`, never installed.
//!
//! Each release has another version of Xen, so packages of two are wanted, whichever runs here.
//! They come from where this machine has its own packages from ([`apt`]).

use std::fs::{self, File};
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};

use crate::process;
use crate::workspace::Workspace;
use apt::Apt;

mod apt;
mod source;

const LIMIT: Duration = Duration::from_secs(600);

/// A release of Debian, and what of it tests boot.
struct Release {
    name: &'static str,
    /// The version of its Xen.
    xen: &'static str,
    /// True if payloads are made of that Xen's own source: this release has the compiler for it.
    has_source: bool,
    /// True if its Linux is the one that each of them starts.
    has_linux: bool,
}

const RELEASES: &[Release] = &[
    Release {
        name: "bookworm",
        xen: "4.17",
        has_source: true,
        has_linux: true,
    },
    Release {
        name: "trixie",
        xen: "4.20",
        has_source: false,
        has_linux: false,
    },
];

/// Where a package has it, and what it is called here; `VERSION` is the version of Xen.
const FILES: &[(&str, &str)] = &[
    ("boot/xen-VERSION-amd64.efi", "xen.efi"),
    ("boot/xen-VERSION-amd64.config", "config"),
    ("boot/xen-VERSION-amd64.gz", "xen.gz"),
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

/// Makes sure that each hypervisor is there, its source, and the Linux.
pub(crate) fn fetch(workspace: &Workspace) -> Result<()> {
    let folder = workspace.target.join("xen");
    let missing = RELEASES
        .iter()
        .filter(|release| !is_there(release, &folder));
    let missing: Vec<&Release> = missing.collect();
    if missing.is_empty() {
        return Ok(());
    }
    let begun = Instant::now();
    thread::scope(|scope| {
        let fetch =
            |release| move || fetch_release(release, workspace, &workspace.target.join("xen"));
        let running: Vec<_> = missing
            .into_iter()
            .map(|release| scope.spawn(fetch(release)))
            .collect();
        let ended = running.into_iter().map(|one| {
            let ended = one.join();
            ended.unwrap_or_else(|_| Err(anyhow!("it was not fetched to its end")))
        });
        // Each is waited for, whatever became of the others.
        let ended: Vec<Result<()>> = ended.collect();
        ended.into_iter().collect::<Result<()>>()
    })?;
    eprintln!("fetched in {:.1} s", begun.elapsed().as_secs_f64());
    Ok(())
}

/// Whether all of a release is there.
fn is_there(release: &Release, folder: &Path) -> bool {
    let xen = folder.join(release.xen);
    xen.is_dir()
        && (!release.has_source || xen.join(source::FOLDER).is_dir())
        && (!release.has_linux || folder.join("linux").is_dir())
}

fn fetch_release(release: &Release, workspace: &Workspace, folder: &Path) -> Result<()> {
    let version = release.xen;
    eprintln!("fetching: Xen {version} for tests, unpacked only");
    let number = std::process::id();
    let work = workspace.fresh_folder(&format!("xen/fetch-{version}-{number}"))?;
    let apt = Apt::new(&work, release.name, release.has_source)?;
    let made = work.join(version);
    fs::create_dir(&made)?;
    let fill = || -> Result<()> {
        let chosen = if release.has_source {
            Some(source::fetch(&apt, version)?)
        } else {
            None
        };
        hypervisor(&apt, version, chosen.as_deref(), &made)?;
        if chosen.is_some() {
            source::prepare(&apt, &made)?;
        }
        if release.has_linux {
            fs::create_dir(work.join("linux"))?;
            linux(&apt, &work.join("linux"))?;
        }
        Ok(())
    };
    fill().with_context(|| format!("cannot fetch Xen {version} for tests"))?;
    settle(&made, &folder.join(version), release.has_source)?;
    if release.has_linux {
        settle(&work.join("linux"), &folder.join("linux"), false)?;
    }
    fs::remove_dir_all(&work).with_context(|| format!("cannot remove {}", work.display()))
}

/// Moves what was made to its place. Whoever finds the folder finds all of it; another run may
/// have been first, and one of before had no source.
fn settle(made: &Path, folder: &Path, has_source: bool) -> Result<()> {
    if folder.is_dir() && has_source && !folder.join(source::FOLDER).is_dir() {
        fs::remove_dir_all(folder)?;
    }
    if let Err(error) = fs::rename(made, folder)
        && !folder.is_dir()
    {
        return Err(error).with_context(|| format!("cannot make {}", folder.display()));
    }
    Ok(())
}

/// A hypervisor with its symbols, in the version `chosen` of the package if there is a choice.
fn hypervisor(apt: &Apt, version: &str, chosen: Option<&str>, made: &Path) -> Result<()> {
    let package = format!("xen-hypervisor-{version}-amd64");
    let names = [package.clone(), format!("{package}-dbg")];
    let files = FILES.iter();
    let files: Vec<_> = files
        .map(|(from, to)| (from.replace("VERSION", version), *to))
        .collect();
    apt.take(&names, chosen, &files, made)?;
    // An emulator starts only what is not compressed.
    let compressed = made.join("xen.gz");
    let mut unpack = Command::new("gzip");
    unpack.arg("-dc").arg(&compressed);
    unpack.stdout(File::create(made.join("xen"))?);
    if !process::succeeds(&mut unpack, LIMIT)? {
        bail!("{} cannot be unpacked", compressed.display());
    }
    fs::remove_file(compressed)?;
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
    let version = package.trim_start_matches("linux-image-");
    let driver = format!("lib/modules/{version}/kernel/drivers/xen/xen-privcmd.ko");
    let files = [
        (format!("boot/vmlinuz-{version}"), "vmlinuz"),
        (driver, "xen-privcmd.ko"),
    ];
    apt.take(&[package.to_owned()], None, &files, made)
}
