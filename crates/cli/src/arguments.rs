//! The command line; help, man page and completions come from here.

use std::path::PathBuf;

use clap::builder::NonEmptyStringValueParser;
use clap::{Args, Parser, Subcommand, ValueEnum};
use invivo_compare::Rule;
use invivo_patch::Moment;

use crate::commands::explain::AnyRule;
use crate::timing;

const EXIT_CODES: &str = "\
Exit codes:
  0   done, or nothing to do
  1   refused: not safe, or does not match; the reasons are printed
  2   usage, or a file that cannot be read
  3   not now, trying again may work: blocked, busy, traced, stopped, timed out
  5   permission; the remedy is printed
  6   the process does not exist or ended meanwhile
  7   interrupted; the process is as it was
  8   the process may be inconsistent
  70  a defect in invivo";

/// Repairs native programs while they run.
///
/// Compares the program that is running with an ordinary build that has the fix,
/// writes a patch, makes it live in the running process, and can take it back.
#[derive(Debug, Parser)]
#[command(name = "invivo", version, after_long_help = EXIT_CODES, max_term_width = 100)]
pub(crate) struct Arguments {
    /// Print one JSON object on standard output instead of text.
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Print only data and errors.
    #[arg(short, long, global = true)]
    pub(crate) quiet: bool,
    /// Use colour.
    #[arg(long, global = true, value_enum, default_value = "auto")]
    pub(crate) color: Color,
    /// Show no progress.
    #[arg(long, global = true)]
    pub(crate) no_progress: bool,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// When to use colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Color {
    /// On a terminal.
    Auto,
    /// Also elsewhere.
    Always,
    /// Not at all.
    Never,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// How well can the functions of a program be hooked while it runs?
    #[command(
        after_help = "Examples:\n  invivo audit redis-server\n  invivo audit redis-server --name strlen"
    )]
    Audit(Audit),
    /// What changed between two builds, and may it be patched live?
    #[command(
        after_help = "Examples:\n  invivo diff base/redis-server fixed/redis-server\n  invivo diff base/redis-server fixed/redis-server --html report.html"
    )]
    Diff(Diff),
    /// Compare two builds and write a patch.
    #[command(
        after_help = "Examples:\n  invivo build base/redis-server fixed/redis-server -o fix.patch --label CVE-2024-31228\n  invivo build base/server fixed/server -o fix.patch --callout before-apply=is_ready\n  invivo build base/server fixed/server --format final -o server.final"
    )]
    Build(Build),
    /// Exchange a program or library on disk for its final image: what starts next is fixed.
    #[command(
        after_help = "Examples:\n  invivo build base/server fixed/server --format final -o server.final\n  invivo install server.final /usr/sbin/server"
    )]
    Install(Install),
    /// Give a program or library that was exchanged its old file back, byte for byte.
    #[command(after_help = "Example:\n  invivo uninstall /usr/sbin/server")]
    Uninstall(Uninstall),
    /// Show everything that is in a patch, or in a Windows image.
    #[command(after_help = "Examples:\n  invivo inspect fix.patch\n  invivo inspect server.dll")]
    Inspect(Inspect),
    /// Is the hot-patch metadata of a Windows image sound? Each rule (A01 to A31) is looked at.
    #[command(
        after_help = "Examples:\n  invivo check server_hotpatch.dll --base server.dll\n  invivo explain A11"
    )]
    Check(Check),
    /// Everything that apply would do, proved without stopping or changing anything.
    #[command(after_help = "Example:\n  invivo plan fix.patch -p $(pidof redis-server)")]
    Plan(Plan),
    /// Make a patch live in running processes.
    #[command(
        after_help = "Examples:\n  invivo apply fix.patch -p 1234\n  invivo apply fix.patch -p 1234 --consistency quiescent --timeout 30\n  invivo apply fix.patch --all"
    )]
    Apply(Apply),
    /// Make a patch live in the place of whichever is live, an earlier or a later one.
    #[command(
        after_help = "Examples:\n  invivo replace fix-1.patch -p 1234\n  invivo replace fix-1.patch -p 1234 --dry-run"
    )]
    Replace(Apply),
    /// Take a patch back, byte for byte.
    #[command(after_help = "Examples:\n  invivo revert -p 1234\n  invivo revert my-fix --all")]
    Revert(Revert),
    /// Which threads keep a quiescent apply waiting; stops all for a moment to look.
    #[command(after_help = "Example:\n  invivo blocking fix.patch -p 1234")]
    Blocking(Blocking),
    /// Finish or undo what a tool that died left; every apply and revert begins with it.
    #[command(after_help = "Example:\n  invivo recover -p 1234")]
    Recover(Recover),
    /// Which processes run an image that has a fix, which are patched, and why not; stops nothing.
    #[command(
        after_help = "Examples:\n  invivo status fix.patch\n  invivo status /usr/lib/x86_64-linux-gnu/libc.so.6 --watch"
    )]
    Status(Status),
    /// Which patches are live where; stops nothing.
    #[command(after_help = "Examples:\n  invivo list\n  invivo list -p 1234 --json")]
    List(List),
    /// What the code of live patches is called, for debuggers and profilers; stops nothing.
    #[command(
        after_help = "Examples:\n  invivo symbols -p 1234 -o fix.sym && gdb -p 1234 -ex 'add-symbol-file fix.sym'\n  invivo symbols -p 1234 > /tmp/perf-1234.map && perf report"
    )]
    Symbols(Symbols),
    /// What the rules mean that forbid a live patch, and those of Windows metadata.
    #[command(
        after_help = "Examples:\n  invivo explain\n  invivo explain R-INIT\n  invivo explain A11"
    )]
    Explain(Explain),
    /// Print the JSON schema of a command's output.
    #[command(after_help = "Example:\n  invivo schema diff")]
    Schema(Schema),
    /// Print a completion script for a shell.
    #[command(after_help = "Example:\n  invivo completions bash > /etc/bash_completion.d/invivo")]
    Completions(Completions),
    /// Print the manual page.
    #[command(after_help = "Example:\n  invivo man | man -l -")]
    Man,
}

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
    /// The program or library that is running.
    pub(crate) base: PathBuf,
    /// An ordinary build of it that has the fix.
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
    /// What is written.
    #[arg(long, value_enum, default_value = "elf")]
    pub(crate) format: Format,
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
    /// The patch, or a Windows program, library or driver.
    pub(crate) patch: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct Check {
    /// A Windows image with hot-patch metadata.
    pub(crate) image: PathBuf,
    /// The build that it is for; without it, its side is not looked at.
    #[arg(long, value_name = "FILE")]
    pub(crate) base: Option<PathBuf>,
    /// How many functions a machine has room for: 512 for each page of `HotPatchTableSize`.
    #[arg(long, value_name = "N", default_value_t = 512)]
    pub(crate) capacity: u32,
}

/// Which processes.
#[derive(Debug, Args)]
pub(crate) struct Processes {
    /// A process; may be given several times.
    #[arg(short, long = "pid", value_name = "PID", required = true,
          value_parser = clap::value_parser!(i32).range(1..))]
    pub(crate) pid: Vec<i32>,
}

/// Which processes are changed.
#[derive(Debug, Args)]
pub(crate) struct Targets {
    /// A process; may be given several times.
    #[arg(short, long = "pid", value_name = "PID", required_unless_present = "all",
          value_parser = clap::value_parser!(i32).range(1..))]
    pub(crate) pid: Vec<i32>,
    /// Every process that it concerns, those that start meanwhile too.
    #[arg(long, conflicts_with = "pid")]
    pub(crate) all: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Plan {
    /// The patch.
    pub(crate) patch: PathBuf,
    #[command(flatten)]
    pub(crate) processes: Processes,
}

/// What callers of replaced functions may see.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Consistency {
    /// Calls made from now on run new code; frames inside old code finish there. Stops nobody.
    Entry,
    /// The switch happens when no thread is inside what is replaced.
    Quiescent,
}

#[derive(Debug, Args)]
pub(crate) struct Apply {
    /// The patch.
    pub(crate) patch: PathBuf,
    #[command(flatten)]
    pub(crate) targets: Targets,
    /// What callers of replaced functions may see; a patch that changes how functions are
    /// called through pointers is always `quiescent`.
    #[arg(long, value_enum, default_value = "entry")]
    pub(crate) consistency: Consistency,
    /// How many seconds to wait for another tool, or for threads that are in the way.
    #[arg(long, value_name = "SECONDS", default_value_t = 10.0, value_parser = seconds)]
    pub(crate) timeout: f64,
    /// Only say what would be done, as `invivo plan` does.
    #[arg(long)]
    pub(crate) dry_run: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Revert {
    /// The patch's name [default: every live patch].
    pub(crate) name: Option<String>,
    #[command(flatten)]
    pub(crate) targets: Targets,
    /// How many seconds to wait for another tool, or for threads that are in the way.
    #[arg(long, value_name = "SECONDS", default_value_t = 10.0, value_parser = seconds)]
    pub(crate) timeout: f64,
}

#[derive(Debug, Args)]
pub(crate) struct Blocking {
    /// The patch.
    pub(crate) patch: PathBuf,
    #[command(flatten)]
    pub(crate) processes: Processes,
    /// How many seconds to wait for another tool at the same process.
    #[arg(long, value_name = "SECONDS", default_value_t = 10.0, value_parser = seconds)]
    pub(crate) timeout: f64,
}

#[derive(Debug, Args)]
pub(crate) struct Recover {
    #[command(flatten)]
    pub(crate) targets: Targets,
    /// How many seconds to wait for another tool, or for threads that are in the way.
    #[arg(long, value_name = "SECONDS", default_value_t = 10.0, value_parser = seconds)]
    pub(crate) timeout: f64,
}

#[derive(Debug, Args)]
pub(crate) struct Status {
    /// Patches, or programs and libraries [default: every image that is patched somewhere].
    pub(crate) files: Vec<PathBuf>,
    /// Go on and tell what changes; look again after so many seconds [default: 2].
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "2",
          require_equals = true, value_parser = seconds)]
    pub(crate) watch: Option<f64>,
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

/// What a schema describes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum SchemaOf {
    Audit,
    Diff,
    Build,
    Exchange,
    Final,
    Inspect,
    Image,
    Check,
    Plan,
    Outcome,
    Blocking,
    Status,
    List,
    Symbols,
    Explain,
}

#[derive(Debug, Args)]
pub(crate) struct Schema {
    /// The output: `exchange` is that of install and uninstall, `final` that of inspect for a
    /// final image, `outcome` that of apply, revert and recover, `image` that of inspect for a
    /// Windows image.
    #[arg(value_enum)]
    pub(crate) of: SchemaOf,
}

#[derive(Debug, Args)]
pub(crate) struct Explain {
    /// A rule, such as R-INIT or A11 [default: all].
    pub(crate) rule: Option<AnyRule>,
}

#[derive(Debug, Args)]
pub(crate) struct Completions {
    /// The shell.
    #[arg(value_enum)]
    pub(crate) shell: clap_complete::Shell,
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

fn seconds(text: &str) -> Result<f64, String> {
    const LONGEST: f64 = 86_400.0;
    let seconds: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    if (0.0..=LONGEST).contains(&seconds) {
        Ok(seconds)
    } else {
        Err(format!("between 0 and {LONGEST} seconds"))
    }
}
