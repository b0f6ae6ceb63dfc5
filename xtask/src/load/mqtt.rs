//! An MQTT 3.1.1 client that gets back each message that it sends.

use std::io::{BufReader, ErrorKind, Read, Write};
use std::net::TcpStream;

use anyhow::{Context, Result, bail, ensure};

use super::{Client, PATIENCE};
use crate::process;

const CONNECT: u8 = 0x10;
const CONNACK: u8 = 0x20;
const PUBLISH: u8 = 0x30;
const PUBACK: u8 = 0x40;
const PUBREC: u8 = 0x50;
const PUBREL: u8 = 0x62;
const PUBCOMP: u8 = 0x70;
const SUBSCRIBE: u8 = 0x82;
const SUBACK: u8 = 0x90;
const DUPLICATE: u8 = 0x08;

/// No message of the corpus is longer.
const PACKET_LIMIT: usize = 1 << 16;

/// Messages on one connection before the next one is opened.
const MESSAGES_PER_CONNECTION: u16 = 500;

/// A connection to a broker, with a session of its own.
#[derive(Debug)]
struct Connection(BufReader<TcpStream>);

/// What a broker sends: the kind with its flags, and the rest.
type Packet = (u8, Vec<u8>);

/// A text with its length before it.
fn text(text: &str) -> Vec<u8> {
    let length = u16::try_from(text.len()).expect("texts of the corpus are short");
    [&length.to_be_bytes(), text.as_bytes()].concat()
}

impl Connection {
    fn open(port: u16, name: &str) -> Result<Self> {
        let stream = TcpStream::connect_timeout(&process::address(port), PATIENCE)
            .context("cannot connect")?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        let mut connection = Self(BufReader::new(stream));
        // Version 4 of the protocol, a clean session, a minute without a word.
        let head = [&text("MQTT")[..], &[4, 2, 0, 60], &text(name)].concat();
        connection.send(CONNECT, &head)?;
        let (kind, body) = connection.receive()?.context("no greeting")?;
        ensure!(
            kind == CONNACK && body.get(1) == Some(&0),
            "not let in: {kind:#x} {body:02x?}"
        );
        Ok(connection)
    }

    fn send(&mut self, kind: u8, body: &[u8]) -> Result<()> {
        let mut packet = vec![kind];
        let mut length = body.len();
        loop {
            let low = u8::try_from(length % 128).expect("seven bits");
            length /= 128;
            packet.push(low | if length > 0 { 0x80 } else { 0 });
            if length == 0 {
                break;
            }
        }
        packet.extend(body);
        self.0.get_mut().write_all(&packet).context("cannot send")
    }

    /// The next packet, or nothing where the broker closed the connection.
    fn receive(&mut self) -> Result<Option<Packet>> {
        let Some(kind) = self.byte()? else {
            return Ok(None);
        };
        let mut length = 0_usize;
        for shift in [0, 7, 14, 21] {
            let byte = self.byte()?.context("half a packet")?;
            length |= usize::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                break;
            }
        }
        ensure!(length <= PACKET_LIMIT, "a packet of {length} bytes");
        let mut body = vec![0; length];
        self.0.read_exact(&mut body).context("half a packet")?;
        Ok(Some((kind, body)))
    }

    fn byte(&mut self) -> Result<Option<u8>> {
        let mut byte = [0];
        match self.0.read(&mut byte) {
            Ok(0) => Ok(None),
            Ok(_) => Ok(Some(byte[0])),
            // It was closed while something of ours was still on its way.
            Err(error) if error.kind() == ErrorKind::ConnectionReset => Ok(None),
            Err(error) => Err(error).context("no answer"),
        }
    }

    fn subscribe(&mut self, topic: &str, quality: u8) -> Result<()> {
        self.send(SUBSCRIBE, &[&[0, 1][..], &text(topic), &[quality]].concat())?;
        let (kind, body) = self.receive()?.context("no answer to a subscription")?;
        ensure!(
            kind == SUBACK && body == [0, 1, quality],
            "not subscribed: {kind:#x} {body:02x?}"
        );
        Ok(())
    }

    fn publish(&mut self, flags: u8, topic: &str, id: u16, payload: &[u8]) -> Result<()> {
        let mut body = text(topic);
        if flags & 0x06 != 0 {
            body.extend(id.to_be_bytes());
        }
        body.extend(payload);
        self.send(PUBLISH | flags, &body)
    }

    /// Sends a message and does all that its quality asks for until it has come
    /// back; says whether it came back as it was, once.
    fn round(&mut self, topic: &str, quality: u8, id: u16, payload: &[u8]) -> Result<bool> {
        self.publish(quality << 1, topic, id, payload)?;
        let (mut accepted, mut delivered) = (quality == 0, false);
        let mut right = true;
        while !(accepted && delivered) {
            let (kind, body) = self
                .receive()?
                .context("the broker closed the connection")?;
            match kind {
                PUBACK | PUBCOMP => accepted = true,
                // PUBREC, or PUBREL, is answered with what comes next, for the same id.
                PUBREC => self.send(PUBREL, &body)?,
                PUBREL => {
                    self.send(PUBCOMP, &body)?;
                    delivered = true;
                }
                _ if kind & 0xf0 == PUBLISH => {
                    let rest = body.strip_prefix(&text(topic)[..]);
                    let rest = rest.context("a message of another topic")?;
                    let (id, seen) = rest
                        .split_at_checked(if quality == 0 { 0 } else { 2 })
                        .context("a message without an id")?;
                    right &= seen == payload && kind == PUBLISH | quality << 1;
                    match quality {
                        0 => delivered = true,
                        1 => {
                            self.send(PUBACK, id)?;
                            delivered = true;
                        }
                        _ => self.send(PUBREC, id)?,
                    }
                }
                _ => bail!("an answer of kind {kind:#x}"),
            }
        }
        Ok(right)
    }
}

/// Sends messages of one quality to itself until the run ends.
pub(crate) fn work(client: &mut Client, port: u16, quality: u8) -> Result<()> {
    let (name, topic) = (format!("load{quality}"), format!("load/{quality}"));
    let mut number = 0_u64;
    while client.goes_on() {
        let mut connection = Connection::open(port, &name)?;
        connection.subscribe(&topic, quality)?;
        for id in 1..=MESSAGES_PER_CONNECTION {
            if !client.goes_on() {
                break;
            }
            let sent = client.send();
            let payload = format!("message {number}");
            let right = connection.round(&topic, quality, id, payload.as_bytes())?;
            client.receive(sent, 1, u64::from(!right));
            number += 1;
        }
    }
    Ok(())
}

/// Sends one message that must arrive exactly once again and again, marked as a
/// duplicate; returns how often the broker takes it, up to `times`.
pub(crate) fn duplicates(port: u16, times: u32) -> Result<u32> {
    let mut connection = Connection::open(port, "probe")?;
    for taken in 0..times {
        let sent = connection.publish(0x04 | DUPLICATE, "probe", 1, b"again");
        // Once it has closed the connection, it depends on time which of the two fails.
        let answer = if sent.is_ok() {
            connection.receive()?
        } else {
            None
        };
        match answer {
            Some((PUBREC, _)) => (),
            Some((kind, body)) => bail!("an answer of kind {kind:#x}: {body:02x?}"),
            None => return Ok(taken),
        }
    }
    Ok(times)
}
