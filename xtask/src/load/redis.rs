//! A Redis client that knows every answer in advance.
//!
//! Each client owns its keys, so the whole batch of answers can be written down
//! before the batch is sent, and compared byte for byte.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::{Client, PATIENCE};
use crate::process;

const KEYS: u64 = 50;

/// Who does not know it is a stranger, whom one of the fixes gives less room.
pub(crate) const PASSWORD: &str = "pw";

/// A connection to a Redis server.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: BufReader<TcpStream>,
}

impl Connection {
    /// Connects and logs in.
    pub(crate) fn open(port: u16) -> Result<Self> {
        let mut connection = Self::open_as_stranger(port)?;
        let answer = connection.simple(&["AUTH", PASSWORD])?;
        if answer != "+OK" {
            bail!("the server refused the password: {answer}");
        }
        Ok(connection)
    }

    fn open_as_stranger(port: u16) -> Result<Self> {
        let stream = TcpStream::connect_timeout(&process::address(port), PATIENCE)
            .context("cannot connect")?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream: BufReader::new(stream),
        })
    }

    fn send(&mut self, bytes: &[u8]) -> Result<()> {
        self.stream
            .get_mut()
            .write_all(bytes)
            .context("cannot send")
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        if self.stream.read_line(&mut line).context("no answer")? == 0 {
            bail!("the server closed the connection");
        }
        Ok(line.trim_end().to_owned())
    }

    /// Runs `KEYS pattern` and returns how many keys it found.
    pub(crate) fn keys(&mut self, pattern: &str) -> Result<u64> {
        self.send(&command(&["KEYS", pattern]))?;
        let head = self.line()?;
        let found = head.strip_prefix('*').and_then(|count| count.parse().ok());
        let found = found.with_context(|| format!("KEYS answered {head}"))?;
        for _ in 0..found {
            self.line()?;
            self.line()?;
        }
        Ok(found)
    }

    /// Runs a command whose answer is one line.
    pub(crate) fn simple(&mut self, words: &[&str]) -> Result<String> {
        self.send(&command(words))?;
        self.line()
    }
}

/// Sends `batch` groups of SET, GET and INCR at once, again and again until the
/// run ends.
pub(crate) fn work(client: &mut Client, port: u16, number: usize, batch: u64) -> Result<()> {
    let mut connection = Connection::open(port)?;
    let mut counter = 0_u64;
    let mut round = 0_u64;
    let (mut requests, mut expected, mut answers) = (Vec::new(), Vec::new(), Vec::new());
    while client.goes_on() {
        requests.clear();
        expected.clear();
        for _ in 0..batch {
            let key = format!("k:{number}:{}", round % KEYS);
            let value = "v".repeat((round % 97) as usize) + &round.to_string();
            requests.extend(command(&["SET", &key, &value]));
            expected.extend(b"+OK\r\n");
            requests.extend(command(&["GET", &key]));
            expected.extend(format!("${}\r\n{value}\r\n", value.len()).bytes());
            requests.extend(command(&["INCR", &format!("c:{number}")]));
            counter += 1;
            expected.extend(format!(":{counter}\r\n").bytes());
            round += 1;
        }
        let sent = client.send();
        connection.send(&requests)?;
        answers.resize(expected.len(), 0);
        connection
            .stream
            .read_exact(&mut answers)
            .context("no answer")?;
        let wrong = u64::from(answers != expected);
        client.receive(sent, batch * 3, wrong);
        if wrong > 0 {
            // Nothing after a wrong answer can be told apart any more.
            bail!("a wrong answer: {}", difference(&answers, &expected));
        }
    }
    Ok(())
}

/// The place where two answers part, in words.
fn difference(seen: &[u8], expected: &[u8]) -> String {
    let at = seen
        .iter()
        .zip(expected)
        .position(|(a, b)| a != b)
        .unwrap_or(0);
    let around = |bytes: &[u8]| {
        let piece = bytes.get(at.saturating_sub(10)..(at + 30).min(bytes.len()));
        String::from_utf8_lossy(piece.unwrap_or_default())
            .escape_debug()
            .to_string()
    };
    format!("`{}` instead of `{}`", around(seen), around(expected))
}

fn command(words: &[&str]) -> Vec<u8> {
    let mut text = format!("*{}\r\n", words.len());
    for word in words {
        text += &format!("${}\r\n{word}\r\n", word.len());
    }
    text.into_bytes()
}

/// The key that the probe looks for.
const PROBE_LENGTH: usize = 1500;

/// Asks for a key by a pattern that nests deeper than the fixed program allows;
/// returns how many keys were found: 1 without the fix, 0 with it.
pub(crate) fn deep_pattern(port: u16) -> Result<u64> {
    let mut connection = Connection::open(port)?;
    let key = "a".repeat(PROBE_LENGTH);
    connection.simple(&["SET", &key, "1"])?;
    let found = connection.keys(&"*a".repeat(PROBE_LENGTH))?;
    connection.simple(&["DEL", &key])?;
    Ok(found)
}

/// How many requests a stranger sends before it reads an answer: more than the
/// server may keep answers for with the fix, and few enough for the buffers of a
/// connection without it.
pub(crate) const UNREAD: u64 = 20_000;

/// Sends requests without having logged in and without reading an answer; returns
/// how many answers came before the server closed the connection, or all.
pub(crate) fn unread(port: u16) -> Result<u64> {
    let mut connection = Connection::open_as_stranger(port)?;
    let requests = command(&["GET", "x"]).repeat(usize::try_from(UNREAD)?);
    let sent = connection.stream.get_mut().write_all(&requests);
    if sent.is_err_and(|error| !closed(&error)) {
        bail!("the requests of a stranger cannot be sent");
    }
    let mut answers = 0;
    let mut line = String::new();
    while answers < UNREAD {
        line.clear();
        match connection.stream.read_line(&mut line) {
            Ok(0) => break,
            Ok(_) if line.starts_with("-NOAUTH") => answers += 1,
            Ok(_) => bail!("a stranger was answered {line}"),
            Err(error) if closed(&error) => break,
            Err(error) => return Err(error).context("no answer"),
        }
    }
    Ok(answers)
}

/// Whether an error means that the other side closed the connection.
fn closed(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset};
    matches!(
        error.kind(),
        BrokenPipe | ConnectionReset | ConnectionAborted
    )
}

/// How long one run of `redis-benchmark` may take.
pub(crate) const BENCHMARK_LIMIT: Duration = Duration::from_secs(120);
