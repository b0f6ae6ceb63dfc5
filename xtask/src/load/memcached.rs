//! A client of memcached's binary protocol, with SASL.

use std::io::{Read, Write};
use std::net::TcpStream;

use anyhow::{Context, Result, bail, ensure};

use super::{Client, PATIENCE};
use crate::process;

const GET: u8 = 0x00;
const SET: u8 = 0x01;
const AUTHENTICATE: u8 = 0x21;

/// Requests on one connection before it is closed and opened, and the user
/// looked up, again.
const REQUESTS_PER_LOGIN: u64 = 400;

/// A connection to a memcached server.
#[derive(Debug)]
pub(crate) struct Connection(TcpStream);

impl Connection {
    pub(crate) fn open(port: u16) -> Result<Self> {
        let stream = TcpStream::connect_timeout(&process::address(port), PATIENCE)
            .context("cannot connect")?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        Ok(Self(stream))
    }

    /// Sends one request; returns the status and the value of the answer.
    fn request(
        &mut self,
        operation: u8,
        key: &[u8],
        extras: &[u8],
        value: &[u8],
    ) -> Result<(u16, Vec<u8>)> {
        let key_length = u16::try_from(key.len())?;
        let extras_length = u8::try_from(extras.len())?;
        let body_length = u32::try_from(extras.len() + key.len() + value.len())?;
        let mut packet = vec![0x80, operation];
        packet.extend(key_length.to_be_bytes());
        packet.extend([extras_length, 0, 0, 0]);
        packet.extend(body_length.to_be_bytes());
        packet.extend([0; 12]);
        packet.extend(extras);
        packet.extend(key);
        packet.extend(value);
        self.0.write_all(&packet).context("cannot send")?;

        let mut head = [0; 24];
        self.0.read_exact(&mut head).context("no answer")?;
        let [
            magic,
            answered,
            k0,
            k1,
            extras,
            _,
            s0,
            s1,
            b0,
            b1,
            b2,
            b3,
            ..,
        ] = head;
        if magic != 0x81 || answered != operation {
            bail!("not an answer to operation {operation:#x}: {head:02x?}");
        }
        let mut body = vec![0; u32::from_be_bytes([b0, b1, b2, b3]) as usize];
        self.0.read_exact(&mut body).context("half an answer")?;
        let skip = usize::from(extras) + usize::from(u16::from_be_bytes([k0, k1]));
        ensure!(
            skip <= body.len(),
            "an answer whose lengths do not fit: {head:02x?}"
        );
        Ok((u16::from_be_bytes([s0, s1]), body.split_off(skip)))
    }

    /// Logs in; says whether the server accepted the password.
    pub(crate) fn login(&mut self, user: &str, password: &str) -> Result<bool> {
        let secret = format!("\0{user}\0{password}");
        let (status, _) = self.request(AUTHENTICATE, b"PLAIN", b"", secret.as_bytes())?;
        Ok(status == 0)
    }
}

/// Logs in, sets and gets until the run ends.
pub(crate) fn work(client: &mut Client, port: u16, number: usize) -> Result<()> {
    let mut round = 0_u64;
    while client.goes_on() {
        let sent = client.send();
        let mut connection = Connection::open(port)?;
        let accepted = connection.login("load", "pw")?;
        client.receive(sent, 1, u64::from(!accepted));
        ensure!(accepted, "the server refused a right password");
        for _ in 0..REQUESTS_PER_LOGIN {
            if !client.goes_on() {
                break;
            }
            let key = format!("k:{number}:{}", round % 500);
            let value = format!("{round}:{}", "v".repeat((round % 900) as usize));
            let sent = client.send();
            let (status, _) = connection.request(SET, key.as_bytes(), &[0; 8], value.as_bytes())?;
            client.receive(sent, 1, u64::from(status != 0));
            let sent = client.send();
            let (status, seen) = connection.request(GET, key.as_bytes(), b"", b"")?;
            client.receive(sent, 1, u64::from(status != 0 || seen != value.as_bytes()));
            round += 1;
        }
    }
    Ok(())
}
