//! A client of HTTP/1.1 that keeps its connection and knows each answer in
//! advance.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;

use anyhow::{Context, Result, bail};

use super::{Client, PATIENCE};
use crate::process;

/// No answer of the corpus is longer.
const BODY_LIMIT: usize = 1 << 20;

/// A connection to an HTTP server.
#[derive(Debug)]
pub(crate) struct Connection(BufReader<TcpStream>);

/// What a server answered.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Vec<u8>,
}

impl Connection {
    pub(crate) fn open(port: u16) -> Result<Self> {
        let stream = TcpStream::connect_timeout(&process::address(port), PATIENCE)
            .context("cannot connect")?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        Ok(Self(BufReader::new(stream)))
    }

    /// Gets a path, with more header lines if there are any, each with its line
    /// end.
    pub(crate) fn get(&mut self, path: &str, headers: &str) -> Result<Answer> {
        self.ask("GET", path, headers, "")
    }

    /// Sends a request of any kind; the header lines say how long the body is.
    pub(crate) fn ask(
        &mut self,
        method: &str,
        path: &str,
        headers: &str,
        body: &str,
    ) -> Result<Answer> {
        let request =
            format!("{method} {path} HTTP/1.1\r\nHost: corpus.test\r\n{headers}\r\n{body}");
        self.0
            .get_mut()
            .write_all(request.as_bytes())
            .context("cannot send")?;
        let head = self.line()?;
        let status = head
            .split(' ')
            .nth(1)
            .and_then(|status| status.parse().ok())
            .with_context(|| format!("an answer that is not HTTP: {head}"))?;
        let mut length = 0_usize;
        loop {
            let line = self.line()?;
            if line.is_empty() {
                break;
            }
            let (name, value) = line.split_once(':').context("a header without a value")?;
            if name.eq_ignore_ascii_case("content-length") {
                length = value.trim().parse().context("no length")?;
            }
        }
        if length > BODY_LIMIT {
            bail!("an answer of {length} bytes");
        }
        let mut body = vec![0; length];
        self.0.read_exact(&mut body).context("half an answer")?;
        Ok(Answer { status, body })
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        if self.0.read_line(&mut line).context("no answer")? == 0 {
            bail!("the server closed the connection");
        }
        Ok(line.trim_end().to_owned())
    }
}

/// Gets paths and compares the answers until the run ends; `page` gives the path
/// and the body for each round.
pub(crate) fn work(
    client: &mut Client,
    port: u16,
    page: impl Fn(u64) -> (String, String),
) -> Result<()> {
    // A new connection now and then, as clients come and go.
    const REQUESTS_PER_CONNECTION: u64 = 500;
    let mut round = 0;
    while client.goes_on() {
        let mut connection = Connection::open(port)?;
        for _ in 0..REQUESTS_PER_CONNECTION {
            if !client.goes_on() {
                break;
            }
            let (path, body) = page(round);
            let sent = client.send();
            let answer = connection.get(&path, "")?;
            let right = answer.status == 200 && answer.body == body.as_bytes();
            client.receive(sent, 1, u64::from(!right));
            round += 1;
        }
    }
    Ok(())
}
