//! Which processes a command is about.

use std::path::PathBuf;

use clap::{ArgGroup, Args};
use glob::Pattern;

/// Processes by number, or by what they are. Of several kinds each must hold, of several of one
/// kind any.
#[derive(Debug, Args)]
pub(crate) struct Selectors {
    /// A process; may be given several times.
    #[arg(short, long = "pid", value_name = "PID", value_parser = clap::value_parser!(i32).range(1..),
          conflicts_with_all = ["exe", "comm", "unit", "build_id"])]
    pub(crate) pid: Vec<i32>,
    /// Processes that run this program; may be given several times.
    #[arg(long, value_name = "PATH")]
    pub(crate) exe: Vec<PathBuf>,
    /// Processes with such a name (`ps -o comm`), such as 'redis-*'; may be given several times.
    #[arg(long, value_name = "GLOB", value_parser = Pattern::new)]
    pub(crate) comm: Vec<Pattern>,
    /// Processes of this unit of the service manager, such as nginx or 'web@*.service'; may be given several times.
    #[arg(long, value_name = "UNIT", value_parser = unit)]
    pub(crate) unit: Vec<Pattern>,
    /// Processes that have loaded an image with this build id; may be given several times.
    #[arg(long, value_name = "ID", value_parser = build_id)]
    pub(crate) build_id: Vec<BuildId>,
}

/// The arguments that choose processes.
const CHOOSING: [&str; 6] = ["pid", "exe", "comm", "unit", "build_id", "all"];

/// One of them must be there, or one of `more`.
pub(super) fn one_of(more: &[&'static str]) -> ArgGroup {
    let ids = CHOOSING.iter().chain(more);
    let group = ArgGroup::new("targets").required(true).multiple(true);
    group.args(ids.copied())
}

/// Which processes are changed, or looked at closely. Where the patch may be a payload, which goes
/// to no process, the command itself has to see that there are some.
#[derive(Debug, Args)]
pub(crate) struct Targets {
    #[command(flatten)]
    pub(crate) selectors: Selectors,
    /// Every process that it concerns, those that start meanwhile too.
    #[arg(long, conflicts_with_all = ["pid", "exe", "comm", "unit", "build_id"])]
    pub(crate) all: bool,
}

/// A build id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BuildId(pub(crate) Vec<u8>);

pub(super) fn build_id(text: &str) -> Result<BuildId, String> {
    let text = text.trim_start_matches("0x");
    let digits: Vec<u8> = text
        .chars()
        .map(|digit| {
            digit
                .to_digit(16)
                .and_then(|digit| u8::try_from(digit).ok())
        })
        .collect::<Option<_>>()
        .filter(|digits: &Vec<u8>| !digits.is_empty() && digits.len().is_multiple_of(2))
        .ok_or("a build id is an even number of hexadecimal digits, as readelf -n shows it")?;
    let bytes = digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]);
    Ok(BuildId(bytes.collect()))
}

/// A unit's whole name: a service, where the kind is left out, as `systemctl` has it.
fn unit(text: &str) -> Result<Pattern, String> {
    const KINDS: [&str; 6] = ["service", "scope", "slice", "socket", "mount", "swap"];
    let kind = text.rsplit_once('.').map(|(_, kind)| kind);
    let whole = match kind {
        Some(kind) if KINDS.contains(&kind) => text.to_owned(),
        _ => format!("{text}.service"),
    };
    Pattern::new(&whole).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn build_ids_are_hexadecimal() {
        assert_eq!(build_id("0xAb01"), Ok(BuildId(vec![0xab, 1])));
        for wrong in ["", "abc", "xy", "ab cd"] {
            assert!(build_id(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn units_are_services_unless_they_say_otherwise() {
        let holds = |given: &str, name: &str| unit(given).is_ok_and(|unit| unit.matches(name));
        assert!(holds("nginx", "nginx.service"));
        assert!(holds("web@*", "web@eu.1.service"));
        assert!(holds("user.slice", "user.slice"));
        assert!(!holds("nginx", "nginx.slice"));
        assert!(unit("a[").is_err());
    }
}
