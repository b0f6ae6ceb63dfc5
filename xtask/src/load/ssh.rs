//! The first words of SSH: RFC 4253, sections 4.2, 6 and 7.1.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;

use anyhow::{Context, Result, ensure};

use super::PATIENCE;
use crate::process;

const KEXINIT: u8 = 20;

/// No packet may be longer before keys are agreed upon.
const PACKET_LIMIT: u32 = 35_000;

/// The ways to exchange keys that a server offers, with commas between them.
pub(crate) fn key_exchanges(port: u16) -> Result<String> {
    let mut stream =
        TcpStream::connect_timeout(&process::address(port), PATIENCE).context("cannot connect")?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"SSH-2.0-probe\r\n")?;
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    while !line.starts_with("SSH-") {
        line.clear();
        let length = stream.read_line(&mut line).context("no greeting")?;
        ensure!(length > 0, "the server closed the connection");
    }
    let length = number(&mut stream)?;
    ensure!(length <= PACKET_LIMIT, "a packet of {length} bytes");
    let mut packet = vec![0; length as usize];
    stream.read_exact(&mut packet).context("half a packet")?;
    // The length of the padding, the kind, and a cookie of sixteen bytes.
    ensure!(packet.get(1) == Some(&KEXINIT), "no offer: {packet:02x?}");
    let mut lists = packet.get(18..).context("an offer without lists")?;
    let length = number(&mut lists)?;
    let names = lists.get(..length as usize).context("half a list")?;
    Ok(String::from_utf8_lossy(names).into_owned())
}

fn number(from: &mut impl Read) -> Result<u32> {
    let mut bytes = [0; 4];
    from.read_exact(&mut bytes).context("no number")?;
    Ok(u32::from_be_bytes(bytes))
}
