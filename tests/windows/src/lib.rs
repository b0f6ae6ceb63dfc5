//! Windows libraries, compiled by Debian's clang and linked by the linker that comes
//! with the Rust toolchain.
//!
//! Both need no Windows: the programs have no C runtime, and define what the
//! linker wants of one (a load configuration, an entry point).

pub mod asked;
pub mod by_hand;
pub mod caller;
pub mod large;
pub mod narrow;
pub mod native;
pub mod older;
pub mod recorded;
pub mod wine;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use invivo_compare::Comparison;
use invivo_format::hpat;
use invivo_image::Image;
use invivo_image::pe::{Pdb, PeImage};

/// The compiler's version: the first whose code generator knows hot patching of Windows.
const LLVM: &str = "22";

/// Which version of a program is built, and how.
#[derive(Clone, Debug, Default)]
pub struct Build {
    /// Words for the compiler, such as `-DFIXED`.
    pub compile: Vec<String>,
    /// Words for the linker.
    pub link: Vec<String>,
    /// Functions of kernel32.dll that it may import.
    pub imports: Vec<&'static str>,
    /// For x86, not x86-64.
    pub narrow: bool,
    /// For ARM64.
    pub arm64: bool,
    /// Functions of the C++ runtime that it may import.
    pub runtime: Vec<&'static str>,
    /// The object files are linked in the other order, so that all of it lies elsewhere.
    pub reversed: bool,
    /// Functions that begin one byte before an 8-byte boundary.
    pub odd: Vec<&'static str>,
}

impl Build {
    /// The program as it runs: made for hot patching.
    #[must_use]
    pub fn base() -> Build {
        Build {
            compile: words("-fms-hotpatch"),
            link: words("/functionpadmin:6 /hotpatchcompatible"),
            imports: Vec::new(),
            narrow: false,
            arm64: false,
            runtime: Vec::new(),
            reversed: false,
            odd: Vec::new(),
        }
    }

    /// The fixed source; these functions reach variables through pointers that a
    /// patch can redirect.
    #[must_use]
    pub fn fixed(functions: &str) -> Build {
        let mut build = Build::base();
        build.compile.push("-DFIXED".to_owned());
        if !functions.is_empty() {
            let list = format!("-fms-secure-hotpatch-functions-list={functions}");
            build.compile.push(list);
        }
        build
    }

    /// The same with functions that it imports from Windows.
    #[must_use]
    pub fn importing(mut self, names: &[&'static str]) -> Build {
        self.imports.extend(names);
        self
    }

    /// The same with room before functions for every kind of hook.
    #[must_use]
    pub fn roomy(mut self) -> Build {
        self.link.retain(|word| !word.contains("functionpadmin"));
        self.link.push("/functionpadmin:16".to_owned());
        self
    }

    /// The same for x86.
    #[must_use]
    pub fn narrow(mut self) -> Build {
        self.narrow = true;
        self.link.extend(words("/machine:x86 /safeseh:no"));
        self
    }

    /// The same for ARM64, where a hook takes the place of one instruction and counts as eight bytes.
    #[must_use]
    pub fn arm64(mut self) -> Build {
        self.arm64 = true;
        self.link.push("/machine:arm64".to_owned());
        self
    }

    /// The same with calls through pointers checked (Control Flow Guard).
    #[must_use]
    pub fn guarded(mut self) -> Build {
        self.compile.extend(words("-Xclang -cfguard"));
        self.link.push("/guard:cf".to_owned());
        self
    }

    /// What `llvm-dlltool` calls the machine.
    fn library(&self) -> &'static str {
        match (self.narrow, self.arm64) {
            (true, _) => "i386",
            (_, true) => "arm64",
            _ => "i386:x86-64",
        }
    }

    fn target(&self) -> &'static str {
        match (self.narrow, self.arm64) {
            (true, _) => "--target=i686-windows-msvc",
            (_, true) => "--target=aarch64-windows-msvc",
            _ => "--target=x86_64-windows-msvc",
        }
    }

    /// The same with further words for the compiler.
    #[must_use]
    pub fn with(mut self, compile: &str) -> Build {
        self.compile.extend(words(compile));
        self
    }
}

/// A folder of one test; it goes when the test has passed, and stays for a look otherwise.
#[derive(Debug)]
pub struct Folder(PathBuf);

impl Folder {
    /// Makes it; `name` is that of the test.
    #[must_use]
    pub fn new(name: &str) -> Folder {
        let own = format!("invivo-windows-{}-{name}", std::process::id());
        Folder(std::env::temp_dir().join(own))
    }
}

impl std::ops::Deref for Folder {
    type Target = Path;

    fn deref(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            // A test that built nothing has none.
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }
}

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

/// A library that was built, and the folder that holds its PDB file.
#[derive(Clone, Debug)]
pub struct Library {
    /// The DLL.
    pub path: PathBuf,
    /// Its PDB file.
    pub pdb: PathBuf,
}

impl Library {
    /// Reads it.
    ///
    /// # Errors
    /// When it is no Windows image.
    pub fn image(&self) -> Result<PeImage> {
        let bytes = std::fs::read(&self.path)?;
        PeImage::parse(Arc::from(bytes)).with_context(|| format!("{}", self.path.display()))
    }

    /// Reads it with its PDB file, as comparisons want it.
    ///
    /// # Errors
    /// When one of them cannot be read, or they do not belong together.
    pub fn view(&self) -> Result<Image> {
        let pdb = Pdb::parse(&std::fs::read(&self.pdb)?)?;
        Ok(Image::from_pe(&self.image()?, &pdb)?)
    }
}

/// Builds the library `program` (a folder in `programs`) below `folder`.
///
/// # Errors
/// When a tool is missing or fails.
pub fn build(folder: &Path, name: &str, program: &str, how: &Build) -> Result<Library> {
    let place = folder.join(name);
    std::fs::create_dir_all(&place)?;
    let sources = programs().join(program);
    let mut objects = Vec::new();
    let mut files: Vec<PathBuf> = std::fs::read_dir(&sources)?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<_, _>>()?;
    files.sort();
    for source in files {
        let is = |ending: &str| source.extension().is_some_and(|found| found == ending);
        if is("rs") {
            objects.push(rust_object(&place, &source, how)?);
            continue;
        }
        let plus = is("cpp");
        if !plus && !is("c") {
            continue;
        }
        let object = source.with_extension("obj");
        let object = place.join(object.file_name().context("a name")?);
        let name = if plus { "clang++" } else { "clang" };
        let mut clang = Command::new(format!("{name}-{LLVM}"));
        clang
            .args(["-c", "-O2", "-g", how.target()])
            .args(["-gcodeview", "-ffunction-sections", "-fdata-sections"])
            .arg("-fno-stack-protector")
            .args(&how.compile);
        if plus {
            let describes = how.compile.iter().any(|word| word == "-frtti");
            clang.args((!describes).then_some("-fno-rtti"));
            let catches = how.compile.iter().any(|word| word == "-fcxx-exceptions");
            clang.args((!catches).then_some("-fno-exceptions"));
        }
        if how.odd.is_empty() {
            clang.arg("-o").arg(&object).arg(&source);
            run(&mut clang, "clang-22")?;
        } else {
            let text = object.with_extension("s");
            clang.args(["-S", "-o"]).arg(&text).arg(&source);
            run(&mut clang, "clang-22")?;
            std::fs::write(&text, shifted(&std::fs::read_to_string(&text)?, &how.odd)?)?;
            let mut clang = Command::new(format!("clang-{LLVM}"));
            clang.args(["-c", how.target(), "-o"]);
            clang.arg(&object).arg(&text);
            run(&mut clang, "clang-22")?;
        }
        objects.push(object);
    }
    if !how.imports.is_empty() {
        objects.push(import_library(
            &place,
            "kernel32",
            &how.imports,
            how.library(),
        )?);
    }
    if !how.runtime.is_empty() {
        objects.push(import_library(
            &place,
            "vcruntime140",
            &how.runtime,
            how.library(),
        )?);
    }
    if how.reversed {
        objects.reverse();
    }
    let (path, pdb) = (
        place.join(format!("{program}.dll")),
        place.join(format!("{program}.pdb")),
    );
    let mut lld = Command::new(linker()?);
    lld.args([
        "-flavor",
        "link",
        "/nologo",
        "/dll",
        "/entry:_DllMainCRTStartup",
    ])
    .args([
        "/nodefaultlib",
        "/debug:full",
        "/Brepro",
        "/release",
        "/opt:noref,noicf",
    ])
    .arg("/pdbaltpath:%_PDB%")
    .args(&how.link)
    .arg(format!("/out:{}", path.display()))
    .arg(format!("/pdb:{}", pdb.display()))
    .args(&objects);
    run(&mut lld, "the Rust toolchain's linker")?;
    Ok(Library { path, pdb })
}

/// The text for the assembler with seven bytes of padding before some functions, as far as they are in
/// this file, each of which the compiler puts on a boundary of 16 bytes.
fn shifted(text: &str, functions: &[&str]) -> Result<String> {
    let mut text = text.to_owned();
    for function in functions {
        let label = format!("\n{function}:");
        if text.matches(&label).count() > 1 {
            bail!("the function {function} is there more than once");
        }
        let padding = "\n\t.byte 0xcc, 0xcc, 0xcc, 0xcc, 0xcc, 0xcc, 0xcc";
        text = text.replace(&label, &format!("{padding}{label}"));
    }
    Ok(text)
}

/// Compiles a file of Rust that uses no library by the toolchain's own compiler.
fn rust_object(place: &Path, source: &Path, how: &Build) -> Result<PathBuf> {
    let object = place.join("rust.obj");
    let target = match how.arm64 {
        true => "aarch64-pc-windows-msvc",
        false => "x86_64-pc-windows-msvc",
    };
    let mut rustc = Command::new("rustc");
    // Without it a stable compiler takes no source that goes without its library.
    rustc.env("RUSTC_BOOTSTRAP", "1");
    rustc
        .args([
            "--emit=obj",
            "--edition=2024",
            "-O",
            "-g",
            "--target",
            target,
        ])
        .args([
            "-Ccodegen-units=1",
            "-Cpanic=abort",
            "--check-cfg=cfg(fixed)",
        ]);
    for word in &how.compile {
        if word == "-DFIXED" {
            rustc.args(["--cfg", "fixed"]);
        } else if word == "-fms-hotpatch" && !how.arm64 {
            // Six bytes before each function and two at its begin, as it says for C.
            rustc.arg("-Zpatchable-function-entry=8,6");
        } else if let Some(list) = word.strip_prefix("-fms-secure-hotpatch-functions-list=") {
            rustc.arg(format!(
                "-Cllvm-args=--ms-secure-hotpatch-functions-list={list}"
            ));
        }
    }
    run(rustc.arg("-o").arg(&object).arg(source), "rustc")?;
    Ok(object)
}

/// A library from which the linker takes imports of a library of Windows.
fn import_library(place: &Path, of: &str, names: &[&str], machine: &str) -> Result<PathBuf> {
    let [list, library] = ["def", "lib"].map(|ending| place.join(of).with_extension(ending));
    std::fs::write(
        &list,
        format!("LIBRARY {of}.dll\nEXPORTS\n{}\n", names.join("\n")),
    )?;
    let mut dlltool = Command::new(format!("llvm-dlltool-{LLVM}"));
    // Names of x86 end with how much is on the stack, by which libraries of Windows do not call them.
    dlltool.args((machine == "i386").then_some("--kill-at"));
    dlltool
        .args(["-m", machine, "-d"])
        .arg(list)
        .arg("-l")
        .arg(&library);
    run(&mut dlltool, "llvm-dlltool-22")?;
    Ok(library)
}

/// Builds `NAME.dll` of the folder `classic` for x86.
///
/// # Errors
/// When a tool is missing or fails.
pub fn classic(folder: &Path, name: &str) -> Result<PeImage> {
    std::fs::create_dir_all(folder)?;
    let source = programs().join("classic").join(format!("{name}.c"));
    let (object, path) = (
        folder.join(format!("{name}.obj")),
        folder.join(format!("{name}.dll")),
    );
    let mut clang = Command::new(format!("clang-{LLVM}"));
    clang
        .args(["--target=i686-windows-msvc", "-c", "-O2", "-g"])
        .args(["-gcodeview", "-ffunction-sections", "-fms-hotpatch"])
        .args(["-fno-omit-frame-pointer"])
        .args(["-fno-stack-protector", "-mno-sse", "-o"])
        .arg(&object)
        .arg(source);
    run(&mut clang, "clang-22")?;
    let mut lld = Command::new(linker()?);
    lld.args(["-flavor", "link", "/nologo", "/dll", "/machine:x86"])
        .args(["/safeseh:no", "/entry:_DllMainCRTStartup", "/nodefaultlib"])
        .args(["/Brepro", "/release", "/functionpadmin:5"])
        .arg("/opt:noref,noicf")
        .arg(format!("/out:{}", path.display()))
        .arg(&object);
    run(&mut lld, "the Rust toolchain's linker")?;
    Ok(PeImage::parse(Arc::from(std::fs::read(&path)?))?)
}

/// Builds a program for Windows that loads a library and says what its functions answer.
///
/// # Errors
/// When a tool is missing or fails.
pub fn asker(folder: &Path) -> Result<PathBuf> {
    let (object, program) = (folder.join("asker.obj"), folder.join("asker.exe"));
    let mut clang = Command::new(format!("clang-{LLVM}"));
    clang
        .args(["--target=x86_64-windows-msvc", "-c", "-O2"])
        .args(["-ffreestanding", "-fno-stack-protector", "-o"])
        .arg(&object)
        .arg(programs().join("asker/asker.c"));
    run(&mut clang, "clang-22")?;
    let imports = [
        "GetStdHandle",
        "ReadFile",
        "WriteFile",
        "GetCommandLineA",
        "LoadLibraryA",
        "FreeLibrary",
        "GetCurrentProcessId",
        "GetProcAddress",
        "RtlLookupFunctionEntry",
        "ExitProcess",
        "VirtualQuery",
    ];
    let imports = import_library(folder, "kernel32", &imports, "i386:x86-64")?;
    let mut lld = Command::new(linker()?);
    lld.args(["-flavor", "link", "/nologo", "/nodefaultlib"])
        .args(["/entry:start", "/subsystem:console"])
        .arg(format!("/out:{}", program.display()))
        .arg(&object)
        .arg(imports);
    run(&mut lld, "the Rust toolchain's linker")?;
    Ok(program)
}

/// Builds the program of 32 bits that runs x86 images.
///
/// # Errors
/// When a tool is missing or fails.
pub fn helper(folder: &Path) -> Result<PathBuf> {
    std::fs::create_dir_all(folder)?;
    let (object, program) = (folder.join("helper.o"), folder.join("helper"));
    let mut clang = Command::new(format!("clang-{LLVM}"));
    clang
        .args(["--target=i686-linux-gnu", "-c", "-O2", "-ffreestanding"])
        .args(["-fno-stack-protector", "-fno-pic", "-mno-sse", "-o"])
        .arg(&object)
        .arg(programs().join("narrow/helper.c"));
    run(&mut clang, "clang-22")?;
    let mut lld = Command::new(linker()?);
    lld.args(["-flavor", "gnu", "-m", "elf_i386", "-static", "-o"])
        .arg(&program)
        .arg(&object);
    run(&mut lld, "the Rust toolchain's linker")?;
    Ok(program)
}

fn programs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("programs")
}

/// Compares two builds and makes a final image of the fixed one.
///
/// # Errors
/// When it is refused, with the reasons.
pub fn final_image(base: &Library, fixed: &Library, sequence: u32) -> Result<PeImage> {
    let (old, new) = (base.view()?, fixed.view()?);
    let plan = invivo_patch::plan_final(&Comparison::new(&old, &new))
        .map_err(|refused| anyhow::anyhow!("{refused:?}"))?;
    let (old, new) = (base.image()?, fixed.image()?);
    let metadata = hpat::build(&old, &new, &plan, sequence)?;
    let made = PeImage::parse(hpat::place(&new, &metadata)?.file)?;
    let options = hpat::Options {
        base: Some(&old),
        capacity: None,
    };
    let report = hpat::validate(&made, &options);
    if !report.is_sound() {
        bail!("{:?}", report.findings);
    }
    Ok(made)
}

/// Runs `llvm-readobj` on a file, as a reader that knows nothing of ours.
///
/// # Errors
/// When it fails.
pub fn readobj(words: &[&str], file: &Path) -> Result<String> {
    let mut command = Command::new(format!("llvm-readobj-{LLVM}"));
    command.args(words).arg(file);
    run(&mut command, "llvm-readobj-22")
}

/// `rust-lld`, which comes with every Rust toolchain for Linux.
fn linker() -> Result<PathBuf> {
    let ask = |what: &str| -> Result<String> {
        let mut rustc = Command::new("rustc");
        let text = run(rustc.args(["--print", what]), "rustc")?;
        Ok(text.trim().to_owned())
    };
    let path = Path::new(&ask("sysroot")?)
        .join("lib/rustlib")
        .join(ask("host-tuple")?)
        .join("bin/rust-lld");
    if !path.is_file() {
        bail!(
            "{} is missing; toolchains that rustup installs have it",
            path.display()
        );
    }
    Ok(path)
}

fn run(command: &mut Command, tool: &str) -> Result<String> {
    let output = command
        .output()
        .with_context(|| format!("{tool} is not installed; cargo xtask test installs it"))?;
    if !output.status.success() {
        bail!(
            "{tool} failed:\n{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
