//! What `invivo build` takes.

use std::path::PathBuf;

use clap::{Arg, ArgMatches, Args, Command, FromArgMatches, ValueEnum};
use invivo_format::hotp1::HookShape;
use invivo_patch::Moment;

use super::images::{Judged, Pair};
use super::xen::SpliceName;

/// What says something about two builds, where a trace needs none.
const NOT_TRACED: [&str; 20] = [
    "base",
    "fixed",
    "base_debug",
    "fixed_debug",
    "debug_directory",
    "keep_line_changes",
    "time",
    "allow",
    "because",
    "format",
    "keep_layout",
    "hook",
    "emit_functions_file",
    "functions_file",
    "functions_list",
    "object",
    "splice",
    "program",
    "label",
    "callout",
];

/// The two builds; none where `--trace` is given.
#[derive(Debug)]
pub(crate) struct Builds(pub(crate) Option<Pair>);

impl Builds {
    fn optional(command: Command) -> Command {
        let unless_traced = |arg: Arg| arg.required(false).required_unless_present("trace");
        command
            .mut_arg("base", unless_traced)
            .mut_arg("fixed", unless_traced)
    }
}

impl Args for Builds {
    fn augment_args(command: Command) -> Command {
        Builds::optional(Pair::augment_args(command))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Builds::optional(Pair::augment_args_for_update(command))
    }
}

impl FromArgMatches for Builds {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Builds, clap::Error> {
        Builds::from_arg_matches_mut(&mut matches.clone())
    }

    fn from_arg_matches_mut(matches: &mut ArgMatches) -> Result<Builds, clap::Error> {
        if matches.contains_id("trace") {
            return Ok(Builds(None));
        }
        Pair::from_arg_matches_mut(matches).map(|pair| Builds(Some(pair)))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Builds::from_arg_matches(matches)?;
        Ok(())
    }
}

#[derive(Debug, Args)]
#[command(
    override_usage = "invivo build [OPTIONS] --output <PATCH> <BASE> <FIXED>\n       invivo build --trace <FUNCTION>... --xen <FILE> --output <PATCH>"
)]
pub(crate) struct Build {
    #[command(flatten)]
    pub(crate) builds: Builds,
    /// Instead of a fix: make a payload for Xen that counts how often these functions are entered,
    /// by the names of Xen's own table; a static one is dir/file.c#name. The counts are on Xen's
    /// console once it is reverted.
    #[arg(long, value_name = "FUNCTION", num_args = 1.., requires = "xen", conflicts_with_all = NOT_TRACED)]
    pub(crate) trace: Vec<String>,
    #[command(flatten)]
    pub(crate) judged: Judged,
    /// Where to write the patch.
    #[arg(short, long, value_name = "PATCH")]
    pub(crate) output: PathBuf,
    /// What is written; of Windows images the fixed build itself, as a patch of modern Windows or
    /// (`hotp1`) as a patch module of older ones, or (`cold`) the base with the fix in it.
    #[arg(long, value_enum, default_value = "elf")]
    pub(crate) format: Format,
    /// With `--format final`: keep the base as it is, and put the fixed functions behind it, instead
    /// of a copy of the fixed build. Nothing but what the patch replaces is another one then.
    #[arg(long)]
    pub(crate) keep_layout: bool,
    /// How functions are hooked in a patch module or cold patch of older Windows [default: the
    /// first that each function has room for].
    #[arg(long, value_enum, value_name = "HOOK")]
    pub(crate) hook: Option<HookName>,
    /// For Windows images: write the names of all functions that must be compiled for hot patching,
    /// one per line, as `-fms-secure-hotpatch-functions-file=FILE` reads them.
    #[arg(long, value_name = "FILE")]
    pub(crate) emit_functions_file: Option<PathBuf>,
    /// For Windows images: the file that the fixed build was compiled with, one function per line;
    /// what changed is held against it.
    #[arg(long, value_name = "FILE")]
    pub(crate) functions_file: Option<PathBuf>,
    /// For Windows images: the functions that the fixed build was compiled for, separated by commas;
    /// together with those of --functions-file and --object.
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    pub(crate) functions_list: Vec<String>,
    /// For Windows images: an object file of the fixed build, which tells what was compiled for hot
    /// patching; may be given several times. LLVM's linker leaves that out of PDB files.
    #[arg(long, value_name = "FILE")]
    pub(crate) object: Vec<PathBuf>,
    /// For object files: the program that was linked of the base's and others, and that runs. Its
    /// code is held against the base's object files, and the patch is for it.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["xen", "splice"])]
    pub(crate) program: Option<PathBuf>,
    /// For --format livepatch and --trace: the xen-syms of the hypervisor that runs, or for the
    /// former its .map file. With it, the base's functions are held against the hypervisor's
    /// code, and what is static in a file is found.
    #[arg(long, value_name = "FILE")]
    pub(crate) xen: Option<PathBuf>,
    /// For --format livepatch and --trace: the build id of the hypervisor that runs, if it is not that of
    /// --xen: its digits, or the xen.efi that was booted.
    #[arg(long, value_name = "ID")]
    pub(crate) xen_id: Option<String>,
    /// For --format livepatch and --trace: the build id of what is applied last, as digits or as that payload's
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
    Final,
    /// For the disk: of Windows images the base with the fixed functions behind it, as older
    /// Windows had it, where FIXED may be a patch module, too; of others the same as `final`.
    Cold,
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
    /// A jump over the first instructions, five bytes of them.
    Jump,
    /// A jump over one instruction of five bytes or more in the middle of the function, before which
    /// both builds are the same.
    Middle,
}

impl From<HookName> for HookShape {
    fn from(name: HookName) -> HookShape {
        match name {
            HookName::Short => HookShape::Short,
            HookName::Triple => HookShape::Triple,
            HookName::Indirect => HookShape::Indirect,
            HookName::Jump => HookShape::Jump,
            HookName::Middle => HookShape::Middle,
        }
    }
}

fn moment_and_name(text: &str) -> Result<(Moment, String), String> {
    let wanted = "a moment and a function are wanted, such as before-apply=is_ready";
    let (moment, name) = text.split_once('=').ok_or(wanted)?;
    let found = Moment::ALL
        .into_iter()
        .find(|known| known.to_string() == moment);
    Ok((found.ok_or(wanted)?, name.to_owned()))
}
