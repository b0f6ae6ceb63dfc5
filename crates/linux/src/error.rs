//! System errors as the target's errors.

use std::io;

use invivo_apply::TargetError;
use nix::errno::Errno;

use crate::incarnation::shown_by;

/// `error`, which happened in `what`.
pub(crate) fn system(what: impl Into<String>, error: impl Into<io::Error>) -> TargetError {
    let (what, source) = (what.into(), error.into());
    match source.kind() {
        io::ErrorKind::PermissionDenied => TargetError::NotPermitted { what },
        _ => TargetError::System { what, source },
    }
}

/// The same for a ptrace request to process `pid`: a thread that is gone is no error
/// of the request.
pub(crate) fn traced(pid: i32, what: &str, error: Errno) -> TargetError {
    match error {
        // ptrace says the same of a thread that is not standing at the moment.
        Errno::ESRCH if std::path::Path::new(&format!("/proc/{}/exe", shown_by(pid))).exists() => {
            TargetError::NotNow(format!("a thread of process {pid} is gone or not standing"))
        }
        Errno::ESRCH => TargetError::Gone(pid),
        other => system(format!("{what} process {pid}"), other),
    }
}

/// An error of reading below `/proc/PID`.
pub(crate) fn proc_error(pid: i32, error: procfs::ProcError) -> TargetError {
    match error {
        procfs::ProcError::NotFound(_) => TargetError::Gone(pid),
        procfs::ProcError::PermissionDenied(_) => TargetError::NotPermitted {
            what: format!("look at process {pid}"),
        },
        procfs::ProcError::Io(source, _) => match source.raw_os_error() {
            Some(libc::ESRCH) => TargetError::Gone(pid),
            _ => system(format!("look at process {pid}"), source),
        },
        other => system(
            format!("look at process {pid}"),
            io::Error::other(other.to_string()),
        ),
    }
}
