//! What went wrong, as people and scripts see it: a text, a hint, an exit code.

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

    pub(crate) fn print(&self) {
        anstream::eprintln!("{} {}", "error:".red().bold(), self.text);
        if let Some(hint) = &self.hint {
            anstream::eprintln!("\n{} {hint}", "hint:".cyan().bold());
        }
    }
}

impl From<TargetError> for Failure {
    fn from(error: TargetError) -> Self {
        let text = error.to_string();
        match error {
            TargetError::Gone(_) => {
                Failure::new(GONE, text).hint("list processes and their numbers with: ps -e")
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
            TargetError::NotNow(_) => Failure::new(NOT_NOW, text).hint("try again in a moment"),
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
