//! The command line of the program for Windows.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

const EXIT_CODES: &str = "\
Exit codes:
  0   done, or nothing to do
  1   refused: not safe, or does not match; the reasons are printed
  2   usage, or a file that cannot be read
  3   not now, trying again may work
  5   permission
  6   the process does not exist or ended meanwhile
  8   the process may be inconsistent
  70  a defect in invivo
  74  an error of which nothing could be written anywhere";

/// Repairs native programs while they run: hot patches of Windows images.
///
/// Makes a final image or a patch module (`.hotp1`), as `invivo build` writes them on Linux, live in
/// running processes, without the hot-patch service of the kernel, and can take it back.
#[derive(Debug, Parser)]
#[command(name = "invivo", version, max_term_width = 100, after_help = EXIT_CODES)]
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
    /// Make a final image live in running processes, in the place of the one before it, or a patch
    /// module of older Windows, upon those before it.
    #[command(
        after_help = "Examples:\n  invivo apply server_hotpatch.dll --pid 1234\n  invivo apply fix.dll --all"
    )]
    Apply(Apply),
    /// What apply would do, checked as it is; changes nothing.
    #[command(
        after_help = "Examples:\n  invivo plan server_hotpatch.dll --pid 1234\n  invivo plan fix.dll --all --json"
    )]
    Plan(Plan),
    /// Take patches back, byte for byte.
    #[command(after_help = "Example:\n  invivo revert --pid 1234 --unload")]
    Revert(Revert),
    /// Finish or undo what a tool that died left; every apply and revert begins with it.
    #[command(after_help = "Example:\n  invivo recover --pid 1234")]
    Recover(Processes),
    /// Exchange a file for one that was patched on disk; what starts next is fixed.
    #[command(after_help = "Example:\n  invivo install service.cold service.dll")]
    Install(Install),
    /// Give the name back to the old file, byte for byte.
    #[command(after_help = "Example:\n  invivo uninstall service.dll")]
    Uninstall(Uninstall),
    /// Which patches are live where; changes nothing.
    #[command(after_help = "Example:\n  invivo list --json")]
    List(List),
    /// Which processes run the base of a patch, and which are patched; changes nothing.
    #[command(after_help = "Example:\n  invivo status server_hotpatch.dll")]
    Status(Status),
}

/// Which processes.
#[derive(Debug, Args)]
pub(crate) struct Processes {
    /// A process; may be given several times.
    #[arg(short, long = "pid", value_name = "PID", required_unless_present = "all",
          value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) pid: Vec<u32>,
    /// Every process that it concerns, those too that start meanwhile; which ones this user may not
    /// look at is told.
    #[arg(long, conflicts_with = "pid")]
    pub(crate) all: bool,
    /// How many seconds to wait for another tool at the same process, and with --all for an end of
    /// those that start meanwhile.
    #[arg(long, value_name = "SECONDS", default_value_t = 10,
          value_parser = clap::value_parser!(u32).range(0..=86_400))]
    pub(crate) timeout: u32,
}

#[derive(Debug, Args)]
pub(crate) struct Apply {
    /// The final image or patch module; it stays where it is for as long as it is loaded.
    pub(crate) patch: PathBuf,
    #[command(flatten)]
    pub(crate) processes: Processes,
}

#[derive(Debug, Args)]
pub(crate) struct Plan {
    /// The final image or patch module, where apply would find it.
    pub(crate) patch: PathBuf,
    /// A process; may be given several times.
    #[arg(short, long = "pid", value_name = "PID", required_unless_present = "all",
          value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) pid: Vec<u32>,
    /// Every process that it concerns and that runs now; which ones this user may not look at is told.
    #[arg(long, conflicts_with = "pid")]
    pub(crate) all: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Revert {
    /// Only this patch module of older Windows [default: all, the last first].
    pub(crate) patch: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) processes: Processes,
    /// Let the loader unload the patches, too, where it is proved that nobody needs them.
    #[arg(long)]
    pub(crate) unload: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Install {
    /// The new file, as `invivo build --format cold` writes it.
    pub(crate) image: PathBuf,
    /// The file that is exchanged: the base, exactly as the new one was built for it.
    pub(crate) file: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct Uninstall {
    /// The file that was exchanged.
    pub(crate) file: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct List {
    /// Only this process; may be given several times [default: every process that can be read].
    #[arg(short, long = "pid", value_name = "PID", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) pid: Vec<u32>,
}

#[derive(Debug, Args)]
pub(crate) struct Status {
    /// The final image or patch module.
    pub(crate) patch: PathBuf,
}
