//! A tool that is killed at a chosen step, or whose steps are counted.
//!
//! The test traces it as a debugger would and counts the system calls with which it touches another process.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use nix::libc::user_regs_struct;
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::binary;

const PTRACE: u64 = 101;
/// `pwrite64`, `ptrace` and `process_vm_writev`: everything that changes a process goes through them.
const TOUCHING: [u64; 3] = [18, PTRACE, 311];
/// `PTRACE_INTERRUPT`, `PTRACE_DETACH`, and `PTRACE_CONT` and `PTRACE_SYSCALL`, which lead to the next stop.
const INTERRUPT: u64 = 0x4207;
const DETACH: u64 = 17;
const RESUMES: [u64; 2] = [7, 24];
/// `clone`, with which deputies are started: processes (no `CLONE_THREAD`) that share the tool's memory (`CLONE_VM`).
const CLONE: u64 = 56;
const VM: u64 = 0x100;
const THREAD: u64 = 0x1_0000;
/// `-ENOSYS`, which stands in `rax` before a call is made.
const BEFORE: u64 = (-38_i64).cast_unsigned();

/// What is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whom {
    /// The tool, by its number; the deputy that traces for it goes on, if there is one.
    Tool,
    /// The tool and its deputy, as the kernel does it for want of memory.
    Everything,
}

/// How many waits may end with EINTR in so many kills: none, but where the deputy was killed, too.
///
/// Those are waits that the kernel does not resume by itself, of threads that stand at that instant. Their registers say so until
/// the tracer has seen to it, with its next call for each thread; so one kill in some tens meets one, and one that meets
/// a stop of all threads may end the wait of each.
#[must_use]
pub fn most_interrupted(whom: Whom, kills: usize) -> usize {
    match whom {
        Whom::Tool => 0,
        Whom::Everything => 4 + kills / 8,
    }
}

/// Which system calls are steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Steps {
    /// Those with which it touches another process.
    Touching,
    Every,
}

/// Runs `invivo` with `args` and kills it just before its step number `last`, counted from 0. False if it ended before.
///
/// # Errors
///
/// When it cannot be run or traced.
pub fn killed_before(args: &[&str], last: usize, whom: Whom) -> Result<bool> {
    traced(None, args, |child| step(child, last, whom, Steps::Touching))
}

/// The same where the program `through` becomes `invivo`, as one that restricts it does.
///
/// # Errors
///
/// As [`killed_before`].
pub fn killed_before_through(
    through: &Path,
    args: &[&str],
    last: usize,
    whom: Whom,
) -> Result<bool> {
    traced(Some(through), args, |child| {
        step(child, last, whom, Steps::Touching)
    })
}

/// The same before its system call number `last` of all that its first thread makes.
///
/// # Errors
///
/// As [`killed_before`].
pub fn killed_before_call(args: &[&str], last: usize) -> Result<bool> {
    traced(None, args, |child| {
        step(child, last, Whom::Tool, Steps::Every)
    })
}

/// What threads were held for.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    /// How many threads were asked to stand.
    pub threads: usize,
    /// How often one of them came to a stop: each is a turn between it and the tool.
    pub stops: usize,
    /// Calls of the tool that touch a process, from such a request until the thread was let go.
    pub calls: usize,
}

/// Runs `invivo` with `args` to its end and counts what it holds threads for, one at a time.
///
/// # Errors
///
/// When it cannot be run or traced.
pub fn held(args: &[&str]) -> Result<Held> {
    let mut all = Held::default();
    let mut holds = false;
    let ended = traced(None, args, |child| {
        each_call(child, |_, _, registers| {
            let request = (registers.orig_rax == PTRACE).then_some(registers.rdi);
            if request == Some(INTERRUPT) && !holds {
                holds = true;
                all.threads += 1;
                all.stops += 1;
            } else if request.is_some_and(|request| RESUMES.contains(&request)) {
                all.stops += 1;
            }
            all.calls += usize::from(holds && TOUCHING.contains(&registers.orig_rax));
            holds &= request != Some(DETACH);
            Ok(false)
        })
    })?;
    ensure!(!ended, "it was to run to its end");
    Ok(all)
}

/// Runs `invivo` with `args` to its end and tells which threads it asked to stand, each as often as it did.
///
/// # Errors
///
/// When it cannot be run or traced.
pub fn asked_to_stand(args: &[&str]) -> Result<Vec<u32>> {
    let mut all = Vec::new();
    let ended = traced(None, args, |child| {
        each_call(child, |_, _, registers| {
            if (registers.orig_rax, registers.rdi) == (PTRACE, INTERRUPT) {
                all.push(registers.rsi.try_into()?);
            }
            Ok(false)
        })
    })?;
    ensure!(!ended, "it was to run to its end");
    Ok(all)
}

/// What a run took, in numbers that do not depend on the machine.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Work {
    /// System calls, those of all threads and deputies.
    pub calls: usize,
    /// Deputies that were started.
    pub deputies: usize,
}

/// Runs `invivo` with `args` to its end and counts what it takes.
///
/// # Errors
///
/// When it cannot be run or traced.
pub fn work(args: &[&str]) -> Result<Work> {
    let mut all = Work::default();
    let ended = traced(None, args, |child| {
        each_call(child, |_, _, registers| {
            all.calls += 1;
            let flags = (registers.orig_rax == CLONE).then_some(registers.rdi);
            all.deputies += usize::from(flags.is_some_and(|flags| flags & (VM | THREAD) == VM));
            Ok(false)
        })
    })?;
    ensure!(!ended, "it was to run to its end");
    Ok(all)
}

fn traced(
    through: Option<&Path>,
    args: &[&str],
    follow: impl FnOnce(&mut Child) -> Result<bool>,
) -> Result<bool> {
    // It waits for a line, so that it can be traced before it is what it becomes.
    let mut child = Command::new("sh")
        .args(["-c", "read go; exec \"$0\" \"$@\""])
        .args(through)
        .arg(binary::invivo()?)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    let killed = follow(&mut child);
    // Where it still lives, tracing it failed.
    let _ = child.kill();
    let _ = child.wait();
    killed
}

fn step(child: &mut Child, last: usize, whom: Whom, steps_are: Steps) -> Result<bool> {
    let mut steps = 0;
    each_call(child, |tool, pid, registers| {
        let counts = steps_are == Steps::Every || TOUCHING.contains(&registers.orig_rax);
        if !counts {
            return Ok(false);
        }
        if steps == last {
            return kill(tool, pid, whom).map(|()| true);
        }
        steps += 1;
        Ok(false)
    })
}

/// Shows `look` each system call that a thread of the tool, or a deputy, is about to make, until it says that it has seen enough;
/// false if the tool ended before.
fn each_call(
    child: &mut Child,
    mut look: impl FnMut(Pid, Pid, &user_regs_struct) -> Result<bool>,
) -> Result<bool> {
    let tool = Pid::from_raw(child.id().try_into()?);
    // The deputy is a child that shares memory; it is traced from its first instruction on.
    let options = Options::PTRACE_O_TRACESYSGOOD
        | Options::PTRACE_O_TRACEEXEC
        | Options::PTRACE_O_TRACEVFORK
        | Options::PTRACE_O_TRACECLONE
        | Options::PTRACE_O_EXITKILL;
    ptrace::seize(tool, options).context("the tool cannot be traced")?;
    child.stdin.take().context("no input")?.write_all(b"\n")?;
    ptrace::interrupt(tool)?;
    // Other threads of the test have children of their own.
    let own = WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD;
    let program = binary::invivo()?.canonicalize()?;
    let mut executed = false;
    loop {
        let (mut signal, status) = (None, waitpid(None, Some(own))?);
        let pid = status.pid().context("a wait for nobody")?;
        match status {
            WaitStatus::PtraceEvent(_, _, event) => {
                // Sometimes it is early enough to see the shell begin, too.
                executed |= event == ptrace::Event::PTRACE_EVENT_EXEC as i32
                    && fs::read_link(format!("/proc/{pid}/exe"))? == program;
            }
            WaitStatus::PtraceSyscall(_) => {
                let registers = ptrace::getregs(pid)?;
                if executed && registers.rax == BEFORE && look(tool, pid, &registers)? {
                    return Ok(true);
                }
            }
            WaitStatus::Stopped(_, other) => signal = Some(other),
            WaitStatus::Exited(..) | WaitStatus::Signaled(..) if pid != tool => continue,
            WaitStatus::Exited(..) => return Ok(false),
            other => bail!("the traced tool came to {other:?}"),
        }
        ptrace::syscall(pid, signal)?;
    }
}

/// Kills `tool`, in the name of which `pid` stands before a step.
fn kill(tool: Pid, pid: Pid, whom: Whom) -> Result<()> {
    let kill = |pid| nix::sys::signal::kill(pid, Signal::SIGKILL);
    // The deputy first: alive it would go on when it sees the other one dead.
    if whom == Whom::Everything && pid != tool {
        kill(pid)?;
        waitpid(pid, Some(WaitPidFlag::__WALL))?;
    }
    kill(tool)?;
    if whom == Whom::Tool && pid != tool {
        waitpid(tool, Some(WaitPidFlag::__WALL))?;
        ptrace::detach(pid, None)?;
    }
    Ok(())
}
