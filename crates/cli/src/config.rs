//! `--config`: options that an operator need not give each time.
//!
//! A file of TOML. What stands at its beginning is for every command, a section for the command that
//! it is called like; each key is an option by its long name. What is given on the command line
//! counts instead.
//!
//! ```toml
//! color = "never"
//!
//! [apply]
//! consistency = "quiescent"
//! timeout = 30
//!
//! ["xen upload"]
//! cert = ["/etc/invivo/team.pem"]
//! ```

use std::ffi::{OsStr, OsString};
use std::path::Path;

use clap::{Arg, Command, CommandFactory};
use toml::{Table, Value};

use crate::arguments::Arguments;
use crate::failure::{Failure, USAGE};

/// Names the file where no `--config` does.
const VARIABLE: &str = "INVIVO_CONFIG";
/// More bytes than such a file has.
const LARGEST: u64 = 1 << 20;

/// The words of the command line, with those of the file among them.
///
/// # Errors
/// When the file cannot be read, or has an option that there is not.
pub(crate) fn words(given: Vec<OsString>) -> Result<Vec<OsString>, Failure> {
    let variable = std::env::var_os(VARIABLE).filter(|path| !path.is_empty());
    let Some(path) = named(&given).or(variable) else {
        return Ok(given);
    };
    let path = Path::new(&path);
    let table = read(path)?;
    with_defaults(given, &table).map_err(|text| {
        Failure::new(USAGE, format!("{}: {text}", path.display()))
            .hint("what options there are, tells: invivo COMMAND --help")
    })
}

/// What `--config` names.
fn named(given: &[OsString]) -> Option<OsString> {
    let mut words = given.iter().take_while(|word| *word != "--");
    while let Some(word) = words.next() {
        if word == "--config" {
            return words.next().cloned();
        }
        if let Some(path) = word
            .to_str()
            .and_then(|word| word.strip_prefix("--config="))
        {
            return Some(path.into());
        }
    }
    None
}

fn read(path: &Path) -> Result<Table, Failure> {
    let fail = |text: String| {
        Failure::new(USAGE, format!("{}: {text}", path.display()))
            .hint(format!("it was named by --config, or by {VARIABLE}"))
    };
    let size = path.metadata().map_err(|error| fail(error.to_string()))?;
    if !size.is_file() || size.len() > LARGEST {
        return Err(fail("not a file of options".to_owned()));
    }
    let text = std::fs::read_to_string(path).map_err(|error| fail(error.to_string()))?;
    text.parse::<Table>()
        .map_err(|error| fail(error.to_string().trim_end().to_owned()))
}

fn with_defaults(given: Vec<OsString>, table: &Table) -> Result<Vec<OsString>, String> {
    let all = Arguments::command();
    for (name, value) in table {
        if value.is_table() && find(&all, name).is_none() {
            return Err(format!("there is no command {name:?}"));
        }
    }
    // Behind the last word that names a command its options may stand.
    let (mut command, mut name, mut behind) = (&all, String::new(), 0);
    for (at, word) in given.iter().enumerate().skip(1) {
        let Some(next) = word.to_str().and_then(|word| command.find_subcommand(word)) else {
            continue;
        };
        name = format!("{name} {}", next.get_name()).trim().to_owned();
        (command, behind) = (next, at + 1);
        if !command.has_subcommands() {
            break;
        }
    }
    let mut defaults = Vec::new();
    let everywhere = table.iter().filter(|(_, value)| !value.is_table());
    for (key, value) in everywhere {
        let option = option(&all, key).ok_or_else(|| {
            format!("{key:?} is no option of every command; put it into the section of one")
        })?;
        add(&mut defaults, option, value, &given)?;
    }
    let section = table.get(&name).and_then(Value::as_table);
    for (key, value) in section.into_iter().flatten() {
        let option = option(command, key)
            .or_else(|| option(&all, key))
            .ok_or_else(|| format!("{name} has no option {key:?}"))?;
        add(&mut defaults, option, value, &given)?;
    }
    if behind == 0 {
        return Ok(given);
    }
    let mut words = given;
    let rest = words.split_off(behind);
    words.extend(defaults.into_iter().chain(rest));
    Ok(words)
}

/// The command called `name`, which may be two words.
fn find<'c>(all: &'c Command, name: &str) -> Option<&'c Command> {
    name.split(' ')
        .try_fold(all, |command, word| command.find_subcommand(word))
}

fn option<'c>(command: &'c Command, long: &str) -> Option<&'c Arg> {
    // It names this file.
    let mut options = command
        .get_opts()
        .chain(command.get_arguments().filter(|one| !one.is_positional()));
    options.find(|one| one.get_long() == Some(long) && long != "config")
}

/// Adds an option, unless it is given on the command line.
fn add(
    defaults: &mut Vec<OsString>,
    option: &Arg,
    value: &Value,
    given: &[OsString],
) -> Result<(), String> {
    let long = option.get_long().unwrap_or_default();
    let is_it = |word: &OsStr| {
        let word = word.to_string_lossy();
        let rest = word.strip_prefix("--").and_then(|w| w.strip_prefix(long));
        let short = option.get_short().map(|short| format!("-{short}"));
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('='))
            || short.is_some_and(|short| !word.starts_with("--") && word.starts_with(&short))
    };
    if given.iter().any(|word| is_it(word)) {
        return Ok(());
    }
    let takes_value = option.get_action().takes_values();
    let mut one = |value: &Value| {
        let text = match value {
            Value::String(text) => text.clone(),
            Value::Integer(number) => number.to_string(),
            Value::Float(number) => number.to_string(),
            _ => return Err(format!("the value of {long:?} is of another kind")),
        };
        defaults.push(format!("--{long}={text}").into());
        Ok(())
    };
    match value {
        Value::Array(values) if takes_value => values.iter().try_for_each(one),
        Value::Boolean(yes) if !takes_value => {
            if *yes {
                defaults.push(format!("--{long}").into());
            }
            Ok(())
        }
        _ if takes_value => one(value),
        _ => Err(format!("{long:?} is either true or false")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str, file: &str) -> Result<String, String> {
        let given = line.split(' ').map(OsString::from).collect();
        let table = file.parse::<Table>().unwrap();
        let words = with_defaults(given, &table)?;
        let words: Vec<_> = words.iter().map(|word| word.to_string_lossy()).collect();
        Ok(words.join(" "))
    }

    #[test]
    fn options_come_behind_the_command() {
        let file =
            "color = 'never'\n[apply]\ntimeout = 2.5\ndry-run = true\n[revert]\nunload = true";
        assert_eq!(
            words("invivo -v apply p -p 1", file).unwrap(),
            "invivo -v apply --color=never --dry-run --timeout=2.5 p -p 1"
        );
        assert_eq!(
            words("invivo list", file).unwrap(),
            "invivo list --color=never"
        );
        let both = "['xen upload']\ncert = ['a', 'b']";
        assert_eq!(
            words("invivo xen upload p", both).unwrap(),
            "invivo xen upload --cert=a --cert=b p"
        );
    }

    #[test]
    fn what_is_given_counts() {
        let file = "quiet = true\n[apply]\ntimeout = 2\nconsistency = 'quiescent'";
        for line in [
            "invivo -q apply p --timeout 1",
            "invivo apply p -q --timeout=1",
        ] {
            let words = words(line, file).unwrap();
            assert!(
                !words.contains("=2") && !words.contains("--quiet"),
                "{words}"
            );
            assert!(words.contains("--consistency=quiescent"), "{words}");
        }
    }

    #[test]
    fn mistakes_are_told() {
        for (file, word) in [
            ("timeout = 1", "every command"),
            ("[aply]\nx = 1", "no command"),
            ("[apply]\ntimeuot = 1", "timeuot"),
            ("[apply]\ndry-run = 1", "true or false"),
            ("[apply]\ntimeout = true", "another kind"),
            ("config = 'x'", "config"),
        ] {
            let told = words("invivo apply p", file).unwrap_err();
            assert!(told.contains(word), "{file}: {told}");
        }
    }
}
