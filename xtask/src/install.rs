//! The Debian packages that the chores need: looked for, and installed after
//! saying so.

use std::io::{BufRead, IsTerminal, Write};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Result, bail};

use crate::process;

/// What compiles the demo server.
pub(crate) const DEMO: &[&str] = &["build-essential", "patch"];

/// What builds the corpus.
pub(crate) const CORPUS: &[&str] = &[
    "build-essential",
    "dpkg-dev",
    "patch",
    "pkg-config",
    "autoconf",
    "automake",
    "libtool",
    "ccache",
    "bison",
    "flex",
    "libboost-context-dev",
    "libboost-dev",
    "libboost-filesystem-dev",
    "libboost-system-dev",
    "libboost-thread-dev",
    "libevent-dev",
    "libexpat1-dev",
    "liblua5.3-dev",
    "libpcre2-dev",
    "libsasl2-dev",
    "libssl-dev",
    "zlib1g-dev",
    "tcl",
];

/// What runs and loads the servers of the corpus.
pub(crate) const LIVE: &[&str] = &[
    "redis-tools",
    "libsasl2-modules",
    "openssh-client",
    "strace",
];

/// What measures.
pub(crate) const BENCH: &[&str] = &["time"];

/// What the largest programs are fetched and looked at with.
pub(crate) const LARGE: &[&str] = &["binutils", "time"];

/// What fetches node; whoever has it from elsewhere cannot install this one beside it.
pub(crate) const NPM: &[&str] = &["npm"];

/// What the live scenarios compile and look at their small programs with.
const SCENARIOS: &[&str] = &[
    "build-essential",
    "binutils",
    "acl",
    "attr",
    "e2fsprogs",
    "elfutils",
    "gdb",
    "libcap2-bin",
    "musl-tools",
    "strace",
    "util-linux",
];

/// The profiler that the live scenarios look at new code with; Ubuntu has it by another name.
const PERF: (&str, &str) = ("linux-perf", "linux-tools-generic");

/// What the tests look at the report with: a browser, what drives it, and letters.
const REPORT: &[&str] = &["chromium", "chromium-driver", "fonts-dejavu-core"];

/// What the inputs of a comparison are built with.
const INPUTS: &[&str] = &[
    "build-essential",
    "dpkg-dev",
    "clang",
    "lld",
    "llvm",
    "mold",
    "dwz",
    "bolt-19",
];

/// What Windows images are built and looked at with; LLVM 22 is the first that knows hot patching.
/// Wine runs them, and Debian's Rust compiler comes with the sources of the standard library that
/// programs for Windows are built with.
pub(crate) const WINDOWS: &[&str] = &[
    "clang-22",
    "llvm-22",
    "openssl",
    "osslsigncode",
    "rustc-web",
    "rust-web-src",
    "wine64",
];

/// What hypervisors are booted with, and what makes payloads for them: of the source of one of them
/// with the compiler that Debian built it with.
pub(crate) const XEN: &[&str] = &[
    "qemu-system-x86",
    "ovmf",
    "build-essential",
    "binutils",
    "openssl",
    "dpkg-dev",
    "patch",
    "gcc-12",
    "bison",
    "flex",
    "python3",
];

/// What all chores together need.
pub(crate) fn everything() -> Vec<&'static str> {
    let mut all = [
        DEMO, CORPUS, LIVE, BENCH, SCENARIOS, REPORT, INPUTS, WINDOWS, XEN,
    ]
    .concat();
    let system = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    let is_ubuntu = system.lines().any(|line| line == "ID=ubuntu");
    all.push(if is_ubuntu { PERF.1 } else { PERF.0 });
    all.sort_unstable();
    all.dedup();
    all
}

const LIMIT: Duration = Duration::from_secs(900);

/// Makes sure that the packages are there.
///
/// Root installs what is missing. Anybody else is asked first, and then `sudo`
/// does it; where nobody can be asked, the error holds the command to run.
pub(crate) fn ensure(packages: &[&str]) -> Result<()> {
    let missing = missing(packages)?;
    if missing.is_empty() {
        return Ok(());
    }
    let list = missing.join(" ");
    let by_hand = format!("apt-get update && apt-get install --no-install-recommends -y {list}");
    let mut prefix: &[&str] = &[];
    if !nix::unistd::geteuid().is_root() {
        let unattended = std::env::var_os("CI").is_some_and(|value| value == "true");
        if unattended || !std::io::stdin().is_terminal() {
            bail!("these packages are missing: {list}\n\nhint: run as root: {by_hand}");
        }
        if !agreed(&list)? {
            bail!("nothing was installed\n\nhint: run as root: {by_hand}");
        }
        prefix = &["sudo"];
    }
    eprintln!("installing: {list}");
    apt(prefix, &["update", "-q"])?;
    let mut install = vec!["install", "-q", "-y", "--no-install-recommends"];
    install.extend(&missing);
    apt(prefix, &install)
}

/// Those of the packages that are not installed.
fn missing<'a>(packages: &[&'a str]) -> Result<Vec<&'a str>> {
    let mut query = Command::new("dpkg-query");
    query
        .args(["-W", "-f", "${Package} ${db:Status-Status}\\n"])
        .args(packages);
    // It fails when any package is unknown, and prints the others all the same.
    let known = process::capture(&mut query, Duration::from_secs(60))?.stdout;
    let installed = |package: &str| {
        known
            .lines()
            .any(|line| line == format!("{package} installed"))
    };
    Ok(packages
        .iter()
        .copied()
        .filter(|package| !installed(package))
        .collect())
}

fn agreed(list: &str) -> Result<bool> {
    eprint!("These packages are missing: {list}\nInstall them with sudo apt-get? [y/N] ");
    std::io::stderr().flush()?;
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

fn apt(prefix: &[&str], arguments: &[&str]) -> Result<()> {
    let words: Vec<&str> = prefix
        .iter()
        .copied()
        .chain(["apt-get"])
        .chain(arguments.iter().copied())
        .collect();
    let [program, rest @ ..] = words.as_slice() else {
        bail!("an empty command")
    };
    let mut command = Command::new(program);
    command.args(rest).env("DEBIAN_FRONTEND", "noninteractive");
    // sudo may ask for a password, so the terminal stays connected.
    command.stdin(Stdio::inherit()).stdout(Stdio::null());
    let mut child = command.spawn()?;
    let status = process::wait(&mut child, LIMIT, &command)?;
    if !status.success() {
        bail!("`{}` failed", words.join(" "));
    }
    Ok(())
}
