//! Whom it hurts least to be held: what a thread waits in decides.

/// What it costs to hold a thread whose call the kernel resumes by itself.
pub(crate) const PATIENT: u8 = 0;
/// The same for one whose call would end with EINTR, were it not seen to.
const INTERRUPTED: u8 = 1;
/// The same for one that runs.
pub(crate) const RUNNING: u8 = 2;
/// The same for one that may wait for a child, which cannot be made to stand meanwhile.
const CREATING: u8 = 3;
/// The mark of one in which the kernel works for itself: it is never held.
pub(crate) const WORKING: u8 = 4;

/// What it costs to hold a thread that waits in `call`, or runs; `of_socket` tells whether a socket is what it reads.
pub(crate) fn cost_of(call: Option<i64>, of_socket: impl FnOnce() -> bool) -> u8 {
    match call {
        Some(libc::SYS_read) if !of_socket() => PATIENT,
        Some(
            libc::SYS_futex
            | libc::SYS_poll
            | libc::SYS_ppoll
            | libc::SYS_select
            | libc::SYS_pselect6
            | libc::SYS_nanosleep
            | libc::SYS_clock_nanosleep
            | libc::SYS_wait4
            | libc::SYS_waitid
            | libc::SYS_pause,
        ) => PATIENT,
        Some(libc::SYS_vfork | libc::SYS_clone | libc::SYS_clone3) => CREATING,
        Some(_) => INTERRUPTED,
        None => RUNNING,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Threads in the order in which they are asked.
    fn in_order(calls: &[(Option<i64>, bool)]) -> Vec<usize> {
        let cost = |index: usize| cost_of(calls[index].0, || calls[index].1);
        let mut all: Vec<(u8, usize)> = (0..calls.len()).map(|i| (cost(i), i)).collect();
        all.sort_unstable();
        all.into_iter().map(|(_, index)| index).collect()
    }

    #[test]
    fn who_is_hurt_least_is_asked_first() {
        let spins = (None, false);
        let vfork = (Some(libc::SYS_vfork), false);
        let epoll = (Some(libc::SYS_epoll_wait), false);
        let pipe = (Some(libc::SYS_read), false);
        let socket = (Some(libc::SYS_read), true);
        assert_eq!(in_order(&[vfork, spins, epoll, pipe]), [3, 2, 1, 0]);
        // What is read with a time-out is not resumed by the kernel.
        assert_eq!(in_order(&[socket, pipe, spins]), [1, 0, 2]);
        assert_eq!(in_order(&[spins, spins]), [0, 1]);
    }

    #[test]
    fn what_the_kernel_resumes_costs_nothing() {
        for call in [
            libc::SYS_futex,
            libc::SYS_wait4,
            libc::SYS_select,
            libc::SYS_nanosleep,
        ] {
            assert_eq!(cost_of(Some(call), || true), PATIENT, "{call}");
        }
        for call in [
            libc::SYS_semtimedop,
            libc::SYS_accept,
            libc::SYS_recvfrom,
            libc::SYS_rt_sigtimedwait,
        ] {
            assert_eq!(cost_of(Some(call), || false), INTERRUPTED, "{call}");
        }
    }
}
