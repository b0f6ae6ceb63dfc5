//! The DNS server that resolvers of the corpus ask: it knows every name, and answers
//! until the chore ends.

use std::net::{Ipv4Addr, UdpSocket};
use std::thread;

use anyhow::Result;

/// The most that one datagram holds without extensions.
const DATAGRAM: usize = 512;

/// Starts the server on a port of 127.0.0.1, which it returns.
pub(crate) fn start() -> Result<u16> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    let port = socket.local_addr()?.port();
    thread::spawn(move || {
        let mut query = [0; DATAGRAM];
        while let Ok((length, from)) = socket.recv_from(&mut query) {
            // Who sent nonsense, or went away meanwhile, gets no answer.
            let answer = query.get(..length).and_then(answer);
            let _ = answer.map(|answer| socket.send_to(&answer, from));
        }
    });
    Ok(port)
}

/// Answers a question with an address: 127.0.1.7 for `h7`, 127.0.1.0 for names that
/// hold no number.
fn answer(query: &[u8]) -> Option<Vec<u8>> {
    let mut end = 12;
    while *query.get(end)? != 0 {
        end += 1 + usize::from(*query.get(end)?);
    }
    let question = query.get(12..end + 5)?;
    let first = question.get(1..=usize::from(*question.first()?))?;
    let host = std::str::from_utf8(first).ok()?.strip_prefix('h');
    let host = host.and_then(|host| host.parse().ok()).unwrap_or(0);
    let mut packet = query.get(..2)?.to_vec();
    // An answer with authority, and one record.
    for field in [0x8580_u16, 1, 1, 0, 0] {
        packet.extend(field.to_be_bytes());
    }
    packet.extend(question);
    // The name of the question, an address of the Internet, for a minute.
    packet.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 127, 0, 1, host]);
    Some(packet)
}
