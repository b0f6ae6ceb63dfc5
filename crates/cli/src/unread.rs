//! Processes that may not be looked at: how many, and what would show them.

use std::os::unix::fs::MetadataExt;

/// What is said of `unread` processes that could not be looked at.
pub(crate) fn note(unread: usize) -> String {
    told(unread, is_root())
}

/// Prints it to standard error where there are any.
pub(crate) fn print(unread: usize) {
    if unread > 0 {
        anstream::eprintln!("{}", note(unread));
    }
}

fn told(unread: usize, is_root: bool) -> String {
    let processes = if unread == 1 { "process" } else { "processes" };
    if is_root {
        // Root of a container is not root of the system's processes.
        format!(
            "{unread} {processes} could not be looked at; that takes CAP_SYS_PTRACE in the user \
             namespace of the process"
        )
    } else {
        format!(
            "{unread} {processes} of other users could not be looked at; as root: sudo invivo …"
        )
    }
}

/// The owner of `/proc/self` is the effective user of who looks at it.
pub(crate) fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_is_not_sent_to_sudo() {
        assert!(told(2, false).contains("2 processes of other users"));
        assert!(told(2, false).contains("sudo"));
        assert!(told(1, true).starts_with("1 process could"));
        assert!(!told(1, true).contains("sudo"));
    }
}
