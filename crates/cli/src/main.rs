//! The program `invivo`: repairs native programs while they run.
//!
//! Each command is a short function that calls the street; what it prints on
//! standard output is data, everything else goes to standard error. Built for Windows it has the
//! commands that concern processes there.

#[cfg_attr(windows, path = "arguments/windows.rs")]
mod arguments;
#[cfg(not(windows))]
mod chosen;
#[cfg(not(windows))]
mod commands;
#[cfg(not(windows))]
mod config;
#[cfg(not(windows))]
mod debug_files;
#[cfg(not(windows))]
mod everywhere;
mod failure;
#[cfg(not(windows))]
mod images;
#[cfg(not(windows))]
mod live;
#[cfg(any(windows, test))]
mod looked;
#[cfg(any(windows, test))]
mod meanwhile;
#[cfg(not(windows))]
mod objects;
#[cfg_attr(windows, path = "windows/output.rs")]
mod output;
#[cfg(not(windows))]
mod patch_file;
#[cfg(not(windows))]
#[path = "windows/planned.rs"]
mod planned;
#[cfg(not(windows))]
mod repro;
#[cfg(not(windows))]
mod steps;
#[cfg(not(windows))]
mod timing;
#[cfg(not(windows))]
mod unread;
mod unseen;
#[cfg(not(windows))]
mod verdict;
#[cfg(windows)]
mod windows;

#[cfg(not(windows))]
use std::ffi::OsString;
use std::process::ExitCode;

#[cfg(windows)]
use clap::Parser;

use crate::arguments::Arguments;
#[cfg(not(windows))]
use crate::arguments::Command;
#[cfg(not(windows))]
use crate::commands::apply::Replaces;
use crate::failure::Failure;
use crate::output::Output;
#[cfg(not(windows))]
use crate::repro::Saving;

#[cfg(not(windows))]
fn main() -> ExitCode {
    let words: Vec<OsString> = std::env::args_os().collect();
    let words = match config::words(words) {
        Ok(words) => words,
        Err(failure) => return ended(Err(failure)),
    };
    let arguments = match arguments::parse(&words) {
        Ok(arguments) => arguments,
        Err(error) => return not_run(&error),
    };
    let output = Output::new(&arguments.general);
    let Some(folder) = &arguments.general.save_repro else {
        return ended(run(&arguments, &output));
    };
    let saving = match Saving::begin(folder, &words) {
        Ok(saving) => saving,
        Err(failure) => return ended(Err(failure)),
    };
    let result = run(&arguments, &output);
    let saved = saving.end(&result);
    let code = ended(result);
    // What the command did counts.
    match saved {
        Ok(told) => anstream::eprintln!("{told}"),
        Err(failure) => {
            failure.print();
        }
    }
    code
}

#[cfg(windows)]
fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => return not_run(&error),
    };
    let output = Output::new(&arguments);
    ended(windows::run(&arguments, &output))
}

/// Nothing is run where the words ask for help, for the version or for nothing that is known.
fn not_run(error: &clap::Error) -> ExitCode {
    // Help and version are no errors; clap prints each where it belongs.
    let told = error.print();
    ExitCode::from(match told {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => failure::UNTOLD,
        _ if error.use_stderr() => failure::USAGE,
        _ => 0,
    })
}

fn ended(result: Result<u8, Failure>) -> ExitCode {
    match result {
        Ok(code) => ExitCode::from(code),
        Err(failure) => ExitCode::from(failure.print()),
    }
}

#[cfg(not(windows))]
fn run(arguments: &Arguments, output: &Output) -> Result<u8, Failure> {
    match &arguments.command {
        Command::Audit(audit) => commands::audit::run(audit, output),
        Command::Diff(diff) => commands::diff::run(diff, output),
        Command::Build(build) => commands::build::run(build, output),
        Command::Install(install) => commands::exchange::install(install, output),
        Command::Uninstall(uninstall) => commands::exchange::uninstall(uninstall, output),
        Command::Inspect(inspect) => commands::inspect::run(inspect, output),
        Command::Check(check) => commands::check::run(check, output),
        Command::Plan(plan) => commands::plan::run(plan, output),
        Command::Apply(apply) => commands::apply::run(apply, Replaces::Earlier, output),
        Command::Replace(apply) => commands::apply::run(apply, Replaces::Any, output),
        Command::Revert(revert) => commands::revert::run(revert, output),
        Command::Blocking(blocking) => commands::blocking::run(blocking, output),
        Command::Recover(recover) => commands::recover::run(recover, output),
        Command::Status(status) => commands::status::run(status, output),
        Command::List(list) => commands::list::run(list, output),
        Command::Symbols(symbols) => commands::symbols::run(symbols, output),
        Command::Sign(sign) => commands::trust::sign_file(sign, output),
        Command::Verify(verify) => commands::trust::verify_file(verify, output),
        Command::Xen(xen) => commands::xen::run(xen, output),
        Command::Explain(explain) => commands::explain::run(explain, output),
        Command::Schema(schema) => commands::schema::run(schema),
        Command::Completions(shell) => commands::texts::completions(shell.shell),
        Command::Man => commands::texts::man(),
    }
}
