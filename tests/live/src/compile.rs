//! Compiling the programs of the scenarios.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::compiled::make;
use crate::fixture::{self, Fixture};
use crate::run::{Ran, run};

const LIMIT: Duration = Duration::from_secs(180);

/// How a pair is built, where it differs from `cc -O2 -g`.
#[derive(Debug, Clone, Copy, Default)]
pub struct Build<'a> {
    /// The compiler instead of the usual one.
    pub compiler: Option<&'a str>,
    /// More flags, after those of the fixture; for its library, too.
    pub flags: &'a [&'a str],
}

/// Which version of the fix is compiled in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// Without it.
    Base,
    /// With it.
    Fixed,
    /// With the second version of it.
    FixedAgain,
}

impl Version {
    /// The folder that the version is built in.
    #[must_use]
    pub fn folder(self) -> &'static str {
        match self {
            Self::Base => "base",
            Self::Fixed => "fixed",
            Self::FixedAgain => "fixed-again",
        }
    }

    fn define(self) -> &'static [&'static str] {
        match self {
            Self::Base => &[],
            Self::Fixed => &["-DFIXED"],
            Self::FixedAgain => &["-DFIXED=2"],
        }
    }
}

/// Builds one version of a fixture below `dir` and returns the program.
///
/// Both versions are compiled from the same place under the same names, so that they differ by the fix alone.
///
/// # Errors
///
/// When the compiler is missing (the message says how to get it) or refuses.
pub fn compile(
    dir: &Path,
    fixture: &Fixture,
    version: Version,
    build: Build<'_>,
) -> Result<PathBuf> {
    let out = dir.join(version.folder());
    fs::create_dir_all(&out).with_context(|| format!("cannot create {}", out.display()))?;
    let program = out.join(&fixture.name);
    if fixture.source.ends_with(".rs") {
        let mut rustc = Command::new(build.compiler.unwrap_or("rustc"));
        rustc.args([
            "--edition",
            "2024",
            "-O",
            "-g",
            "--crate-name",
            "scenario",
            &fixture.source,
        ]);
        if version != Version::Base {
            rustc.args(["--cfg", "fixed"]);
        }
        rustc
            .args(["--check-cfg", "cfg(fixed)"])
            .args(build.flags)
            .arg("-o")
            .arg(&program);
        tool(rustc)?;
        return Ok(program);
    }
    let usual = if fixture.source.ends_with(".cpp") {
        "g++"
    } else {
        "cc"
    };
    let start = |compiler: &str| {
        let mut command = compiler_of(compiler, version);
        command.arg("-Wl,--build-id=sha1");
        command
    };
    let compiler = build.compiler.unwrap_or(usual);
    if let Some(library) = &fixture.library {
        let mut command = start(compiler);
        command
            .args(["-shared", "-fPIC"])
            .args(build.flags)
            .arg(format!("parts/{}.c", library.name));
        make(command, &out.join(format!("lib{}.so", library.name)))?;
    }
    let mut command = start(compiler);
    command
        .args(&fixture.flags)
        .args(build.flags)
        .arg(&fixture.source);
    if !fixture.own_main {
        command.arg("parts/serve.c");
    }
    if let Some(library) = fixture.library.as_ref().filter(|library| library.linked) {
        command
            .arg("-L")
            .arg(&out)
            .arg(format!("-l{}", library.name))
            .arg("-Wl,-rpath,$ORIGIN");
    }
    make(command, &program)?;
    Ok(program)
}

fn compiler_of(compiler: &str, version: Version) -> Command {
    let mut command = Command::new(compiler);
    command
        .args(["-O2", "-g", "-D_GNU_SOURCE", "-Iparts"])
        // The same program wherever the sources are.
        .arg(format!(
            "-ffile-prefix-map={}=/scenario",
            fixture::folder().display()
        ))
        .args(version.define());
    command
}

/// Builds the object files of one version of a fixture of several sources below `dir`, one section for each
/// function and variable, and returns their folder.
///
/// # Errors
///
/// As [`compile`].
pub fn compile_objects(
    dir: &Path,
    fixture: &Fixture,
    version: Version,
    build: Build<'_>,
) -> Result<PathBuf> {
    let out = dir.join(version.folder()).join("objects");
    fs::create_dir_all(&out).with_context(|| format!("cannot create {}", out.display()))?;
    let library = fixture.library.as_ref();
    let library = library.map(|library| format!("parts/{}.c", library.name));
    let serve = (!fixture.own_main).then(|| "parts/serve.c".to_owned());
    let own = std::iter::once(fixture.source.clone());
    for source in own.chain(serve).chain(library) {
        let mut command = compiler_of(build.compiler.unwrap_or("cc"), version);
        command
            .args(["-ffunction-sections", "-fdata-sections"])
            .args(&fixture.flags)
            .args(build.flags)
            .args(["-c", &source]);
        let stem = Path::new(&source).file_stem().unwrap_or_default();
        make(command, &out.join(stem).with_extension("o"))?;
    }
    Ok(out)
}

/// Links all object files of a folder to the program `out`.
///
/// # Errors
///
/// As [`compile`].
pub fn link(objects: &Path, out: &Path, build: Build<'_>) -> Result<()> {
    let mut command = Command::new(build.compiler.unwrap_or("cc"));
    command.arg("-Wl,--build-id=sha1").args(build.flags);
    let listed = fs::read_dir(objects)?.map(|entry| Ok(entry?.path()));
    let mut listed = listed.collect::<Result<Vec<_>>>()?;
    listed.sort();
    tool({
        command.args(listed).arg("-o").arg(out);
        command
    })?;
    Ok(())
}

/// Builds `programs/NAME.c`, a program that takes part in a scenario but is never patched.
///
/// # Errors
///
/// As [`compile`].
pub fn compile_program(dir: &Path, name: &str) -> Result<PathBuf> {
    let out = dir.join(name);
    let mut command = Command::new("cc");
    command
        .args(["-O2", "-g", "-D_GNU_SOURCE"])
        .arg(format!("../programs/{name}.c"));
    make(command, &out)?;
    Ok(out)
}

/// Runs a build tool in the folder of the fixtures; it must succeed.
///
/// # Errors
///
/// When it is missing, with the command that installs it, or when it fails.
pub fn tool(mut command: Command) -> Result<Ran> {
    let name = command.get_program().to_string_lossy().into_owned();
    let Some(package) = package_of(command.get_program()) else {
        bail!("no package is known for the build tool {name}");
    };
    ensure!(on_path(&name), "{name} is not installed; run: {package}");
    command.current_dir(fixture::folder());
    let ran = run(command, LIMIT)?;
    ensure!(ran.code == Some(0), "the build tool failed\n{}", ran.told());
    Ok(ran)
}

fn package_of(tool: &OsStr) -> Option<&'static str> {
    Some(match tool.to_str()? {
        "cc" | "gcc" => "sudo apt-get install -y gcc libc6-dev",
        "g++" => "sudo apt-get install -y g++",
        "clang" => "sudo apt-get install -y clang",
        "musl-gcc" => "sudo apt-get install -y musl-tools",
        "as" | "ld" | "objcopy" | "strip" | "nm" | "readelf" => "sudo apt-get install -y binutils",
        "openssl" => "sudo apt-get install -y openssl",
        "rustc" => "curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh -s -- -y",
        _ => return None,
    })
}

fn on_path(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(name).is_file())
}
