//! Reading the list of payloads, which may change meanwhile.

use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

use crate::block::{Block, ListHeader, ListRoom, State, word};
use crate::control::Control;
use crate::{Errno, Error, Hypercall, Operation, Status};

/// How many entries one call asks for.
const PART: u32 = 64;
/// The longest name with its NUL (`XEN_LIVEPATCH_NAME_SIZE`).
const NAME: usize = 128;
/// So often the list is read anew when it changes.
const READINGS: u32 = 8;
/// More payloads than that are not believed; each takes memory and symbols of the hypervisor.
const MOST: u32 = 1 << 16;
/// The most bytes of metadata that are read.
const MOST_METADATA: u32 = 16 << 20;

/// A payload that is loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its name.
    pub name: String,
    /// State and last result.
    pub status: Status,
    /// What its `.modinfo` says, `key=value` each.
    pub metadata: Vec<String>,
}

/// All payloads at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listing {
    /// A number that changes when a payload is uploaded or unloaded.
    pub version: u32,
    /// The payloads, in the order of their upload.
    pub payloads: Vec<Listed>,
}

/// Why a reading has to begin again, or cannot be had.
enum Trouble {
    Changed,
    Fatal(Error),
}

impl<H: Hypercall> Control<H> {
    /// All payloads. The list is read in parts; it is read anew when it changed between two.
    ///
    /// # Errors
    ///
    /// [`Error::Unsteady`] if it changed each time, [`Error::Refused`], [`Error::Answer`].
    pub fn list(&mut self) -> Result<Listing, Error> {
        for _ in 0..READINGS {
            match self.read_list() {
                Ok(listing) => return Ok(listing),
                Err(Trouble::Changed) => {}
                Err(Trouble::Fatal(error)) => return Err(error),
            }
        }
        Err(Error::Unsteady)
    }

    fn read_list(&mut self) -> Result<Listing, Trouble> {
        let mut block = Block::count(self.interface());
        let returned = self.hypercall().sysctl(&mut block, &mut []);
        Errno::check(returned).map_err(refused)?;
        let whole = block.list_header();
        if whole.remaining > MOST || whole.metadata > MOST_METADATA {
            return Err(wrong("more payloads or metadata than can be"));
        }
        let mut payloads = Vec::new();
        let mut index = 0;
        while index < whole.remaining {
            let number = PART.min(whole.remaining - index);
            let given = self.read_part(index, number, whole, &mut payloads)?;
            index += given;
        }
        Ok(Listing {
            version: whole.version,
            payloads,
        })
    }

    /// Reads some entries; fewer than were asked for where the hypervisor had other things to do.
    fn read_part(
        &mut self,
        index: u32,
        number: u32,
        whole: ListHeader,
        payloads: &mut Vec<Listed>,
    ) -> Result<u32, Trouble> {
        let count = number as usize;
        let (mut status, mut names) = (vec![0; count * 8], vec![0; count * NAME]);
        let (mut name_lengths, mut metadata_lengths) = (vec![0; count * 4], vec![0; count * 4]);
        // Xen checks the address even where nothing is to be written there.
        let mut metadata = vec![0; (whole.metadata as usize).max(8)];
        let room = ListRoom {
            status: &mut status,
            names: &mut names,
            name_lengths: &mut name_lengths,
            metadata: &mut metadata,
            metadata_lengths: &mut metadata_lengths,
        };
        let (mut block, mut buffers) = Block::list(self.interface(), index, number, room);
        let returned = self.hypercall().sysctl(&mut block, &mut buffers);
        let given = match Errno::check(returned) {
            Ok(given) => given,
            // The list became shorter, or what is in it longer.
            Err(Errno::EINVAL | Errno::ENOBUFS | Errno::EFAULT) => return Err(Trouble::Changed),
            Err(errno) => return Err(refused(errno)),
        };
        let header = block.list_header();
        if header.version != whole.version {
            return Err(Trouble::Changed);
        }
        let given = u32::try_from(given)
            .ok()
            .filter(|given| (1..=number).contains(given))
            .ok_or(wrong("it gave other entries than were asked for"))?;
        let texts = (&names[..], &name_lengths[..]);
        let more = (&metadata[..], &metadata_lengths[..]);
        entries(given as usize, &status, texts, more, payloads)
            .ok_or(wrong("a length leads out of what it gave"))?;
        Ok(given)
    }
}

/// Takes the entries apart; nothing if a length leads out of the bytes that there are.
fn entries(
    given: usize,
    status: &[u8],
    (names, name_lengths): (&[u8], &[u8]),
    (metadata, metadata_lengths): (&[u8], &[u8]),
    payloads: &mut Vec<Listed>,
) -> Option<()> {
    let (mut name_at, mut metadata_at) = (0usize, 0usize);
    for entry in 0..given {
        let name_end = name_at.checked_add(word(name_lengths, entry)? as usize)?;
        let name = names.get(name_at..name_end)?;
        let metadata_end = metadata_at.checked_add(word(metadata_lengths, entry)? as usize)?;
        let texts = metadata.get(metadata_at..metadata_end)?;
        (name_at, metadata_at) = (name_end, metadata_end);
        let name = name.split(|&byte| byte == 0).next()?;
        let texts = texts
            .split(|&byte| byte == 0)
            .filter(|text| !text.is_empty());
        payloads.push(Listed {
            name: String::from_utf8_lossy(name).into_owned(),
            status: Status {
                state: State::from_number(word(status, entry * 2)?),
                result: word(status, entry * 2 + 1)?.cast_signed(),
            },
            metadata: texts
                .map(|text| String::from_utf8_lossy(text).into_owned())
                .collect(),
        });
    }
    Some(())
}

fn refused(errno: Errno) -> Trouble {
    Trouble::Fatal(Error::Refused {
        operation: Operation::List,
        errno,
    })
}

fn wrong(what: &'static str) -> Trouble {
    Trouble::Fatal(Error::Answer {
        operation: Operation::List,
        what,
    })
}
