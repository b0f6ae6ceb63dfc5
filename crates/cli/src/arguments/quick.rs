//! The words of the commands that work on processes, read without a look at what all other
//! commands take.
//!
//! A description of the whole command line is made for help and for mistakes. Making it takes a
//! quarter of the time in which a patch goes live, so that it is left until somebody needs it.

use std::ffi::OsString;
use std::mem::ManuallyDrop;

use clap::{Args, FromArgMatches, Parser};

use super::{Apply, Arguments, General, List, Recover, Revert, Status};

/// What the words ask for.
///
/// # Errors
/// When they ask for nothing that there is, for help, or for the version.
pub(crate) fn parse(words: &[OsString]) -> Result<Arguments, clap::Error> {
    // What is wrong, or asks for help, is told by the whole description.
    match quickly(words) {
        Some(arguments) => Ok(arguments),
        None => Arguments::try_parse_from(words),
    }
}

/// The same for the commands that are read quickly, where nothing stands before their name and
/// nothing is wrong.
fn quickly(words: &[OsString]) -> Option<Arguments> {
    type Describe = fn(clap::Command) -> clap::Command;
    let (name, describe): (&str, Describe) = match words.get(1)?.to_str()? {
        "apply" => ("apply", Apply::augment_args),
        "replace" => ("replace", Apply::augment_args),
        "revert" => ("revert", Revert::augment_args),
        "recover" => ("recover", Recover::augment_args),
        "status" => ("status", Status::augment_args),
        "list" => ("list", List::augment_args),
        _ => return None,
    };
    let command = describe(clap::Command::new(name));
    let all = General::augment_args(clap::Command::new("invivo")).subcommand(command);
    // The program ends soon, and to take it apart is work.
    let mut all = ManuallyDrop::new(all);
    let matches = all.try_get_matches_from_mut(words).ok()?;
    Arguments::from_arg_matches(&matches).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<OsString> {
        line.split(' ').map(OsString::from).collect()
    }

    #[test]
    fn quick_words_are_understood_as_all_others_are() {
        for line in [
            "invivo apply fix.patch -p 1",
            "invivo apply fix.patch -p 1 -p 2 --consistency quiescent --timeout 3 --json",
            "invivo apply --all fix.patch -q --yes --time",
            "invivo replace fix.patch --pid=7 --dry-run --color never",
            "invivo revert -p 1 --unload",
            "invivo revert fix --all --yes",
            "invivo recover -p 1 -v",
            "invivo status fix.patch --watch",
            "invivo list -p 1 --json",
        ] {
            let quick = quickly(&words(line)).expect(line);
            let whole = Arguments::try_parse_from(words(line)).expect(line);
            assert_eq!(format!("{quick:?}"), format!("{whole:?}"), "{line}");
        }
    }

    #[test]
    fn the_rest_is_left_to_the_whole_description() {
        for line in [
            "invivo",
            "invivo apply",
            "invivo apply --help",
            "invivo aply fix.patch -p 1",
            "invivo apply fix.patch -p 1 --consistency both",
            "invivo apply fix.patch -q -v -p 1",
            "invivo --json apply fix.patch -p 1",
            "invivo explain",
        ] {
            assert!(quickly(&words(line)).is_none(), "{line}");
        }
    }
}
