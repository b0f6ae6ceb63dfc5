//! What went wrong, as people and scripts see it: a text, a hint, an exit code.

use std::io::{ErrorKind, Write};

use invivo_apply::{ApplyError, TargetError};
use owo_colors::OwoColorize;

pub(crate) const REFUSED: u8 = 1;
pub(crate) const USAGE: u8 = 2;
pub(crate) const NOT_NOW: u8 = 3;
#[cfg(not(windows))]
pub(crate) const TRUST: u8 = 4;
pub(crate) const PERMISSION: u8 = 5;
pub(crate) const GONE: u8 = 6;
#[cfg(not(windows))]
pub(crate) const INTERRUPTED: u8 = 7;
pub(crate) const INCONSISTENT: u8 = 8;
/// Nothing could be told: no error ends in silence with a code that has a meaning.
pub(crate) const UNTOLD: u8 = 74;

/// An error of the program.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) code: u8,
    pub(crate) text: String,
    pub(crate) hint: Option<String>,
}

impl Failure {
    pub(crate) fn new(code: u8, text: impl Into<String>) -> Failure {
        Failure {
            code,
            text: text.into(),
            hint: None,
        }
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Failure {
        self.hint = Some(hint.into());
        self
    }

    /// Tells it on standard error or, where there is none, on standard output; gives the code to end
    /// with.
    pub(crate) fn print(&self) -> u8 {
        let mut text = format!("{} {}\n", "error:".red().bold(), self.text);
        if let Some(hint) = &self.hint {
            text += &format!("\n{} {hint}\n", "hint:".cyan().bold());
        }
        let mut streams: Vec<Box<dyn Write>> = Vec::new();
        if is_open(&std::io::stderr()) {
            streams.push(Box::new(anstream::stderr()));
        }
        if is_open(&std::io::stdout()) {
            streams.push(Box::new(anstream::stdout()));
        }
        match told(&text, &mut streams) {
            true => self.code,
            false => UNTOLD,
        }
    }
}

/// Tells all of them; gives the worst code, 0 where there is none.
#[cfg(not(windows))]
pub(crate) fn print_all(failures: &[Failure]) -> u8 {
    let codes = failures.iter().map(Failure::print);
    codes.max().unwrap_or(0)
}

/// Writes a text to the first stream that takes it. One whose reader has gone away takes it, too:
/// that nobody wants to know is not our business.
fn told(text: &str, streams: &mut [Box<dyn Write>]) -> bool {
    streams.iter_mut().any(|stream| {
        let written = stream
            .write_all(text.as_bytes())
            .and_then(|()| stream.flush());
        written.map_or_else(|error| error.kind() == ErrorKind::BrokenPipe, |()| true)
    })
}

/// False for a stream that a program was started without; Rust's library takes what is written to
/// one for written.
#[cfg(windows)]
fn is_open(stream: &impl std::os::windows::io::AsRawHandle) -> bool {
    let handle = stream.as_raw_handle();
    !handle.is_null() && handle.addr() != usize::MAX
}

/// True: where one is missing, Rust's library has opened `/dev/null` in its place.
#[cfg(not(windows))]
fn is_open(_: &impl std::os::fd::AsFd) -> bool {
    true
}

impl From<TargetError> for Failure {
    fn from(error: TargetError) -> Self {
        let text = error.to_string();
        match error {
            TargetError::Gone(_) => {
                let list = if cfg!(windows) { "tasklist" } else { "ps -e" };
                let hint = format!("list processes and their numbers with: {list}");
                Failure::new(GONE, text).hint(hint)
            }
            TargetError::NotPermitted { .. } => {
                Failure::new(PERMISSION, text).hint(permission_hint())
            }
            TargetError::NotCapable { capability, .. } => Failure::new(PERMISSION, text).hint(
                format!("it takes {capability}; run it as root: sudo invivo …"),
            ),
            TargetError::Traced { tracer, .. } => Failure::new(NOT_NOW, text).hint(format!(
                "detach the debugger or tracer (process {tracer}), then try again"
            )),
            TargetError::Unfinished(_) => Failure::new(INCONSISTENT, text)
                .hint("give the command again: it begins with settling what is open"),
            TargetError::NotNow(_) | TargetError::Late { .. } => {
                Failure::new(NOT_NOW, text).hint("try again in a moment")
            }
            TargetError::Unsupported(_) => Failure::new(REFUSED, text),
            TargetError::Memory { .. } | TargetError::System { .. } => Failure::new(NOT_NOW, text),
            _ => Failure::new(REFUSED, text),
        }
    }
}

impl From<ApplyError> for Failure {
    fn from(error: ApplyError) -> Self {
        let text = error.to_string();
        match error {
            ApplyError::Target(error) => error.into(),
            ApplyError::Blocked(_) => Failure::new(NOT_NOW, text).hint(
                "wait longer with --timeout SECONDS, look again with: invivo blocking PATCH -p PID, \
                 or use --consistency entry, which lets frames inside old code finish there",
            ),
            ApplyError::Inconsistent(_) => Failure::new(INCONSISTENT, text)
                .hint("restart the process as soon as it may stop, and report this"),
            _ => Failure::new(REFUSED, text),
        }
    }
}

/// The setting that forbids it, as far as it can be told.
fn permission_hint() -> String {
    if cfg!(windows) {
        return "run it as an administrator".to_owned();
    }
    let scope = std::fs::read_to_string("/proc/sys/kernel/yama/ptrace_scope").unwrap_or_default();
    remedy(scope.trim()).to_owned()
}

/// What helps where `kernel.yama.ptrace_scope` is `scope`; empty in a kernel without Yama.
fn remedy(scope: &str) -> &'static str {
    match scope {
        "1" => {
            "run it as root (sudo invivo …), give it the capability (sudo setcap \
             cap_sys_ptrace+ep \"$(command -v invivo)\"), or allow it to all programs of one \
             user: sudo sysctl kernel.yama.ptrace_scope=0"
        }
        "2" => {
            "the system lets only root trace (kernel.yama.ptrace_scope); run it as root: sudo \
             invivo …"
        }
        // It cannot be lowered while the system runs.
        "3" => {
            "the system lets nobody trace, not even root, until it is started again: set \
             kernel.yama.ptrace_scope to 1 below /etc/sysctl.d, and restart it"
        }
        _ => "run it as the user that owns the process, or as root: sudo invivo …",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes nothing.
    struct Closed(ErrorKind);

    impl Write for Closed {
        fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
            Err(self.0.into())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    /// A program that is refused without a word could mean anything.
    #[test]
    fn what_cannot_be_told_is_known_by_its_code() {
        let broken = || -> Box<dyn Write> { Box::new(Closed(ErrorKind::Other)) };
        assert!(!told("refused", &mut []));
        assert!(!told("refused", &mut [broken(), broken()]));
        assert!(told("refused", &mut [broken(), Box::new(Vec::new())]));
        let gone = ErrorKind::BrokenPipe;
        assert!(told("refused", &mut [Box::new(Closed(gone))]));
    }

    /// With 3 not even root may trace: to send people to sudo would be of no use.
    #[test]
    fn the_remedy_fits_the_setting() {
        for (scope, word) in [
            ("1", "setcap"),
            ("2", "sudo"),
            ("3", "restart"),
            ("", "owns"),
        ] {
            assert!(remedy(scope).contains(word), "{scope}");
        }
        assert!(!remedy("3").contains("sudo"));
    }
}
