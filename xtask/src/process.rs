//! Other programs: run with a limit, or kept running until dropped.

use std::fs::File;
use std::io::Read;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};

/// What a program said, and how it ended.
#[derive(Debug)]
pub(crate) struct Output {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

fn spawn(command: &mut Command) -> Result<Child> {
    command.spawn().with_context(|| {
        let program = command.get_program().to_string_lossy();
        format!("cannot start {program}")
    })
}

/// Runs a program to its end and keeps what it said.
pub(crate) fn capture(command: &mut Command, limit: Duration) -> Result<Output> {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = spawn(command)?;
    let stdout = drain(child.stdout.take());
    let stderr = drain(child.stderr.take());
    let status = wait(&mut child, limit, command)?;
    let text = |reader: thread::JoinHandle<String>| reader.join().unwrap_or_default();
    Ok(Output {
        status,
        stdout: text(stdout),
        stderr: text(stderr),
    })
}

/// Runs a program that speaks to the user itself; says whether it succeeded.
pub(crate) fn succeeds(command: &mut Command, limit: Duration) -> Result<bool> {
    let mut child = spawn(command.stdin(Stdio::null()))?;
    Ok(wait(&mut child, limit, command)?.success())
}

/// Reads a pipe to its end on a thread of its own, so that it never fills up.
fn drain(pipe: Option<impl Read + Send + 'static>) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            // A pipe that breaks ends the text; the exit status tells the rest.
            let _ = pipe.read_to_end(&mut bytes);
        }
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

/// Waits for a child; ends it and whatever it started when the limit is over.
///
/// The wait is one call: what is timed must not share its processors with somebody who looks
/// again and again whether it has ended. A thread that a tool held stood three times as long
/// beside a look every 20 µs.
pub(crate) fn wait(child: &mut Child, limit: Duration, command: &Command) -> Result<ExitStatus> {
    let end = Instant::now() + limit;
    let process = pidfd_open(Pid::from_child(child), PidfdFlags::empty())?;
    loop {
        let left = Timespec::try_from(end.saturating_duration_since(Instant::now()))?;
        match poll(&mut [PollFd::new(&process, PollFlags::IN)], Some(&left)) {
            Err(Errno::INTR) => {}
            Ok(0) => {
                end_family(child);
                let program = command.get_program().to_string_lossy();
                bail!("{program} did not end within {} s", limit.as_secs());
            }
            Ok(_) => return Ok(child.wait()?),
            Err(error) => return Err(error.into()),
        }
    }
}

/// A process and its descendants, parents before their children.
fn family(pid: u32) -> Vec<u32> {
    let mut family = vec![pid];
    let parents: Vec<(u32, u32)> = std::fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter_map(|pid: u32| Some((pid, parent(pid)?)))
        .collect();
    let mut at = 0;
    while let Some(&member) = family.get(at) {
        let children = parents.iter().filter(|(_, parent)| *parent == member);
        family.extend(children.map(|(pid, _)| *pid));
        at += 1;
    }
    family
}

/// Ends a child and its descendants, which we started, and no one else.
fn end_family(child: &mut Child) {
    let family = family(child.id()).into_iter();
    for pid in family.filter_map(|pid| i32::try_from(pid).ok()) {
        // It may have ended by itself meanwhile, which is as good.
        let _ = nix::sys::signal::kill(
            nix::unistd::Pid::from_raw(pid),
            nix::sys::signal::Signal::SIGKILL,
        );
    }
    let _ = child.wait();
}

fn parent(pid: u32) -> Option<u32> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status
        .lines()
        .find_map(|line| line.strip_prefix("PPid:"))?
        .trim()
        .parse()
        .ok()
}

/// A server on a port of 127.0.0.1, ended when it is dropped.
#[derive(Debug)]
pub(crate) struct Server {
    child: Child,
    log: PathBuf,
    /// The port it listens on.
    pub(crate) port: u16,
}

impl Server {
    /// Starts a server and waits until its port answers.
    pub(crate) fn start(command: &mut Command, port: u16, log: &Path) -> Result<Self> {
        let output =
            File::create(log).with_context(|| format!("cannot create {}", log.display()))?;
        command
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output);
        let mut server = Self {
            child: spawn(command)?,
            log: log.to_owned(),
            port,
        };
        let end = Instant::now() + Duration::from_secs(15);
        while TcpStream::connect(address(port)).is_err() {
            if server.child.try_wait()?.is_some() || Instant::now() >= end {
                let program = command.get_program().to_string_lossy();
                bail!(
                    "{program} does not answer on port {port}: {}",
                    server.last_words()
                );
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(server)
    }

    /// The process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// It and its descendants, as far as they run an image: a master and its
    /// workers, say. Parents come first, so that a child that is born after its
    /// parent was patched has the patch.
    pub(crate) fn processes(&self, image: &Path) -> Result<Vec<u32>> {
        let image =
            std::fs::canonicalize(image).with_context(|| format!("no {}", image.display()))?;
        let runs = |pid: &u32| {
            // A process that ended meanwhile runs nothing.
            let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).unwrap_or_default();
            let path = |line: &str| Some(PathBuf::from(line.get(line.find('/')?..)?));
            maps.lines().any(|line| path(line).as_ref() == Some(&image))
        };
        let mut processes = family(self.pid());
        processes.retain(runs);
        if processes.is_empty() {
            bail!("no process of the program runs {}", image.display());
        }
        Ok(processes)
    }

    /// How many threads it has now.
    pub(crate) fn threads(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/task", self.pid())).map_or(0, Iterator::count)
    }

    /// Whether it still runs.
    pub(crate) fn alive(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// What became of it, in words: it runs, or how it died and what it said.
    pub(crate) fn fate(&mut self) -> String {
        match self.child.try_wait() {
            Ok(None) => "the program still runs".to_owned(),
            Ok(Some(status)) => format!("the program died ({status}): {}", self.last_words()),
            Err(error) => format!("the program cannot be waited for: {error}"),
        }
    }

    fn last_words(&self) -> String {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let last: Vec<_> = log.lines().rev().take(5).collect();
        last.into_iter().rev().collect::<Vec<_>>().join(" | ")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        end_family(&mut self.child);
    }
}

/// The address of a local server.
pub(crate) fn address(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

/// A port that nobody listens on now.
pub(crate) fn free_port() -> Result<u16> {
    Ok(TcpListener::bind(address(0))?.local_addr()?.port())
}
