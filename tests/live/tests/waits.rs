//! A process whose only thread waits: whatever in, no wait ends before its event, with EINTR or without.

use anyhow::{Result, ensure};
use live_tests::compile::Build;
use live_tests::invivo::{self, apply, revert};
use live_tests::pair::Pair;
use live_tests::round_trip::there_and_back;
use live_tests::run::wait_for;
use live_tests::target::Target;
use live_tests::workdir::in_workdir;

// A process whose only thread waits in one kind of call, visited six times. That one must be the visited thread.
fn waits_in(kind: &str) -> Result<()> {
    in_workdir(kind, |dir| {
        let pair = Pair::build(dir, "waits.c", Build::default())?;
        let mut target = Target::start(&pair.base, &[kind])?;
        let patch = pair.patch()?;
        for _ in 0..3 {
            there_and_back(&pair, &patch, &mut target)?;
        }
        Ok(())
    })
}

/// A read on a socket pair restarts by itself after a signal; it must here as well.
#[test]
fn blocked_in_read() -> Result<()> {
    waits_in("read")
}

/// poll restarts through restart_syscall, which needs the kernel's own bookkeeping.
#[test]
fn blocked_in_poll() -> Result<()> {
    waits_in("poll")
}

/// epoll_wait returns EINTR after a mere stop: the tool has to make up for it.
#[test]
fn blocked_in_epoll_wait() -> Result<()> {
    waits_in("epoll_wait")
}

/// A futex wait that returns early looks like a wake-up.
#[test]
fn blocked_in_futex() -> Result<()> {
    waits_in("futex")
}

/// An interrupted sleep must not become a shorter one.
#[test]
fn blocked_in_nanosleep() -> Result<()> {
    waits_in("nanosleep")
}

/// A server that takes an EINTR of accept for an error closes its door.
#[test]
fn blocked_in_accept() -> Result<()> {
    waits_in("accept")
}

/// sigtimedwait never restarts by itself.
#[test]
fn blocked_in_sigtimedwait() -> Result<()> {
    waits_in("sigtimedwait")
}

/// recv on a socket with a time-out never restarts by itself either.
#[test]
fn blocked_in_recv_with_a_timeout() -> Result<()> {
    waits_in("recv")
}

/// What is waited for is the end of a child.
#[test]
fn blocked_in_waitpid() -> Result<()> {
    waits_in("waitpid")
}

/// The oldest way to wait for several descriptors.
#[test]
fn blocked_in_select() -> Result<()> {
    waits_in("select")
}

/// A futex with a time-out restarts through restart_syscall.
#[test]
fn blocked_in_futex_with_a_timeout() -> Result<()> {
    waits_in("timed-futex")
}

/// With a time-out epoll_wait returns EINTR as well.
#[test]
fn blocked_in_epoll_wait_with_a_timeout() -> Result<()> {
    waits_in("timed-epoll_wait")
}

/// ppoll has a time-out and a mask of signals.
#[test]
fn blocked_in_ppoll() -> Result<()> {
    waits_in("ppoll")
}

/// pselect does, too.
#[test]
fn blocked_in_pselect() -> Result<()> {
    waits_in("pselect")
}

/// sigsuspend ends with EINTR, but after a signal only.
#[test]
fn blocked_in_sigsuspend() -> Result<()> {
    waits_in("sigsuspend")
}

/// semop never restarts by itself.
#[test]
fn blocked_in_semop() -> Result<()> {
    waits_in("semop")
}

/// connect waits where a server has no room for more clients.
#[test]
fn blocked_in_connect() -> Result<()> {
    waits_in("connect")
}

/// The lock of a file is waited for.
#[test]
fn blocked_in_flock() -> Result<()> {
    waits_in("flock")
}

// The same where functions are called in the thread that waits: a visit makes its memory, and two more call one each.
fn called_while_it_waits_in(kind: &str) -> Result<()> {
    in_workdir(&format!("called-{kind}"), |dir| {
        let pair = Pair::build(dir, "waits.c", Build::default())?;
        let mut target = Target::start(&pair.base, &[kind])?;
        let patch = dir.join("patch");
        invivo::build(&pair.base, &pair.fixed, &patch, &CALLED)?;
        for _ in 0..2 {
            there_and_back(&pair, &patch, &mut target)?;
        }
        Ok(())
    })
}

const CALLED: [&str; 6] = [
    "--name",
    "fix",
    "--callout",
    "before-apply=is_ready",
    "--callout",
    "after-apply=began",
];

/// Of a wait with a time-out the kernel alone knows how much is left, and must not forget it.
#[test]
fn called_in_waits_with_a_timeout() -> Result<()> {
    ["poll", "timed-futex"]
        .into_iter()
        .try_for_each(called_while_it_waits_in)
}

/// Waits that the kernel makes anew, and others that end with EINTR.
#[test]
fn called_in_other_waits() -> Result<()> {
    [
        "read",
        "ppoll",
        "pselect",
        "semop",
        "connect",
        "flock",
        "accept",
        "recv",
        "waitpid",
        "sigtimedwait",
        "sigsuspend",
        "timed-epoll_wait",
    ]
    .into_iter()
    .try_for_each(called_while_it_waits_in)
}

/// A sleep goes on after a call as it does after a mere stop: not from its beginning, and it does not end early.
#[test]
fn called_in_a_sleep() -> Result<()> {
    in_workdir("called-sleep", |dir| {
        let pair = Pair::build(dir, "waits.c", Build::default())?;
        let target = Target::start(&pair.base, &["sleep"])?;
        let patch = dir.join("patch");
        invivo::build(&pair.base, &pair.fixed, &patch, &CALLED)?;
        let file = format!("/proc/{}/syscall", target.pid());
        let sleeps_in = |number: &str| {
            let call = std::fs::read_to_string(&file)?;
            Ok(call.split(' ').next() == Some(number))
        };
        wait_for("it sleeps", || Ok(sleeps_in("230")? || sleeps_in("35")?))?;
        for _ in 0..2 {
            apply(&patch, target.pid(), &[])?.expect_state("applied")?;
            // restart_syscall: the kernel still knows how long to sleep.
            wait_for("it goes on with its sleep", || sleeps_in("219"))?;
            revert(Some("fix"), target.pid())?.expect_state("reverted")?;
        }
        Ok(())
    })
}

/// A sleep in a function makes the kernel forget a wait that it has resumed already, and then that wait is made anew.
#[test]
fn called_to_sleep_in_a_resumed_wait() -> Result<()> {
    in_workdir("naps", |dir| {
        let pair = Pair::build(dir, "waits.c", Build::default())?;
        let mut target = Target::start(&pair.base, &["poll"])?;
        let patch = dir.join("patch");
        let callout = "before-apply=is_ready_after_a_nap";
        let more = ["--name", "fix", "--callout", callout];
        invivo::build(&pair.base, &pair.fixed, &patch, &more)?;
        // No question in between: the wait is the same one all the time.
        for _ in 0..3 {
            apply(&patch, target.pid(), &[])?.expect_state("applied")?;
            revert(Some("fix"), target.pid())?.expect_state("reverted")?;
        }
        let early = target.ask("early")?;
        ensure!(early == "0", "waits ended early: {early}");
        Ok(())
    })
}
