//! What Windows says, in the engine's words.

use std::io::Error;

use invivo_apply::TargetError;
use invivo_image::LiveAddr;

const ACCESS_DENIED: i32 = 5;

/// The last error of this thread, about `what`.
pub(crate) fn last(what: &str) -> TargetError {
    let source = Error::last_os_error();
    if source.raw_os_error() == Some(ACCESS_DENIED) {
        return TargetError::NotPermitted {
            what: what.to_owned(),
        };
    }
    TargetError::System {
        what: what.to_owned(),
        source,
    }
}

/// The last error of this thread, about memory of the target.
pub(crate) fn memory(action: &'static str, at: LiveAddr, size: usize) -> TargetError {
    TargetError::Memory {
        action,
        at,
        size,
        source: Error::last_os_error(),
    }
}
