//! The clients of the demo: each logs in, then sends heartbeats, an honest one
//! and one that lies in turn, and knows what either answer must be.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result, ensure};

use crate::load::{Client, PATIENCE, Sent};
use crate::process;

/// Connections, each with its own client.
pub(crate) const CONNECTIONS: usize = 8;

const PING: &[u8] = b"ping";

/// How many answers of each kind one settled phase must hold, and how many it
/// held that were of the other kind.
#[derive(Debug, Default)]
pub(crate) struct Board {
    /// Answers to any heartbeat.
    pub(crate) answers: AtomicU64,
    /// Answers that leaked, as the old code does.
    pub(crate) old: AtomicU64,
    /// Lies that got nothing, as the new code does.
    pub(crate) new: AtomicU64,
    /// The longest round trip since the timeline's last line, in microseconds.
    pub(crate) longest_us: AtomicU64,
    /// Per phase: old answers, new answers. In the odd ones a switch is made.
    pub(crate) phases: [(AtomicU64, AtomicU64); 7],
}

/// A connection that has logged in.
struct Connection {
    stream: TcpStream,
    /// What the server's buffer holds since the login.
    login: Vec<u8>,
}

impl Connection {
    fn open(port: u16, number: usize) -> Result<Self> {
        let stream = TcpStream::connect_timeout(&process::address(port), PATIENCE)
            .context("cannot connect")?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        let login = format!("Lname=alice{number} password=correct-horse-{number}").into_bytes();
        let mut connection = Self { stream, login };
        let answer = connection.exchange(&connection.login.clone())?;
        ensure!(
            answer == b"welcome",
            "the login was answered with {answer:?}"
        );
        Ok(connection)
    }

    fn exchange(&mut self, body: &[u8]) -> Result<Vec<u8>> {
        let mut record = u16::try_from(body.len())?.to_be_bytes().to_vec();
        record.extend(body);
        self.stream.write_all(&record).context("cannot send")?;
        let mut head = [0; 2];
        self.stream.read_exact(&mut head).context("no answer")?;
        let mut answer = vec![0; usize::from(u16::from_be_bytes(head))];
        self.stream
            .read_exact(&mut answer)
            .context("half an answer")?;
        Ok(answer)
    }

    /// Sends a heartbeat of four bytes that says it has `length`.
    fn heartbeat(&mut self, length: usize) -> Result<Vec<u8>> {
        let mut body = vec![b'H'];
        body.extend(u16::try_from(length)?.to_be_bytes());
        body.extend(PING);
        self.exchange(&body)
    }

    /// The length that reaches to the end of what the login left behind.
    fn lie(&self) -> usize {
        self.login.len() - 3
    }

    /// What the old code answers to a lie: the rest of the login.
    fn leak(&self) -> Vec<u8> {
        let rest = self.login.get(3 + PING.len()..).unwrap_or_default();
        [PING, rest].concat()
    }
}

/// Shows one answer to a lie.
pub(crate) fn taste(port: u16) -> Result<String> {
    let mut connection = Connection::open(port, 0)?;
    let answer = connection.heartbeat(connection.lie())?;
    Ok(format!("\"{}\"", answer.escape_ascii()))
}

/// Sends heartbeats until the run ends.
pub(crate) fn work(client: &mut Client, port: u16, number: usize, board: &Board) -> Result<()> {
    let mut connection = Connection::open(port, number)?;
    let leak = connection.leak();
    while client.goes_on() {
        let sent = client.send();
        let honest = connection.heartbeat(PING.len())?;
        client.receive(sent, 1, u64::from(honest != PING));
        note(board, sent);

        let sent = client.send();
        let answer = connection.heartbeat(connection.lie())?;
        let (old, new) = (answer == leak, answer.is_empty());
        let phase = client.receive(sent, 1, u64::from(!old && !new));
        note(board, sent);
        board.old.fetch_add(u64::from(old), Ordering::Relaxed);
        board.new.fetch_add(u64::from(new), Ordering::Relaxed);
        // A request that was under way during a switch may get either answer,
        // and belongs to the odd phase.
        let phase = if phase == sent.phase {
            phase
        } else {
            sent.phase | 1
        };
        if let Some((olds, news)) = board.phases.get(phase) {
            olds.fetch_add(u64::from(old), Ordering::Relaxed);
            news.fetch_add(u64::from(new), Ordering::Relaxed);
        }
    }
    Ok(())
}

fn note(board: &Board, sent: Sent) {
    board.answers.fetch_add(1, Ordering::Relaxed);
    board
        .longest_us
        .fetch_max(sent.elapsed_us(), Ordering::Relaxed);
}
