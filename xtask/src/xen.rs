//! The hypervisors that tests boot: Debian's packages, downloaded and unpacked below `target/xen`,
//! never installed.
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

/// Makes sure that each hypervisor is there.
pub(crate) fn fetch(workspace: &Workspace) -> Result<()> {
    for &(version, release) in HYPERVISORS {
        let folder = workspace.target.join("xen").join(version);
        if !folder.is_dir() {
            eprintln!("fetching: Xen {version}, unpacked only");
            fetch_one(workspace, version, release, &folder)
                .with_context(|| format!("there is no Xen {version} to test with"))?;
        }
    }
    Ok(())
}

fn fetch_one(workspace: &Workspace, version: &str, release: &str, folder: &Path) -> Result<()> {
    let work = workspace.fresh_folder(&format!("xen/fetch-{version}-{}", std::process::id()))?;
    let apt = Apt::new(&work, release)?;
    // A source among them that does not answer need not be the one that matters.
    let updated = apt.run(&["update", "-q"])?;
    let hypervisor = format!("xen-hypervisor-{version}-amd64");
    let symbols = format!("{hypervisor}-dbg");
    let downloaded = apt.run(&["download", "-q", &hypervisor, &symbols])?;
    if !downloaded.status.success() {
        bail!("{}{}", updated.stderr, downloaded.stderr);
    }
    let (root, made) = (work.join("root"), work.join("made"));
    fs::create_dir(&made)?;
    for entry in fs::read_dir(&work)? {
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
    // Whoever finds the folder finds all of it.
    if let Err(error) = fs::rename(&made, folder)
        && !folder.is_dir()
    {
        return Err(error).with_context(|| format!("cannot make {}", folder.display()));
    }
    fs::remove_dir_all(&work).with_context(|| format!("cannot remove {}", work.display()))
}

/// `apt-get` with sources and folders of its own.
struct Apt {
    work: PathBuf,
    options: Vec<String>,
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
        Ok(Apt {
            work: work.to_owned(),
            options: options
                .into_iter()
                .flat_map(|(name, value)| ["-o".to_owned(), format!("{name}={value}")])
                .collect(),
        })
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
