//! What commands take that touch no process.

use std::path::PathBuf;

use clap::builder::NonEmptyStringValueParser;
use clap::{Args, ValueEnum};
use invivo_compare::Rule;
use invivo_format::hotp1::HookShape;
use invivo_format::livepatch::XenVersion;
use invivo_patch::Moment;

use super::xen::SpliceName;
use crate::timing;

#[derive(Debug, Args)]
pub(crate) struct Audit {
    /// The program or library.
    pub(crate) image: PathBuf,
    /// The file with its symbols, if it was stripped.
    #[arg(long, value_name = "FILE")]
    pub(crate) debug: Option<PathBuf>,
    /// Where debug files are installed; may be given several times.
    #[arg(long, value_name = "DIR", default_value = "/usr/lib/debug")]
    pub(crate) debug_directory: Vec<PathBuf>,
    /// List the functions, not only how many there are.
    #[arg(long)]
    pub(crate) functions: bool,
    /// Only functions whose name contains this; lists them.
    #[arg(long, value_name = "TEXT")]
    pub(crate) name: Option<String>,
}

/// Two builds of one program.
#[derive(Debug, Args)]
pub(crate) struct Pair {
    /// The program or library that is running; or an object file of its build, or a folder
    /// with object files (`*.o`, also in folders below it).
    pub(crate) base: PathBuf,
    /// An ordinary build of it that has the fix; or the object file or folder of that build.
    pub(crate) fixed: PathBuf,
    /// The file with the base's symbols, if the base was stripped.
    #[arg(long, value_name = "FILE")]
    pub(crate) base_debug: Option<PathBuf>,
    /// The file with the fixed build's symbols, if it was stripped.
    #[arg(long, value_name = "FILE")]
    pub(crate) fixed_debug: Option<PathBuf>,
    /// Where debug files are installed; may be given several times.
    #[arg(long, value_name = "DIR", default_value = "/usr/lib/debug")]
    pub(crate) debug_directory: Vec<PathBuf>,
    /// Replace functions in which only line numbers moved (`__LINE__`), too.
    #[arg(long)]
    pub(crate) keep_line_changes: bool,
    /// Say on standard error how long each phase took, and how much memory all of it.
    #[arg(long)]
    pub(crate) time: bool,
}

impl Pair {
    /// How they are compared.
    pub(crate) fn options(&self) -> invivo_compare::Options {
        invivo_compare::Options {
            keep_line_changes: self.keep_line_changes,
            clock: self.time.then_some(timing::processor_time),
        }
    }
}

/// Findings that a person has judged.
#[derive(Debug, Args)]
pub(crate) struct Judged {
    /// A refusal that does no harm, as its rule and its subject; may be given several times.
    #[arg(long, value_name = "RULE=NAME", requires = "because", value_parser = rule_and_name)]
    pub(crate) allow: Vec<(Rule, String)>,
    /// Why it does no harm: one reason for all that is allowed, or one for each.
    #[arg(long, value_name = "WHY", requires = "allow", value_parser = NonEmptyStringValueParser::new())]
    pub(crate) because: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Diff {
    #[command(flatten)]
    pub(crate) pair: Pair,
    #[command(flatten)]
    pub(crate) judged: Judged,
    /// Also write a report for a browser: one file that shows the instructions side by side.
    #[arg(long, value_name = "FILE")]
    pub(crate) html: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Build {
    #[command(flatten)]
    pub(crate) pair: Pair,
    #[command(flatten)]
    pub(crate) judged: Judged,
    /// Where to write the patch.
    #[arg(short, long, value_name = "PATCH")]
    pub(crate) output: PathBuf,
    /// What is written; of Windows images always the fixed build itself, as a patch of modern
    /// Windows or (`hotp1`) as a patch module of older ones.
    #[arg(long, value_enum, default_value = "elf")]
    pub(crate) format: Format,
    /// With `--format final`: keep the base as it is, and put the fixed functions behind it, instead
    /// of a copy of the fixed build. Nothing but what the patch replaces is another one then.
    #[arg(long)]
    pub(crate) keep_layout: bool,
    /// How functions are hooked in a patch module of older Windows [default: the first that each
    /// function has room for].
    #[arg(long, value_enum, value_name = "HOOK")]
    pub(crate) hook: Option<HookName>,
    /// For Windows images: write the names of all functions that must be compiled for hot patching,
    /// one per line, as `-fms-secure-hotpatch-functions-file=FILE` reads them.
    #[arg(long, value_name = "FILE")]
    pub(crate) emit_functions_file: Option<PathBuf>,
    /// For --format livepatch: the xen-syms of the hypervisor that runs, or its .map file. With
    /// it, the base's functions are held against the hypervisor's code, and what is static in a
    /// file is found.
    #[arg(long, value_name = "FILE")]
    pub(crate) xen: Option<PathBuf>,
    /// For --format livepatch: the build id of the hypervisor that runs, if it is not that of
    /// --xen: its digits, or the xen.efi that was booted.
    #[arg(long, value_name = "ID")]
    pub(crate) xen_id: Option<String>,
    /// For --format livepatch: the build id of what is applied last, as digits or as that payload's
    /// file [default: the hypervisor's].
    #[arg(long, value_name = "ID")]
    pub(crate) depends: Option<String>,
    /// For --format livepatch with the --xen of an xen-syms: lead what leads to a replaced function
    /// to the new one, calls and jumps (`callers`), pointers (`tables`), or both. The jump at its
    /// entry is left out where nothing else can lead there.
    #[arg(long, value_name = "WHAT", value_enum, value_delimiter = ',')]
    pub(crate) splice: Vec<SpliceName>,
    /// The patch's name [default: the output's file name without its ending].
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// What it fixes; may be given several times.
    #[arg(long, value_name = "CVE")]
    pub(crate) label: Vec<String>,
    /// Its place among the patches of the program: each replaces those with lower numbers.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) sequence: u32,
    /// A function that only the fixed build has, and that is called in the process at one of
    /// the moments before-apply, after-apply, before-revert, after-revert, as `int f(void)`. The two
    /// before refuse with an answer other than 0. May be given several times.
    #[arg(long, value_name = "MOMENT=FUNCTION", value_parser = moment_and_name)]
    pub(crate) callout: Vec<(Moment, String)>,
}

/// How a patch is written down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// A patch for running processes.
    Elf,
    /// The fixed build itself with the patch inside: for the disk, and for running processes.
    #[value(alias = "cold")]
    Final,
    /// A payload for the Xen hypervisor, from object files.
    Livepatch,
    /// A patch module for Windows Server 2003 to 7: the section `.hotp1` says what is hooked.
    Hotp1,
}

/// How functions are hooked in a patch module of older Windows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum HookName {
    /// Two bytes at the function, and a jump in five bytes of padding before it.
    Short,
    /// Two bytes at the function, an indirect jump and an address in 14 bytes of padding before it.
    Triple,
    /// An indirect jump over the first instruction, and an address in eight bytes of padding.
    Indirect,
    /// A jump over the first instruction, which must have five bytes.
    Jump,
}

impl From<HookName> for HookShape {
    fn from(name: HookName) -> HookShape {
        match name {
            HookName::Short => HookShape::Short,
            HookName::Triple => HookShape::Triple,
            HookName::Indirect => HookShape::Indirect,
            HookName::Jump => HookShape::Jump,
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct Install {
    /// The final image, as `invivo build --format final` writes it.
    pub(crate) image: PathBuf,
    /// The file that is exchanged: the base, exactly as the final image was built for it.
    pub(crate) file: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct Uninstall {
    /// The file that was exchanged.
    pub(crate) file: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct Inspect {
    /// The patch, a payload for Xen, or a Windows program, library or driver.
    pub(crate) patch: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct Check {
    /// A Windows image with hot-patch metadata, or a payload for Xen.
    pub(crate) image: PathBuf,
    /// The build that it is for; without it, its side is not looked at.
    #[arg(long, value_name = "FILE")]
    pub(crate) base: Option<PathBuf>,
    /// How many functions a machine has room for: 512 for each page of `HotPatchTableSize`.
    #[arg(long, value_name = "N", default_value_t = 512)]
    pub(crate) capacity: u32,
    /// For a payload: the hypervisor's `xen-syms`, or its `.map` file, which tells less.
    #[arg(long, value_name = "FILE")]
    pub(crate) xen: Option<PathBuf>,
    /// For a payload: the release of Xen, such as 4.17 [default: all of them].
    #[arg(long, value_name = "VERSION")]
    pub(crate) xen_version: Option<XenVersion>,
    /// For a payload: the hypervisor's `xen.efi`, where it is booted by UEFI; it has a build id of
    /// its own.
    #[arg(long, value_name = "FILE")]
    pub(crate) efi: Option<PathBuf>,
    /// For a payload: another one that is uploaded and applied before; may be given several times,
    /// in that order.
    #[arg(long, value_name = "PAYLOAD")]
    pub(crate) after: Vec<PathBuf>,
}

fn rule_and_name(text: &str) -> Result<(Rule, String), String> {
    let (rule, name) = text
        .split_once('=')
        .ok_or("a rule and a subject are wanted, such as R-INIT=counter")?;
    Ok((rule.parse()?, name.to_owned()))
}

fn moment_and_name(text: &str) -> Result<(Moment, String), String> {
    let wanted = "a moment and a function are wanted, such as before-apply=is_ready";
    let (moment, name) = text.split_once('=').ok_or(wanted)?;
    let found = Moment::ALL
        .into_iter()
        .find(|known| known.to_string() == moment);
    Ok((found.ok_or(wanted)?, name.to_owned()))
}
