//! The ways in which a program can be built.

use std::process::Command;

use anyhow::Result;

use crate::tool::{run, tools};

/// A family of compilers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Compiler {
    /// GNU.
    Gcc,
    /// LLVM.
    Clang,
}

/// A linker, as `-fuse-ld` names it, or [`WILD`].
pub type Linker = &'static str;

/// The one that compilers do not know by name.
pub const WILD: Linker = "wild";

/// All linkers that Debian has, and Wild.
pub const LINKERS: [Linker; 5] = ["bfd", "gold", "lld", "mold", WILD];

/// What tells a compiler to use a linker.
#[must_use]
pub fn use_linker(linker: &str) -> String {
    if linker == WILD {
        return format!("-B{}", tools().join("wild").display());
    }
    format!("-fuse-ld={linker}")
}

/// What kind of file comes out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A program that runs at any address.
    Pie,
    /// One at fixed addresses.
    Fixed,
    /// One at fixed addresses that needs no library.
    Static,
    /// One at any address that needs no library.
    StaticPie,
    /// A library.
    Shared,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Kind; 5] = [
        Kind::Pie,
        Kind::Fixed,
        Kind::Static,
        Kind::StaticPie,
        Kind::Shared,
    ];

    /// What the compiler must know.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Kind::Pie | Kind::StaticPie => "-fPIE",
            Kind::Fixed | Kind::Static => "-fno-pie",
            Kind::Shared => "-fPIC",
        }
    }

    /// What the linker must know.
    #[must_use]
    pub fn link(self) -> &'static str {
        match self {
            Kind::Pie => "-pie",
            Kind::Fixed => "-no-pie",
            Kind::Static => "-static",
            Kind::StaticPie => "-static-pie",
            Kind::Shared => "-shared",
        }
    }
}

/// Flags that change what the compiler makes of a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Feature {
    /// None.
    Plain,
    /// `-flto`.
    Lto,
    /// A section for each function and variable; what nobody needs is dropped.
    Sections,
    /// `endbr64` at each entry.
    ControlFlow,
    /// Room for hooks at each entry.
    Patchable,
    /// What Debian builds its packages with.
    Hardened,
}

impl Feature {
    /// All features.
    pub const ALL: [Feature; 6] = [
        Feature::Plain,
        Feature::Lto,
        Feature::Sections,
        Feature::ControlFlow,
        Feature::Patchable,
        Feature::Hardened,
    ];

    fn code(self) -> Result<Vec<String>> {
        Ok(owned(match self {
            Feature::Plain => &[],
            Feature::Lto => &["-flto"],
            Feature::Sections => &["-ffunction-sections", "-fdata-sections"],
            Feature::ControlFlow => &["-fcf-protection=full"],
            Feature::Patchable => &["-fpatchable-function-entry=16,14"],
            Feature::Hardened => return of_debian("CFLAGS"),
        }))
    }

    fn link(self) -> Result<Vec<String>> {
        Ok(owned(match self {
            Feature::Lto => &["-flto"],
            Feature::Sections => &["-Wl,--gc-sections"],
            Feature::ControlFlow => &["-Wl,-z,ibtplt"],
            Feature::Hardened => return of_debian("LDFLAGS"),
            Feature::Plain | Feature::Patchable => &[],
        }))
    }
}

fn owned(flags: &[&str]) -> Vec<String> {
    flags.iter().map(|flag| (*flag).to_owned()).collect()
}

fn of_debian(which: &str) -> Result<Vec<String>> {
    let mut command = Command::new("dpkg-buildflags");
    command
        .args(["--get", which])
        .env("DEB_BUILD_MAINT_OPTIONS", "hardening=+all");
    let flags = run(&mut command)?;
    // Whether the code is position independent is the kind's business; GCC is told by
    // files that clang does not know.
    let wanted = |flag: &&str| !flag.starts_with("-specs=") && *flag != "-O2";
    let flags = flags.split_whitespace().filter(wanted);
    Ok(flags.map(str::to_owned).collect())
}

/// One way to build a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Layout {
    /// The compilers.
    pub compiler: Compiler,
    /// `-O2` or another.
    pub level: &'static str,
    /// Flags that concern code.
    pub feature: Feature,
    /// What comes out.
    pub kind: Kind,
    /// What links it.
    pub linker: Linker,
    /// More flags for the compiler, about debug data.
    pub debug: &'static [&'static str],
}

impl Layout {
    /// What most programs are built like.
    #[must_use]
    pub fn usual(compiler: Compiler) -> Layout {
        Layout {
            compiler,
            level: "-O2",
            feature: Feature::Plain,
            kind: Kind::Pie,
            linker: "bfd",
            debug: &["-g"],
        }
    }

    /// Why no toolchain can build it; `None` if one can.
    #[must_use]
    pub fn impossible(&self) -> Option<&'static str> {
        let lto = self.feature == Feature::Lto;
        if self.kind == Kind::StaticPie && self.linker == "gold" {
            return Some("gold does not know --no-dynamic-linker");
        }
        if matches!(self.kind, Kind::Static | Kind::StaticPie) && self.linker == "mold" {
            // `_nl_current_LC_COLLATE` of the libc: `mov rax, -0x2a40f0`.
            return Some(
                "mold makes an address of the offset of a thread-local that nobody defines",
            );
        }
        match (self.compiler, self.linker) {
            (Compiler::Gcc, "lld") if lto => Some("lld does not read what gcc -flto writes"),
            (Compiler::Clang, "bfd" | "gold" | "mold") if lto => {
                Some("Debian has LLVM's linker plugin in a package of its own")
            }
            _ => None,
        }
    }

    /// Why more than the fix is found in it; `None` if nothing is. Nothing of the fix is missed.
    #[must_use]
    pub fn not_exact(&self) -> Option<&'static str> {
        // As the tables move against the code: `__libc_start_main` has one behind a branch.
        (self.kind == Kind::Static && self.linker == WILD)
            .then_some("tables of distances in a static glibc are not all known as such")
    }

    /// Flags to compile with.
    ///
    /// # Errors
    /// When a tool that knows them is missing.
    pub fn compile_flags(&self) -> Result<Vec<String>> {
        let mut flags = owned(&[self.level, self.kind.code()]);
        flags.extend(owned(self.debug));
        flags.extend(self.feature.code()?);
        Ok(flags)
    }

    /// Flags to link with.
    ///
    /// # Errors
    /// As [`Layout::compile_flags`].
    pub fn link_flags(&self) -> Result<Vec<String>> {
        let mut flags = owned(&[self.level, self.kind.link(), "-Wl,--build-id=sha1"]);
        flags.push(use_linker(self.linker));
        flags.extend(owned(self.debug));
        if self.feature == Feature::ControlFlow && matches!(self.linker, "gold" | "mold") {
            // These two make such stubs without being told, or not at all.
            return Ok(flags);
        }
        flags.extend(self.feature.link()?);
        Ok(flags)
    }
}
