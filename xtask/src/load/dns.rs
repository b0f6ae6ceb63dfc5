//! A DNS client that knows each answer in advance.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpStream, UdpSocket};

use anyhow::{Context, Result, ensure};

use super::{Client, PATIENCE};
use crate::process;

const A: u16 = 1;
const NS: u16 = 2;

/// A query for one name, with recursion desired.
fn query(id: u16, name: &str, kind: u16) -> Vec<u8> {
    let mut packet = Vec::new();
    for field in [id, 0x0100, 1, 0, 0, 0] {
        packet.extend(field.to_be_bytes());
    }
    for label in name.split('.') {
        packet.push(u8::try_from(label.len()).expect("labels of the corpus are short"));
        packet.extend(label.bytes());
    }
    packet.push(0);
    packet.extend(kind.to_be_bytes());
    packet.extend(1_u16.to_be_bytes());
    packet
}

/// How many records an answer to this query holds; an answer to another query, or
/// one that tells of a failure, is an error.
fn records(query: &[u8], answer: &[u8]) -> Result<u16> {
    let word = |at: usize| Some(u16::from_be_bytes([*answer.get(at)?, *answer.get(at + 1)?]));
    let (flags, count) = word(2).zip(word(6)).context("an answer without a head")?;
    ensure!(
        answer.get(..2) == query.get(..2),
        "the answer to another query"
    );
    ensure!(
        flags & 0x8000 != 0 && flags & 0xf == 0,
        "no success: {flags:04x}"
    );
    ensure!(
        answer.get(12..query.len()) == query.get(12..),
        "the answer to another question"
    );
    Ok(count)
}

/// The zone that the server knows: `h1` to `h50` have an address each, and `many`
/// has three hundred name servers.
pub(crate) fn zone() -> String {
    let mut zone = "local-zone: \"corpus.test.\" static\n".to_owned();
    let mut add = |record: String| zone += &format!("local-data: \"{record}\"\n");
    for host in 1..=HOSTS {
        add(format!("h{host}.corpus.test. 60 IN A 127.0.1.{host}"));
    }
    for server in 1..=SERVERS {
        add(format!(
            "many.corpus.test. 60 IN NS ns{server}.a.corpus.test."
        ));
    }
    zone
}

const HOSTS: u8 = 50;
const SERVERS: u16 = 300;

/// A socket that asks one server.
fn socket(port: u16) -> Result<UdpSocket> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    socket.connect(process::address(port))?;
    socket.set_read_timeout(Some(PATIENCE))?;
    Ok(socket)
}

/// Asks for the addresses of a name by a datagram; returns how many there are.
pub(crate) fn addresses(port: u16, name: &str) -> Result<u16> {
    let (socket, query) = (socket(port)?, query(1, name, A));
    socket.send(&query).context("cannot send")?;
    let mut answer = [0; 512];
    let length = socket.recv(&mut answer).context("no answer")?;
    records(&query, answer.get(..length).context("a long answer")?)
}

/// Asks for addresses until the run ends.
pub(crate) fn work(client: &mut Client, port: u16) -> Result<()> {
    let socket = socket(port)?;
    let mut answer = [0; 512];
    let mut round = 0_u16;
    while client.goes_on() {
        let host = u8::try_from(round % u16::from(HOSTS)).expect("it is below HOSTS") + 1;
        let query = query(round, &format!("h{host}.corpus.test"), A);
        let sent = client.send();
        socket.send(&query).context("cannot send")?;
        let length = receive(&socket, &mut answer).context("no answer")?;
        let answer = answer.get(..length).context("a long answer")?;
        let right = records(&query, answer)? == 1
            && answer
                .get(query.len()..)
                .is_some_and(|record| record.ends_with(&[0, 4, 127, 0, 1, host]));
        client.receive(sent, 1, u64::from(!right));
        round = round.wrapping_add(1);
    }
    Ok(())
}

/// Receives a packet. When the whole machine is frozen for a moment, a call with a
/// time-out comes back without one.
fn receive(socket: &UdpSocket, packet: &mut [u8]) -> std::io::Result<usize> {
    loop {
        match socket.recv(packet) {
            Err(error) if error.kind() == ErrorKind::Interrupted => (),
            received => return received,
        }
    }
}

/// Asks for the three hundred name servers; returns the length of the answer.
pub(crate) fn name_servers(port: u16) -> Result<usize> {
    let query = query(1, "many.corpus.test", NS);
    let answer = connected(port, &query)?;
    let records = records(&query, &answer)?;
    ensure!(records == SERVERS, "{records} of {SERVERS} records");
    Ok(answer.len())
}

/// Asks for the addresses of a name by a connection; returns how many there are, or
/// `None` where the server says that it failed.
pub(crate) fn many_addresses(port: u16, name: &str) -> Result<Option<u16>> {
    const SERVER_FAILURE: u8 = 2;
    let query = query(1, name, A);
    let answer = connected(port, &query)?;
    if answer.get(3).context("half a head")? & 0xf == SERVER_FAILURE {
        return Ok(None);
    }
    records(&query, &answer).map(Some)
}

/// The answer to a query that is sent by a connection.
fn connected(port: u16, query: &[u8]) -> Result<Vec<u8>> {
    let mut stream =
        TcpStream::connect_timeout(&process::address(port), PATIENCE).context("cannot connect")?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut packet = u16::try_from(query.len())?.to_be_bytes().to_vec();
    packet.extend(query);
    stream.write_all(&packet).context("cannot send")?;
    let mut length = [0; 2];
    stream.read_exact(&mut length).context("no answer")?;
    let mut answer = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut answer).context("half an answer")?;
    Ok(answer)
}
