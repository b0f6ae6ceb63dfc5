//! The script: a line for each operation, and the bytes that it takes behind it.
//!
//! Each operation is answered by one line that begins with `R`; LIST by one for each payload
//! before it.

use core::time::Duration;

use alloc::string::String;
use alloc::vec::Vec;
use invivo_xen::block::{Block, SIZE};
use invivo_xen::{Buffer, Control, Done, Error, Hypercall, Name, Patience};

use crate::calls::{Direct, be_alone, debug_key, wait};
use crate::console::say;

/// Does all that a script says.
pub fn run(script: &[u8]) {
    let mut control = match Control::open(Direct) {
        Ok(control) => control,
        Err(error) => return say!("R error {error}"),
    };
    let mut rest = script;
    while let Some(end) = rest.iter().position(|&byte| byte == b'\n') {
        let line = core::str::from_utf8(&rest[..end]).unwrap_or("?");
        rest = &rest[end + 1..];
        let words: Vec<&str> = line.split(' ').collect();
        say!("> {line}");
        if !operation(&mut control, &words, &mut rest) {
            return;
        }
    }
}

/// Does one operation; false ends the script.
fn operation(control: &mut Control<Direct>, words: &[&str], rest: &mut &[u8]) -> bool {
    match words {
        ["upload", name, length] => {
            let payload = take(rest, length);
            told(Name::new(name).and_then(|name| control.upload(&name, payload)));
        }
        ["get", name] => match Name::new(name).and_then(|name| control.get(&name)) {
            Ok(status) => say!("R status {} {}", status.state.number(), status.result),
            Err(error) => wrong(&error),
        },
        ["list"] => list(control),
        ["interface"] => say!("R number {}", control.interface()),
        ["version"] => {
            let (major, minor) = control.version();
            say!("R text {major}.{minor}");
        }
        ["extra"] => match control.extra_version() {
            Ok(text) => say!("R text {text}"),
            Err(errno) => say!("R refused {}", errno.0),
        },
        ["build-id"] => match control.build_id() {
            Ok(id) => say!("R text {}", hexadecimal(&id)),
            Err(errno) => say!("R refused {}", errno.0),
        },
        ["key", key] => {
            let returned = debug_key(control.interface(), key.as_bytes()[0]);
            // The hypervisor does what the key says in its own time.
            wait(Duration::from_millis(20));
            say!("R number {returned}");
        }
        ["pause", milliseconds] => {
            wait(Duration::from_millis(number(milliseconds)));
            say!("R number 0");
        }
        ["raw", name, payload] => {
            let mut block = [0; SIZE];
            block.copy_from_slice(take(rest, "136"));
            let (name, payload) = (take(rest, name), take(rest, payload));
            let mut buffers = Vec::new();
            for (handle, bytes) in [(16, name), (40, payload)] {
                if !bytes.is_empty() {
                    buffers.push(Buffer::In { handle, bytes });
                }
            }
            say!(
                "R number {}",
                Direct.sysctl(&mut Block::raw(block), &mut buffers)
            );
        }
        ["alone"] => be_alone(),
        ["end"] => return false,
        [action, name, whole, rendezvous, attempts, nodeps] => {
            let patience = Patience {
                whole: Duration::from_millis(number(whole)),
                rendezvous: Duration::from_micros(number(rendezvous)),
                attempts: number(attempts) as u32,
            };
            let done = Name::new(name).and_then(|name| match *action {
                "apply" => control.apply(&name, *nodeps == "nodeps", patience),
                "replace" => control.replace(&name, patience),
                "revert" => control.revert(&name, patience),
                _ => control.unload(&name, patience),
            });
            match done {
                Ok(Done { attempts, took }) => say!("R done {attempts} {}", took.as_micros()),
                Err(error) => wrong(&error),
            }
        }
        _ => say!("R error not an operation"),
    }
    true
}

fn list(control: &mut Control<Direct>) {
    let listing = match control.list() {
        Ok(listing) => listing,
        Err(error) => return wrong(&error),
    };
    for one in &listing.payloads {
        let (state, result) = (one.status.state.number(), one.status.result);
        let metadata: String = one.metadata.iter().flat_map(|text| ["\t", text]).collect();
        say!("R entry {state} {result} {}{metadata}", one.name);
    }
    say!("R listed {}", listing.version);
}

fn told(result: Result<(), Error>) {
    match result {
        Ok(()) => say!("R done 1 0"),
        Err(error) => wrong(&error),
    }
}

fn wrong(error: &Error) {
    match error {
        Error::Refused { errno, .. } => say!("R refused {}", errno.0),
        Error::Failed { errno, state, .. } => say!("R failed {} {}", errno.0, state.number()),
        Error::Busy {
            attempts, begun, ..
        } => say!("R busy {attempts} {begun}"),
        Error::Pending { waited, .. } => say!("R pending {}", waited.as_micros()),
        other => say!("R error {other}"),
    }
}

/// The bytes behind a line, and the line's end behind them.
fn take<'a>(rest: &mut &'a [u8], length: &str) -> &'a [u8] {
    let (bytes, behind) = rest.split_at(number(length) as usize);
    *rest = behind.strip_prefix(b"\n").unwrap_or(behind);
    bytes
}

fn number(text: &str) -> u64 {
    text.parse().expect("the script's numbers are numbers")
}

fn hexadecimal(bytes: &[u8]) -> String {
    let digit = |number: u8| char::from_digit(u32::from(number), 16).unwrap_or('?');
    bytes
        .iter()
        .flat_map(|byte| [digit(byte >> 4), digit(byte & 15)])
        .collect()
}
