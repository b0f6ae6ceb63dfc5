//! What commands take that look at processes or change them.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use invivo_xen::Name;

use super::selectors::one_of;
use super::xen::{name, rendezvous};
use super::{Selectors, Targets};

/// Which processes.
#[derive(Debug, Args)]
pub(crate) struct Processes {
    /// A process; may be given several times.
    #[arg(short, long = "pid", value_name = "PID", required = true,
          value_parser = clap::value_parser!(i32).range(1..))]
    pub(crate) pid: Vec<i32>,
}

#[derive(Debug, Args)]
pub(crate) struct Plan {
    /// The patch, or a payload for the Xen hypervisor below, which needs no process.
    pub(crate) patch: PathBuf,
    #[command(flatten)]
    pub(crate) targets: Targets,
}

/// What callers of replaced functions may see.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Consistency {
    /// Calls made from now on run new code; frames inside old code finish there. Stops nobody.
    Entry,
    /// The switch happens when no thread is inside what is replaced.
    Quiescent,
}

/// What may be done for it.
#[derive(Debug, Args)]
pub(crate) struct Effort {
    /// How many seconds to wait for another tool, or for threads that are in the way.
    #[arg(long, value_name = "SECONDS", default_value_t = 10.0, value_parser = seconds)]
    pub(crate) timeout: f64,
    /// How many MiB of a process's memory may be searched while its threads stand: for coroutines
    /// that wait inside what is replaced [default: 64], and for addresses of what is to be
    /// unloaded [default: 256].
    #[arg(long, value_name = "MIB", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) search: Option<u32>,
}

#[derive(Debug, Args)]
pub(crate) struct Apply {
    /// The patch, or a payload for the Xen hypervisor below, which needs no process.
    pub(crate) patch: PathBuf,
    #[command(flatten)]
    pub(crate) targets: Targets,
    /// What callers of replaced functions may see; a patch that changes how functions are
    /// called through pointers, or replaces one whose own loop leads to its first instruction, is
    /// always `quiescent`, and so is a payload for Xen.
    #[arg(long, value_enum, default_value = "entry")]
    pub(crate) consistency: Consistency,
    #[command(flatten)]
    pub(crate) effort: Effort,
    /// Only say what would be done, as `invivo plan` does.
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Say on standard error how long each step took in each process.
    #[arg(long)]
    pub(crate) time: bool,
    #[command(flatten)]
    pub(crate) payload: OfPayload,
}

/// What is said of a payload for Xen alone.
#[derive(Debug, Args)]
pub(crate) struct OfPayload {
    /// For a payload: what it is to be called [default: the file's name without its ending].
    #[arg(long, value_parser = name)]
    pub(crate) name: Option<Name>,
    /// Refuse the patch or payload unless it was signed by the key of this certificate; may be given
    /// several times.
    #[arg(long, value_name = "FILE")]
    pub(crate) cert: Vec<PathBuf>,
    /// For a payload: how many milliseconds the processors may take to meet, in each attempt; the
    /// domains stand still meanwhile [default: 30].
    #[arg(long, value_name = "MILLISECONDS", value_parser = rendezvous())]
    pub(crate) rendezvous: Option<u32>,
}

#[derive(Debug, Args)]
#[command(group(one_of(&["xen"])))]
pub(crate) struct Revert {
    /// The patch's name, or with --xen the payload's [default: every live patch].
    pub(crate) name: Option<String>,
    /// Go back to this patch, which was live before, instead of to none: in one switch.
    #[arg(long, value_name = "NAME", conflicts_with = "name")]
    pub(crate) to: Option<String>,
    /// Give the memory of patches that were taken back, too, where it is proved that nobody needs it.
    #[arg(long, conflicts_with = "to")]
    pub(crate) unload: bool,
    /// Take a payload back in the Xen hypervisor below, and nothing in processes.
    #[arg(long, requires = "name",
          conflicts_with_all = ["pid", "exe", "comm", "unit", "build_id", "all", "to"])]
    pub(crate) xen: bool,
    #[command(flatten)]
    pub(crate) targets: Targets,
    #[command(flatten)]
    pub(crate) effort: Effort,
    /// With --xen: how many milliseconds the processors may take to meet, in each attempt; the
    /// domains stand still meanwhile [default: 30].
    // What is required is not missed where something rules it out, so that is ruled out as well.
    #[arg(long, value_name = "MILLISECONDS", requires = "xen", value_parser = rendezvous(),
          conflicts_with_all = ["pid", "exe", "comm", "unit", "build_id", "all"])]
    pub(crate) rendezvous: Option<u32>,
}

#[derive(Debug, Args)]
pub(crate) struct Blocking {
    /// The patch.
    pub(crate) patch: PathBuf,
    #[command(flatten)]
    pub(crate) processes: Processes,
    #[command(flatten)]
    pub(crate) effort: Effort,
}

#[derive(Debug, Args)]
#[command(group(one_of(&[])))]
pub(crate) struct Recover {
    #[command(flatten)]
    pub(crate) targets: Targets,
    #[command(flatten)]
    pub(crate) effort: Effort,
}

#[derive(Debug, Args)]
pub(crate) struct Status {
    /// Patches, programs and libraries, or payloads for the Xen hypervisor below [default: every
    /// image that is patched somewhere].
    pub(crate) files: Vec<PathBuf>,
    /// Go on and tell what changes; look again after so many seconds [default: 2].
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "2",
          require_equals = true, value_parser = seconds)]
    pub(crate) watch: Option<f64>,
    #[command(flatten)]
    pub(crate) selectors: Selectors,
}

#[derive(Debug, Args)]
pub(crate) struct List {
    /// Only this process; may be given several times [default: every process that can be read].
    #[arg(short, long = "pid", value_name = "PID", value_parser = clap::value_parser!(i32).range(1..))]
    pub(crate) pid: Vec<i32>,
}

#[derive(Debug, Args)]
pub(crate) struct Symbols {
    /// Only this patch [default: all; for a file the one that is live].
    pub(crate) patch: Option<String>,
    /// The process.
    #[arg(short, long = "pid", value_name = "PID", value_parser = clap::value_parser!(i32).range(1..))]
    pub(crate) pid: i32,
    /// Write a file for a debugger's `add-symbol-file`; otherwise lines for `perf` are printed.
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
}

pub(super) fn seconds(text: &str) -> Result<f64, String> {
    const LONGEST: f64 = 86_400.0;
    let seconds: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    if (0.0..=LONGEST).contains(&seconds) {
        Ok(seconds)
    } else {
        Err(format!("between 0 and {LONGEST} seconds"))
    }
}
