//! Answers that no hypervisor of the tests can be made to give: other interface versions, lists
//! that change while they are read, actions that never end. All else is tested on real ones
//! (`tests/xen`).

use std::time::Duration;

use invivo_xen::block::Block;
use invivo_xen::{Buffer, Control, Errno, Error, Hypercall, Name, Operation, Patience, State};

/// A hypervisor as far as these tests need one. Nothing but time passes by itself.
#[derive(Default)]
struct Odd {
    interface: u32,
    /// What it says to a call of its own interface instead of an answer.
    refuses: Option<Errno>,
    /// The payloads, all of them checked.
    names: Vec<String>,
    /// What it says to the next calls of LIST that ask for entries.
    list_errors: Vec<Errno>,
    /// Entries that it gives in one call.
    at_once: usize,
    /// So many of the calls of LIST change the list before they are answered.
    changes: u32,
    version: u32,
    /// The result of every payload.
    result: i32,
    /// What an action is answered by.
    action: Option<Errno>,
    actions: u32,
    time: Duration,
}

impl Odd {
    fn with(interface: u32, names: &[&str]) -> Odd {
        Odd {
            interface,
            names: names.iter().map(|&name| name.to_owned()).collect(),
            at_once: 2,
            ..Odd::default()
        }
    }

    fn list(&mut self, bytes: &mut [u8; 136], buffers: &mut [Buffer<'_>]) -> i64 {
        if self.changes > 0 {
            self.changes -= 1;
            self.version += 1;
        }
        let (index, number) = (word(bytes, 20) as usize, word(bytes, 24) as usize);
        put(bytes, 16, self.version);
        let [status, names, lengths, metadata, metadata_lengths] = buffers else {
            put(bytes, 24, self.names.len() as u32);
            put(bytes, 36, 4 * self.names.len() as u32);
            return 0;
        };
        if let Some(errno) = self.list_errors.pop() {
            return -i64::from(errno.0);
        }
        let given: Vec<String> = self
            .names
            .iter()
            .skip(index)
            .take(number.min(self.at_once))
            .cloned()
            .collect();
        put(bytes, 24, (self.names.len() - index - given.len()) as u32);
        let (mut name_at, mut metadata_at) = (0, 0);
        for (at, name) in given.iter().enumerate() {
            out(status, at * 8, &1u32.to_le_bytes());
            out(status, at * 8 + 4, &self.result.to_le_bytes());
            let text = format!("{name}\0");
            out(names, name_at, text.as_bytes());
            out(lengths, at * 4, &(text.len() as u32).to_le_bytes());
            name_at += text.len();
            out(metadata, metadata_at, b"a=b\0");
            out(metadata_lengths, at * 4, &4u32.to_le_bytes());
            metadata_at += 4;
        }
        given.len() as i64
    }
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn put(bytes: &mut [u8], at: usize, value: u32) {
    bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
}

fn out(buffer: &mut Buffer<'_>, at: usize, value: &[u8]) {
    let Buffer::Out { bytes, .. } = buffer else {
        unreachable!("the answer goes to a buffer of the answer")
    };
    bytes[at..at + value.len()].copy_from_slice(value);
}

impl Hypercall for Odd {
    fn sysctl(&mut self, block: &mut Block, buffers: &mut [Buffer<'_>]) -> i64 {
        let bytes = block.bytes_mut();
        assert_eq!(word(bytes, 0), 27);
        if word(bytes, 4) != self.interface {
            return -i64::from(Errno::EACCES.0);
        }
        if let Some(errno) = self.refuses {
            return -i64::from(errno.0);
        }
        match word(bytes, 8) {
            1 => {
                put(bytes, 32, 1);
                put(bytes, 36, self.result.cast_unsigned());
                0
            }
            2 => self.list(bytes, buffers),
            3 => {
                self.actions += 1;
                self.action.map_or(0, |errno| -i64::from(errno.0))
            }
            other => unreachable!("operation {other}"),
        }
    }

    fn version(&mut self, _what: u32, _answer: Option<&mut [u8]>) -> i64 {
        4 << 16 | 13
    }

    fn now(&mut self) -> Duration {
        self.time
    }

    fn pause(&mut self, time: Duration) {
        self.time += time;
    }
}

fn name(text: &str) -> Name {
    Name::new(text).expect("a name that Xen takes")
}

#[test]
fn every_interface_is_found() {
    for interface in 0x13..=0x16 {
        let control = Control::open(Odd::with(interface, &[]))
            .unwrap_or_else(|error| unreachable!("{error}"));
        assert_eq!(control.interface(), interface);
    }
    let old = Control::open(Odd::with(0x12, &[])).err();
    let (major, minor) = (4, 13);
    assert_eq!(old, Some(Error::Interface { major, minor }));
}

#[test]
fn who_may_not_is_told_why() {
    for (errno, error) in [
        (Errno::EPERM, Error::NotPrivileged),
        (Errno::ENOSYS, Error::NoLivepatch),
    ] {
        let mut odd = Odd::with(0x15, &[]);
        odd.refuses = Some(errno);
        assert_eq!(Control::open(odd).err(), Some(error));
    }
}

#[test]
fn a_list_that_changes_is_read_anew() {
    let mut odd = Odd::with(0x16, &["one", "two", "three"]);
    odd.changes = 5;
    odd.list_errors = vec![Errno::ENOBUFS, Errno::EINVAL];
    let mut control = Control::open(odd).unwrap_or_else(|error| unreachable!("{error}"));
    let list = control.list().unwrap();
    assert_eq!(list.version, 5);
    let names: Vec<&str> = list.payloads.iter().map(|one| &*one.name).collect();
    assert_eq!(names, ["one", "two", "three"]);
    assert!(list.payloads.iter().all(|one| one.metadata == ["a=b"]));

    control.hypercall().changes = u32::MAX;
    assert_eq!(control.list(), Err(Error::Unsteady));
    control.hypercall().changes = 0;
    control.hypercall().list_errors = vec![Errno::E2BIG];
    let refused = control.list().err().and_then(|error| error.errno());
    assert_eq!(refused, Some(Errno::E2BIG));
    // No progress is no reason to ask for ever.
    control.hypercall().at_once = 0;
    assert!(matches!(control.list(), Err(Error::Answer { .. })));
}

#[test]
fn an_action_that_never_ends_is_told() {
    let mut odd = Odd::with(0x15, &["fix"]);
    odd.result = -Errno::EAGAIN.0;
    let mut control = Control::open(odd).unwrap_or_else(|error| unreachable!("{error}"));
    let patience = Patience {
        whole: Duration::from_millis(200),
        ..Patience::default()
    };
    let pending = control.apply(&name("fix"), false, patience);
    assert!(matches!(
        pending,
        Err(Error::Pending {
            operation: Operation::Apply,
            ..
        })
    ));

    // Another action keeps it from beginning: it is tried as long as that goes on.
    control.hypercall().action = Some(Errno::EBUSY);
    control.hypercall().actions = 0;
    let busy = control.apply(&name("fix"), false, Patience::default());
    let (operation, begun) = (Operation::Apply, false);
    let attempts = Patience::default().attempts;
    assert_eq!(
        busy,
        Err(Error::Busy {
            operation,
            attempts,
            begun
        })
    );
    assert_eq!(control.hypercall().actions, attempts);

    // Nothing goes on, so that the same number means something else.
    control.hypercall().result = 0;
    let refused = control.unload(&name("fix"), Patience::default());
    let (operation, errno) = (Operation::Unload, Errno::EBUSY);
    assert_eq!(refused, Err(Error::Refused { operation, errno }));
}

/// Says 0, and the payload is where it was.
#[test]
fn a_result_that_cannot_be_is_no_success() {
    let mut control =
        Control::open(Odd::with(0x15, &["fix"])).unwrap_or_else(|error| unreachable!("{error}"));
    let odd = control.apply(&name("fix"), false, Patience::default());
    assert!(matches!(odd, Err(Error::Answer { .. })), "{odd:?}");
    assert_eq!(control.get(&name("fix")).unwrap().state, State::Checked);
}

#[test]
fn names_are_those_that_xen_takes() {
    let longest = "x".repeat(127);
    for good in ["a", "CVE-2024-31228 (2)", "ünïcödé", &longest] {
        assert_eq!(name(good).as_str(), good);
    }
    let too_long = "x".repeat(128);
    for bad in ["", "a\0b", "a\nb", "\x1b[31m", &too_long] {
        assert!(matches!(Name::new(bad), Err(Error::Name(_))), "{bad:?}");
    }
}
