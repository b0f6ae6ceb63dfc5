//! The DNS server that resolvers of the corpus ask: it knows every name, and answers
//! until the chore ends.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::thread;

use anyhow::Result;

/// The most that one datagram holds without extensions.
const DATAGRAM: usize = 512;

/// How many addresses a name has that begins with `big`.
pub(crate) const MANY: u16 = 300;

/// The flag of an answer that was too long for a datagram.
const TRUNCATED: u16 = 0x0200;

/// Starts the server on a port of 127.0.0.1, which it returns.
pub(crate) fn start() -> Result<u16> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    let port = socket.local_addr()?.port();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))?;
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || serve(stream));
        }
    });
    thread::spawn(move || {
        let mut query = [0; DATAGRAM];
        while let Ok((length, from)) = socket.recv_from(&mut query) {
            // Who sent nonsense, or went away meanwhile, gets no answer.
            let answer = query.get(..length);
            let answer = answer.and_then(|query| answer_to(query, DATAGRAM));
            let _ = answer.map(|answer| socket.send_to(&answer, from));
        }
    });
    Ok(port)
}

/// Answers whatever one connection asks.
fn serve(mut stream: TcpStream) -> Option<()> {
    loop {
        let mut length = [0; 2];
        stream.read_exact(&mut length).ok()?;
        let mut query = vec![0; usize::from(u16::from_be_bytes(length))];
        stream.read_exact(&mut query).ok()?;
        let answer = answer_to(&query, usize::from(u16::MAX))?;
        let length = u16::try_from(answer.len()).ok()?;
        let packet = [&length.to_be_bytes()[..], &answer].concat();
        stream.write_all(&packet).ok()?;
    }
}

/// Answers a question with an address: 127.0.1.7 for `h7`, 127.0.1.0 for names that
/// hold no number; with many for `big`, where they have room.
fn answer_to(query: &[u8], room: usize) -> Option<Vec<u8>> {
    let mut end = 12;
    while *query.get(end)? != 0 {
        end += 1 + usize::from(*query.get(end)?);
    }
    let question = query.get(12..end + 5)?;
    let first = question.get(1..=usize::from(*question.first()?))?;
    let name = std::str::from_utf8(first).ok()?;
    let host = name.strip_prefix('h');
    let host: u8 = host.and_then(|host| host.parse().ok()).unwrap_or(0);
    let count = if name.starts_with("big") { MANY } else { 1 };
    let fits = usize::from(count) * 16 + end + 5 <= room;
    let (flags, count) = if fits { (0, count) } else { (TRUNCATED, 0) };
    let mut packet = query.get(..2)?.to_vec();
    // An answer with authority.
    for field in [0x8580 | flags, 1, count, 0, 0] {
        packet.extend(field.to_be_bytes());
    }
    packet.extend(question);
    for number in 0..count {
        let [high, low] = (number + u16::from(host)).to_be_bytes();
        // The name of the question, an address of the Internet, for a minute.
        packet.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
        packet.extend([127, 0, 1 + high, low]);
    }
    Some(packet)
}
