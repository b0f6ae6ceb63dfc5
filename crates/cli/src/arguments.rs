//! The command line; help, man page and completions come from here.

mod build;
mod images;
mod live;
mod quick;
mod selectors;
mod trust;
mod xen;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

pub(crate) use build::{Build, Format};
pub(crate) use images::{Audit, Check, Diff, Inspect, Install, Judged, Pair, Uninstall};
pub(crate) use live::{
    Apply, Blocking, Consistency, Effort, List, Plan, Recover, Revert, Status, Symbols,
};
pub(crate) use quick::parse;
pub(crate) use selectors::{Selectors, Targets};
pub(crate) use trust::{Sign, Verify};
pub(crate) use xen::{Xen, XenCommand, patience};

use crate::commands::explain::AnyRule;

const EXIT_CODES: &str = "\
Exit codes:
  0   done, or nothing to do
  1   refused: not safe, or does not match; the reasons are printed
  2   usage, or a file that cannot be read
  3   not now, trying again may work: blocked, busy, traced, stopped, timed out
  4   not signed, or not by somebody who is trusted
  5   permission; the remedy is printed
  6   the process does not exist or ended meanwhile; there is no Xen
  7   interrupted; the process is as it was
  8   the process may be inconsistent
  70  a defect in invivo
  74  an error of which nothing could be written anywhere";

/// Repairs native programs while they run.
///
/// Compares the program that is running with an ordinary build that has the fix,
/// writes a patch, makes it live in the running process, and can take it back.
#[derive(Debug, Parser)]
#[command(name = "invivo", version, after_long_help = EXIT_CODES, max_term_width = 100)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) general: General,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What every command takes.
#[derive(Debug, Args)]
pub(crate) struct General {
    /// Print one JSON object on standard output instead of text.
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Print only data and errors.
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub(crate) quiet: bool,
    /// Say on standard error what is done in each process, step by step.
    #[arg(short, long, global = true)]
    pub(crate) verbose: bool,
    /// Ask no question: processes that a pattern finds are changed without one.
    #[arg(long, global = true)]
    pub(crate) yes: bool,
    /// Use colour.
    #[arg(long, global = true, value_enum, default_value = "auto")]
    pub(crate) color: Color,
    /// Show no progress.
    #[arg(long, global = true, conflicts_with = "progress")]
    pub(crate) no_progress: bool,
    /// How to show progress, on standard error: for people, or as one JSON object in each line.
    #[arg(long, global = true, value_enum, default_value = "auto")]
    pub(crate) progress: Progress,
    /// Take options that are not given from this file of TOML, in which a section is for the
    /// command of its name [default: the one that INVIVO_CONFIG names, if it does].
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Save the files that are named, the words and how it ended in this new folder, for a report.
    #[arg(long, global = true, value_name = "DIR")]
    pub(crate) save_repro: Option<PathBuf>,
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

/// How to show progress.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Progress {
    /// A sign of life on a terminal, nothing elsewhere.
    Auto,
    /// What begins and ends, and each process that is done, for programs.
    Json,
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
        after_help = "Examples:\n  invivo build base/redis-server fixed/redis-server -o fix.patch --label CVE-2024-31228\n  invivo build base/server fixed/server -o fix.patch --callout before-apply=is_ready\n  invivo build base/server fixed/server --format final -o server.final\n  invivo build base/service.dll fixed/service.dll --format cold -o service.cold\n  invivo build base/common/keyhandler.o fixed/common/keyhandler.o --format livepatch --xen xen-syms -o fix.livepatch\n  invivo build base/version.o fixed/version.o --format livepatch --xen xen-syms --splice callers -o fix.livepatch\n  invivo build --trace do_sched_op 'common/domain.c#vcpu_check_shutdown' --xen xen-syms -o count.livepatch"
    )]
    Build(Box<Build>),
    /// Exchange a program or library on disk for its final image: what starts next is fixed.
    #[command(
        after_help = "Examples:\n  invivo build base/server fixed/server --format final -o server.final\n  invivo install server.final /usr/sbin/server"
    )]
    Install(Install),
    /// Give a program or library that was exchanged its old file back, byte for byte.
    #[command(after_help = "Example:\n  invivo uninstall /usr/sbin/server")]
    Uninstall(Uninstall),
    /// Show everything that is in a patch, in a payload for Xen, or in a Windows image.
    #[command(
        after_help = "Examples:\n  invivo inspect fix.patch\n  invivo inspect fix.livepatch\n  invivo inspect server.dll"
    )]
    Inspect(Inspect),
    /// Is the hot-patch metadata of a Windows image sound, and what will Xen answer to a payload?
    /// Each rule (A01 to A31, B01 to B17 for patches of older Windows, X01 to X68 for Xen) is
    /// looked at. Is a patch for processes whole, and the code of its base there?
    #[command(
        after_help = "Examples:\n  invivo check server_hotpatch.dll --base server.dll\n  invivo check fix.livepatch --xen xen-syms --xen-version 4.17\n  invivo check next.livepatch --xen xen-syms --after fix.livepatch\n  invivo explain A11"
    )]
    Check(Check),
    /// Everything that apply would do, proved without stopping or changing anything; of a payload
    /// for Xen what the hypervisor below is expected to answer.
    #[command(
        after_help = "Examples:\n  invivo plan fix.patch -p $(pidof redis-server)\n  invivo plan fix.livepatch"
    )]
    Plan(Plan),
    /// Make a patch live in running processes, or a payload in the Xen hypervisor below.
    #[command(
        after_help = "Examples:\n  invivo apply fix.patch -p 1234\n  invivo apply fix.patch -p 1234 --consistency quiescent --timeout 30\n  invivo apply fix.patch --all\n  invivo apply fix.patch --unit nginx\n  invivo apply fix.signed.patch --all --cert team.pem\n  invivo apply fix.livepatch"
    )]
    Apply(Apply),
    /// Make a patch live in the place of whichever is live, an earlier or a later one.
    #[command(
        after_help = "Examples:\n  invivo replace fix-1.patch -p 1234\n  invivo replace fix-1.patch -p 1234 --dry-run\n  invivo replace all-fixes-2.livepatch"
    )]
    Replace(Apply),
    /// Take a patch back, byte for byte.
    #[command(
        after_help = "Examples:\n  invivo revert -p 1234\n  invivo revert my-fix --all\n  invivo revert --to fix-1 -p 1234\n  invivo revert -p 1234 --unload\n  invivo revert xsa-400 --xen"
    )]
    Revert(Revert),
    /// Which threads keep a quiescent apply waiting; stops all for a moment to look.
    #[command(after_help = "Example:\n  invivo blocking fix.patch -p 1234")]
    Blocking(Blocking),
    /// Finish or undo what a tool that died left; every apply and revert begins with it.
    #[command(after_help = "Example:\n  invivo recover -p 1234")]
    Recover(Recover),
    /// Which processes run an image that has a fix, which are patched, and why not; whether a payload
    /// is live in the Xen hypervisor below. Stops nothing.
    #[command(
        after_help = "Examples:\n  invivo status fix.patch\n  invivo status fix.livepatch\n  invivo status /usr/lib/x86_64-linux-gnu/libc.so.6 --watch"
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
    /// Sign a patch for processes or a payload for Xen.
    #[command(
        after_help = "Examples:\n  invivo sign fix.patch --key key.pem --cert cert.pem -o fix.signed.patch\n  invivo sign fix.livepatch --key key.pem --cert cert.pem -o fix.signed.livepatch"
    )]
    Sign(Sign),
    /// Was a file signed by somebody who is trusted, and is it as it was then?
    #[command(after_help = "Example:\n  invivo verify fix.signed.livepatch --cert cert.pem")]
    Verify(Verify),
    /// Payloads of the Xen hypervisor below: upload, apply, replace, revert, unload, list.
    #[command(
        after_help = "Examples:\n  invivo xen list\n  invivo xen upload xsa-400.livepatch && invivo xen apply xsa-400\n  invivo xen revert xsa-400 && invivo xen unload xsa-400"
    )]
    Xen(Xen),
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
    Object,
    Check,
    Plan,
    WindowsPlan,
    Outcome,
    Blocking,
    Status,
    List,
    Symbols,
    Explain,
    Xen,
    XenOutcome,
    Signature,
    Payload,
    CheckPayload,
    Progress,
}

#[derive(Debug, Args)]
pub(crate) struct Schema {
    /// The output: `exchange` is that of install and uninstall, `final` that of inspect for a
    /// final image, `outcome` that of apply, revert and recover, `windows-plan` that of plan by the program for Windows, `image` that of inspect for a
    /// Windows image, `object` for an object file for Windows, `xen` that of xen list and get,
    /// `xen-outcome` that of the other commands of xen, and of apply, replace and revert for a payload
    /// of Xen, `signature` that of sign and verify, `payload` that of inspect, `check-payload` that of check and plan for such a payload,
    /// `progress` that of a line of `--progress json`.
    #[arg(value_enum)]
    pub(crate) of: SchemaOf,
}

#[derive(Debug, Args)]
pub(crate) struct Explain {
    /// A rule, such as R-INIT, A11 or X12 [default: all].
    pub(crate) rule: Option<AnyRule>,
}

#[derive(Debug, Args)]
pub(crate) struct Completions {
    /// The shell.
    #[arg(value_enum)]
    pub(crate) shell: clap_complete::Shell,
}
