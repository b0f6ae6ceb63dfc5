//! What lies where in a hypervisor.

use std::ops::Range;

use iced_x86::{Decoder, DecoderOptions, Instruction};

use super::super::model_check::LONGEST_NAME;
use super::super::{Hypervisor, Known};

/// The most bytes of an instruction.
const LONGEST: u64 = 15;

/// A hypervisor's file, and where what of it is in memory.
pub(super) struct Places<'x> {
    pub(super) xen: &'x Hypervisor<'x>,
    starts: Vec<u64>,
    things: Vec<Thing<'x>>,
    /// Code that stays.
    pub(super) text: Range<u64>,
    /// Entries from outside, among that code.
    pub(super) entries: Range<u64>,
    /// Code that runs only at boot, without the replacements of alternatives.
    pub(super) boot: Range<u64>,
    constants: Range<u64>,
    data: Range<u64>,
}

/// A function or a variable whose size is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Thing<'x> {
    pub(super) name: &'x str,
    pub(super) start: u64,
    end: u64,
}

impl<'x> Places<'x> {
    /// # Errors
    /// What the file does not tell.
    pub(super) fn of(xen: &'x Hypervisor<'x>) -> Result<Places<'x>, String> {
        let place = |name: &str| {
            let known = xen.find(name.as_bytes()).map(|known| known.address);
            known.ok_or_else(|| format!("the file of Xen does not tell {name}; give xen-syms"))
        };
        let range = |from: &str, to: &str| Ok::<_, String>(place(from)?..place(to)?);
        // What Xen changes when it boots is told there.
        place("__alt_instructions")?;
        let mut starts: Vec<u64> = xen.starts.iter().copied().collect();
        starts.sort_unstable();
        let things = xen.named().filter_map(|(name, known)| {
            let name = std::str::from_utf8(name).ok()?;
            let end = known.address.checked_add(known.size)?;
            let is_one = known.size > 0 && name.len() <= LONGEST_NAME;
            is_one.then_some(Thing {
                name,
                start: known.address,
                end,
            })
        });
        let mut things: Vec<Thing<'x>> = things.collect();
        // Of several names of one place the first one of the alphabet is taken: it comes last.
        things.sort_unstable_by(|a, b| a.start.cmp(&b.start).then(b.name.cmp(a.name)));
        Ok(Places {
            xen,
            starts,
            things,
            text: range("_stext", "_etext")?,
            entries: range("_stextentry", "_etextentry")?,
            boot: range("_sinittext", "_einittext")?,
            constants: range("_srodata", "_erodata")?,
            data: range("__2M_rwdata_start", "_end")?,
        })
    }

    /// The function or variable that a byte is in.
    pub(super) fn holder(&self, at: u64) -> Option<Thing<'x>> {
        let before = self.things.partition_point(|thing| thing.start <= at);
        // Those inside of others begin near them.
        let mut nearest = self.things[..before].iter().rev().take(64);
        nearest.find(|thing| at < thing.end).copied()
    }

    /// True if Xen's own write to it works while it applies payloads: constants are made
    /// writable as code is.
    pub(super) fn is_variable(&self, at: u64) -> bool {
        self.constants.contains(&at) || self.data.contains(&at)
    }

    /// Eight bytes.
    pub(super) fn long(&self, at: u64) -> Option<u64> {
        let bytes = self.xen.bytes(at)?.first_chunk()?;
        Some(u64::from_le_bytes(*bytes))
    }

    /// The nearest name before a place, for messages.
    pub(super) fn shown(&self, at: u64) -> String {
        match self.holder(at) {
            Some(thing) => format!("{}+{:#x}", thing.name, at - thing.start),
            None => format!("{at:#x}"),
        }
    }

    /// The instruction that a byte belongs to; `None` if what is before it cannot be read as code.
    pub(super) fn instruction(&self, at: u64) -> Option<Instruction> {
        let start = self.start_before(at.checked_add(1)?)?;
        let code = self.code(start, at.checked_add(LONGEST)?)?;
        let mut decoder = Decoder::with_ip(64, code, start, DecoderOptions::NONE).into_iter();
        let found = decoder.find(|one| one.is_invalid() || one.next_ip() > at)?;
        (!found.is_invalid()).then_some(found)
    }

    /// The last instruction before a function, without padding.
    pub(super) fn before(&self, function: Known) -> Option<Instruction> {
        let start = self.start_before(function.address)?;
        let code = self.code(start, function.address)?;
        let decoder = Decoder::with_ip(64, code, start, DecoderOptions::NONE);
        let is_padding = |one: &Instruction| {
            matches!(
                one.mnemonic(),
                iced_x86::Mnemonic::Nop | iced_x86::Mnemonic::Int3
            )
        };
        decoder.into_iter().filter(|one| !is_padding(one)).last()
    }

    /// The nearest place before `at` that has a name.
    fn start_before(&self, at: u64) -> Option<u64> {
        let before = self.starts.partition_point(|start| *start < at);
        self.starts[..before].last().copied()
    }

    /// The bytes from a place to another, or to the end of their section.
    fn code(&self, from: u64, to: u64) -> Option<&'x [u8]> {
        let code = self.xen.bytes(from)?;
        let size = usize::try_from(to.checked_sub(from)?).unwrap_or(usize::MAX);
        Some(&code[..size.min(code.len())])
    }
}
