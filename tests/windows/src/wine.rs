//! Programs for Windows, built here from Rust and C and run by Wine.
//!
//! Rust's standard library is built from the sources that Debian has beside its compiler. What a
//! C runtime brings to a program is in `runtime`; the C library is Windows' own. All of it lies in
//! `target/windows`, and is made once.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::{LLVM, Library, linker, run};

const TARGET: &str = "x86_64-pc-windows-msvc";

/// How long a program may say nothing or not end; each takes a moment, on a machine that others use some
/// seconds. What hangs ends its test, and not the machine's day.
const PATIENCE: Duration = Duration::from_secs(120);

/// Debian's compiler, which its sources of the library are for.
const RUSTC: &str = "/usr/bin/rustc";

/// The folder that everything is in.
fn folder() -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into());
    root().join(target).join("windows")
}

/// The folder of the workspace.
fn root() -> &'static Path {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.ancestors().nth(2).unwrap_or(own)
}

fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("runtime")
}

/// Makes the libraries that a linker for Windows asks for; returns their folder.
///
/// # Errors
/// When a tool is missing or fails.
fn runtime() -> Result<&'static Path> {
    static MADE: OnceLock<PathBuf> = OnceLock::new();
    // Tests run side by side, and one must not read what another is writing.
    static MAKING: Mutex<()> = Mutex::new(());
    let _making = MAKING.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(made) = MADE.get() {
        return Ok(made);
    }
    let made = folder().join("runtime");
    std::fs::create_dir_all(&made)?;
    let mut parts = Vec::new();
    for part in ["common.c", "program.c", "library.c", "stack.s"] {
        let object = made.join(part).with_extension("obj");
        compile(&sources().join(part), &object)?;
        parts.push(object);
    }
    for list in ["vcruntime140", "ucrtbase", "kernel32", "advapi32"] {
        let library = made.join(list).with_extension("lib");
        let mut dlltool = Command::new(format!("llvm-dlltool-{LLVM}"));
        dlltool.args(["-m", "i386:x86-64", "-d"]);
        dlltool.arg(sources().join(list).with_extension("def"));
        dlltool.arg("-l").arg(&library);
        run(&mut dlltool, "llvm-dlltool-22")?;
        parts.push(library);
    }
    // All in one, by the name that compilers ask for.
    let library = made.join("msvcrt.lib");
    let _ = std::fs::remove_file(&library);
    let mut lib = Command::new(format!("llvm-lib-{LLVM}"));
    lib.arg("/nologo")
        .arg(format!("/out:{}", library.display()))
        .args(parts);
    run(&mut lib, "llvm-lib-22")?;
    // Asked for by what a C compiler made, and not needed.
    std::fs::copy(made.join("kernel32.lib"), made.join("oldnames.lib"))?;
    Ok(MADE.get_or_init(|| made))
}

fn compile(source: &Path, object: &Path) -> Result<()> {
    let mut clang = Command::new(format!("clang-{LLVM}"));
    clang
        .args(["--target=x86_64-windows-msvc", "-c", "-O2", "-g"])
        .args(["-gcodeview", "-ffunction-sections", "-fms-hotpatch", "-o"])
        .arg(object)
        .arg(source);
    run(&mut clang, "clang-22").map(|_| ())
}

/// Links objects and what they need of a runtime.
fn link(objects: &[PathBuf], words: &[&str], to: &Path) -> Result<()> {
    let mut lld = Command::new(linker()?);
    lld.args(["-flavor", "link", "/nologo", "/nodefaultlib"])
        .args(words)
        .arg(format!("/out:{}", to.display()))
        .args(objects)
        .arg(runtime()?.join("msvcrt.lib"));
    run(&mut lld, "the Rust toolchain's linker").map(|_| ())
}

/// Builds `programs/NAME.c` (one file, with a `main`) as a program.
///
/// # Errors
/// When a tool is missing or fails.
pub fn c_program(name: &str) -> Result<PathBuf> {
    let place = folder().join("programs");
    std::fs::create_dir_all(&place)?;
    let object = place.join(name).with_extension("obj");
    compile(&crate::programs().join(name).with_extension("c"), &object)?;
    let program = place.join(name).with_extension("exe");
    link(&[object], &["/subsystem:console"], &program)?;
    Ok(program)
}

/// A `cargo` command that builds for Windows: the profile is that of a program that is compiled
/// fast.
fn cargo(verb: &str) -> Result<Command> {
    let runtime = runtime()?;
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    let variable = |what: &str| format!("CARGO_TARGET_X86_64_PC_WINDOWS_MSVC_{what}");
    // Six bytes before each function and two at its begin: what a hot patch needs.
    let flags = format!(
        "-Clinker-flavor=lld-link -Clink-arg=/libpath:{} -Zpatchable-function-entry=8,6",
        runtime.display()
    );
    command
        .arg(verb)
        .current_dir(root())
        .args(["--quiet", "--locked", "--target", TARGET])
        .args(["-Zbuild-std=std,panic_unwind"])
        .args(["-Zbuild-std-features=panic-unwind,windows_raw_dylib"])
        .args(["--config", "profile.dev.opt-level=0"])
        .args(["--config", "profile.dev.debug=0"])
        .args(["--config", "profile.dev.package.\"*\".opt-level=0"])
        .env("RUSTC", RUSTC)
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_TARGET_DIR", folder())
        .env("CARGO_INCREMENTAL", "0")
        .env(variable("LINKER"), linker()?)
        .env(variable("RUSTFLAGS"), flags)
        .env("CC_x86_64_pc_windows_msvc", format!("clang-cl-{LLVM}"))
        .env("AR_x86_64_pc_windows_msvc", format!("llvm-lib-{LLVM}"))
        .env(
            "CFLAGS_x86_64_pc_windows_msvc",
            format!("-O1 -GS- -I{}", sources().join("include").display()),
        )
        // What the cargo that runs the tests says is for this machine.
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .env_remove("RUSTUP_TOOLCHAIN");
    Ok(command)
}

fn built(command: &mut Command, file: &str) -> Result<PathBuf> {
    run(command, "cargo with Debian's rustc")?;
    let path = folder().join(TARGET).join("debug").join(file);
    if !path.is_file() {
        bail!("{} was not built", path.display());
    }
    Ok(path)
}

/// `invivo.exe`.
///
/// # Errors
/// When a tool is missing or fails.
pub fn invivo() -> Result<PathBuf> {
    built(
        cargo("build")?.args(["--package", "invivo-cli", "--bin", "invivo"]),
        "invivo.exe",
    )
}

/// A program of the folder `examples` of the crate that knows processes of Windows.
///
/// # Errors
/// When a tool is missing or fails.
pub fn example(name: &str) -> Result<PathBuf> {
    built(
        cargo("build")?.args(["--package", "invivo-windows", "--example", name]),
        &format!("examples/{name}.exe"),
    )
}

/// Builds the library of the folder `programs/rusty` below `folder`: the base, or what `--cfg WORD`
/// makes of it, with these functions compiled for hot patching.
///
/// # Errors
/// When a tool is missing or fails.
pub fn rust_library(folder: &Path, name: &str, words: &str, functions: &str) -> Result<Library> {
    let place = folder.join(name);
    std::fs::create_dir_all(&place)?;
    let manifest = crate::programs().join("rusty/Cargo.toml");
    let mut cargo = cargo("rustc")?;
    cargo.arg("--manifest-path").arg(manifest).arg("--");
    cargo
        .args(["-Copt-level=2", "-Cdebuginfo=2", "-Ccodegen-units=1"])
        .args(["-Cdebug-assertions=off", "-Coverflow-checks=off"])
        .args(["-Cpanic=abort", "-Clink-arg=/Brepro", "-Clink-arg=/release"])
        .args(["-Clink-arg=/opt:noicf", "-Clink-arg=/pdbaltpath:%_PDB%"]);
    for word in words.split_whitespace() {
        cargo.args(["--cfg", word]);
    }
    // Beside the library its object file, by the name of the package.
    cargo.arg("--emit=obj");
    if !functions.is_empty() {
        // A file of the names would be ignored where it is missing.
        cargo.arg(format!(
            "-Cllvm-args=--ms-secure-hotpatch-functions-list={functions}"
        ));
    }
    // One folder for all builds: nobody else builds while this one is copied.
    static ONE: Mutex<()> = Mutex::new(());
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let built = built(&mut cargo, "rusty.dll")?;
    let library = Library {
        path: place.join("rusty.dll"),
        pdb: place.join("rusty.pdb"),
    };
    std::fs::copy(&built, &library.path)?;
    std::fs::copy(built.with_extension("pdb"), &library.pdb)?;
    let object = built.with_file_name("deps").join("rusty.o");
    std::fs::copy(object, place.join("rusty.obj"))?;
    Ok(library)
}

/// Programs for Windows, run by Wine.
#[derive(Debug)]
pub struct Wine {
    prefix: PathBuf,
    /// A program that waits for words that never come, and ends with this process. Wine's server, as Debian
    /// starts it, ends with the last of its programs; one that starts at that instant is cut off by the old
    /// server ("recvmsg: Connection reset by peer").
    waiting: Option<Child>,
}

impl Wine {
    /// Makes a Windows below `target`, if there is none yet.
    ///
    /// # Errors
    /// When Wine is missing, or makes none.
    pub fn ready() -> Result<&'static Wine> {
        static READY: OnceLock<Result<Wine, String>> = OnceLock::new();
        let ready = READY.get_or_init(|| Wine::new().map_err(|error| format!("{error:#}")));
        ready.as_ref().map_err(|text| anyhow::anyhow!("{text}"))
    }

    fn new() -> Result<Wine> {
        let prefix = folder().join("wine");
        std::fs::create_dir_all(&prefix)?;
        let mut wine = Wine {
            prefix,
            waiting: None,
        };
        wine.waiting = Some(wine.waits()?);
        let stub = wine
            .prefix
            .join("drive_c/windows/system32/bcryptprimitives.dll");
        if !stub.exists() {
            let object = folder().join("bcryptprimitives.obj");
            compile(&sources().join("bcryptprimitives.c"), &object)?;
            let advapi = runtime()?.join("advapi32.lib");
            let words = ["/dll", "/entry:_DllMainCRTStartup"];
            link(&[object, advapi], &words, &stub)?;
        }
        Ok(wine)
    }

    /// Starts the program that waits. The server of tests that ended just before may be ending.
    fn waits(&self) -> Result<Child> {
        let mut command = self.command("C:\\windows\\system32\\cmd.exe");
        command.args(["/q", "/k", "echo", "ready"]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        // The server keeps what the first program has, and this process's own would have no end.
        command.stderr(Stdio::null());
        let mut said = String::new();
        for _ in 0..10 {
            let mut child = command.spawn().context("wine64 is not installed")?;
            said = line(&mut BufReader::new(
                child.stdout.take().context("no output")?,
            ))?;
            if said == "ready" {
                return Ok(child);
            }
            child.wait()?;
            sleep(Duration::from_millis(100));
        }
        bail!("Wine starts no program: {said:?}")
    }

    /// A program to run; it reads nothing.
    #[must_use]
    pub fn command(&self, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new("/usr/lib/wine/wine64");
        command
            .arg(program.as_ref())
            .env("WINEPREFIX", &self.prefix)
            .env("WINEDEBUG", "-all")
            // Nothing of these is needed, and to install them it would ask.
            .env("WINEDLLOVERRIDES", "mscoree,mshtml=;bcryptprimitives=n")
            .env_remove("LD_LIBRARY_PATH")
            .env_remove("DISPLAY")
            .stdin(Stdio::null());
        command
    }

    /// What a program prints, and its exit code.
    ///
    /// # Errors
    /// When it does not start, or does not end in time; then it is killed.
    pub fn output(&self, command: &mut Command) -> Result<(String, i32)> {
        self.output_within(PATIENCE, command)
    }

    /// The same of a program that takes longer.
    ///
    /// # Errors
    /// As [`Self::output`].
    pub fn output_within(
        &self,
        patience: Duration,
        command: &mut Command,
    ) -> Result<(String, i32)> {
        let (mut output, mut errors) = (nameless()?, nameless()?);
        command
            .stdout(output.try_clone()?)
            .stderr(errors.try_clone()?);
        let mut child = command.spawn().context("wine64 is not installed")?;
        let end = Instant::now() + patience;
        let status = loop {
            match child.try_wait()? {
                Some(status) => break status,
                None if Instant::now() < end => sleep(Duration::from_millis(1)),
                None => {
                    // It is ours, and has not ended.
                    let _ = child.kill();
                    let _ = child.wait();
                    bail!("it does not end: {command:?}");
                }
            }
        };
        let code = status.code().context("it was killed")?;
        let texts = [&mut output, &mut errors]
            .into_iter()
            .map(|file| -> Result<String> {
                let mut bytes = Vec::new();
                file.seek(SeekFrom::Start(0))?;
                file.read_to_end(&mut bytes)?;
                Ok(String::from_utf8_lossy(&bytes).replace('\r', ""))
            });
        Ok((texts.collect::<Result<String>>()?, code))
    }
}

/// A file for what a program says. A pipe would have no end where the program is the first one: the server
/// that it starts keeps it open for as long as others run.
fn nameless() -> Result<File> {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let name = format!("invivo-wine-{}-{number}", std::process::id());
    let path = std::env::temp_dir().join(name);
    let mut made = File::options();
    let file = made.read(true).write(true).create_new(true).open(&path)?;
    std::fs::remove_file(&path)?;
    Ok(file)
}

/// The next line that a program says.
///
/// # Errors
/// When it says nothing in time.
pub fn line(output: &mut BufReader<ChildStdout>) -> Result<String> {
    if output.buffer().is_empty() {
        let mut waited = libc::pollfd {
            fd: output.get_ref().as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        };
        let patience = i32::try_from(PATIENCE.as_millis())?;
        // SAFETY: one such structure is there.
        if unsafe { libc::poll(&raw mut waited, 1, patience) } == 0 {
            bail!("the program says nothing");
        }
    }
    let mut line = String::new();
    output.read_line(&mut line)?;
    Ok(line.trim().to_owned())
}

/// The name under which a program for Windows knows a file.
#[must_use]
pub fn name(path: &Path) -> String {
    format!("Z:{}", path.display()).replace('/', "\\")
}
