//! What commands take that touch no process.

use std::path::PathBuf;

use clap::Args;
use clap::builder::NonEmptyStringValueParser;
use invivo_compare::Rule;
use invivo_format::livepatch::XenVersion;

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
pub(crate) struct Install {
    /// The final image, as `invivo build --format final` or `--format cold` writes it.
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
    /// The patch, a payload for Xen, a Windows program, library or driver, or an object file of a compiler
    /// for Windows (.obj).
    pub(crate) patch: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct Check {
    /// A Windows image with hot-patch metadata or patched on disk, a payload for Xen, or a patch for
    /// processes.
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
