//! The project's own chores, run as `cargo xtask COMMAND`.
//!
//! Each chore installs what it needs, says what it does, and ends with an exit
//! code that can be trusted: 0 only when everything it claims was seen.

mod bench;
mod ci;
mod claims;
mod corpus;
mod demo;
mod fuzz;
mod install;
mod invivo;
mod live;
mod load;
mod mutate;
mod paint;
mod payloads;
mod process;
mod room;
mod steps;
mod street;
mod tally;
mod test;
mod torture;
mod wild;
mod workspace;
mod xen;

use std::process::ExitCode;

use anyhow::{Result, bail};

use crate::workspace::Workspace;

const USAGE: &str = "\
usage: cargo xtask COMMAND

  demo                     repair a busy server while you watch
  test                     every test, live ones included, as root and as an ordinary user
  ci                       what must pass before a change is taken: style, docs, street, test
  bench [--quick]          measure what SPECIFICATION.md promises
  bench live [--quick]     the same for making a patch live: stops, gaps, times, calls
  bench windows [--quick]  the same for patches of Windows images, run on Linux
  bench xen                the same for the tests with Xen, which are fetched anew
  bench large              the same for comparing the largest programs (fetches 750 MB)
  corpus [CASE…]           repair real programs under load with their real security fixes
  corpus --build [CASE…]   only build them
  corpus --selftest CASE…  only check that the probe and the load tell the two builds apart
  mutate [--count N] [--seed N] [--only INDEX]
                           change real images at random; the comparison must find it
  torture kill [--count N] kill the tool at random instants; the target must notice nothing
  torture soak [--rounds N] apply, replace and revert under load; nothing may pile up
  torture windows [--rounds N] the same in a process of Windows, run by Wine
  torture windows-kill [--count N] kill invivo.exe at random instants, run by Wine
  fuzz [--minutes N] [TARGET…]
                           feed every reader with hostile input, 10 minutes each
  street                   check that each crate imports only crates to its left
  install                  install the Debian packages that the chores need
  xen                      fetch the hypervisors that tests boot; they are only unpacked
";

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error}");
            let causes: Vec<_> = error.chain().skip(1).map(ToString::to_string).collect();
            if !causes.is_empty() {
                eprintln!("Caused by:");
                causes.iter().for_each(|cause| eprintln!("    {cause}"));
            }
            ExitCode::FAILURE
        }
    }
}

/// Runs the chore that was asked for; `false` means it ran and did not succeed.
fn run() -> Result<bool> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let workspace = Workspace::find()?;
    match words.as_slice() {
        ["demo"] => demo::run(&workspace),
        ["test"] => test::run(&workspace),
        ["ci"] => ci::run(&workspace),
        ["bench"] => bench::run(&workspace, false),
        ["bench", "live"] => bench::live(&workspace, false),
        ["bench", "live", "--quick"] => bench::live(&workspace, true),
        ["bench", "windows"] => bench::windows(&workspace, false),
        ["bench", "windows", "--quick"] => bench::windows(&workspace, true),
        ["bench", "xen"] => bench::hypervisors(&workspace),
        ["bench", "large"] => bench::large::run(&workspace),
        ["bench", "--quick"] => bench::run(&workspace, true),
        ["mutate", options @ ..] => mutate::run(&workspace, options),
        ["torture", "kill"] => torture::kill(&workspace, torture::KILLS),
        ["torture", "kill", "--count", count] => torture::kill(&workspace, count),
        ["torture", "soak"] => torture::soak(&workspace, torture::ROUNDS),
        ["torture", "soak", "--rounds", rounds] => torture::soak(&workspace, rounds),
        ["torture", "windows-kill"] => torture::windows_kill(&workspace, torture::WINDOWS_KILLS),
        ["torture", "windows-kill", "--count", count] => torture::windows_kill(&workspace, count),
        ["torture", "windows"] => torture::windows(&workspace, torture::ROUNDS),
        ["torture", "windows", "--rounds", rounds] => torture::windows(&workspace, rounds),
        ["fuzz", "--minutes", minutes, targets @ ..] => fuzz::run(&workspace, minutes, targets),
        ["fuzz", targets @ ..] => fuzz::run(&workspace, fuzz::MINUTES, targets),
        ["street"] => street::run(&workspace),
        ["install"] => install::ensure(&install::everything()).map(|()| true),
        ["xen"] => install::ensure(install::XEN)
            .and_then(|()| xen::fetch(&workspace))
            .map(|()| true),
        ["corpus", "--build", cases @ ..] => corpus::build(&workspace, cases).map(|()| true),
        ["corpus", "--selftest", cases @ ..] => corpus::selftest(&workspace, cases),
        ["corpus", cases @ ..] => corpus::run(&workspace, cases),
        [] | ["help" | "--help" | "-h"] => {
            print!("{USAGE}");
            Ok(true)
        }
        other => bail!("no such chore: {}\n\n{USAGE}", other.join(" ")),
    }
}
