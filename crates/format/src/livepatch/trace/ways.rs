//! Ways into the first instructions of a function other than from its beginning, and what else
//! keeps them from being moved.

use std::ops::Range;

use iced_x86::{Decoder, DecoderOptions, FlowControl};

use super::super::file::word;
use super::super::function::kept;
use super::super::{Hypervisor, Known};

/// The function's code, and how many of its first bytes stay as they are.
pub(super) fn code<'f>(xen: &Hypervisor<'f>, known: Known) -> Result<(&'f [u8], u64), String> {
    let place = |name: &str| xen.find(name.as_bytes()).map(|known| known.address);
    let (Some(start), Some(end)) = (place("_stext"), place("_etext")) else {
        return Err("the file of Xen does not tell where its code is; give xen-syms".to_owned());
    };
    if xen.is_for_boot(known.address) {
        return Err("it is gone once Xen has booted".to_owned());
    }
    if !(start..end).contains(&known.address) {
        return Err("it is no function".to_owned());
    }
    let entries = (place("_stextentry"), place("_etextentry"));
    let (Some(start), Some(end)) = entries else {
        return Err("the file of Xen does not tell where its entries are".to_owned());
    };
    if (start..end).contains(&known.address) {
        return Err("it is an entry from outside, where no stack can be used yet".to_owned());
    }
    let code = xen.code(known).filter(|code| !code.is_empty());
    let code = code.ok_or("its size is not known")?;
    Ok((code, kept(code).into()))
}

/// Refuses the function if its bytes in `moved` are more than instructions that run one after
/// the other.
pub(super) fn check(xen: &Hypervisor<'_>, known: Known, moved: Range<u64>) -> Result<(), String> {
    if xen.find(b"__alt_instructions").is_none() {
        return Err("the file of Xen does not tell what it changes when it boots".to_owned());
    }
    let offsets = moved.start - known.address..moved.end - known.address;
    let altered = xen.altered(known);
    if altered
        .iter()
        .any(|range| range.start < offsets.end && offsets.start < range.end)
    {
        return Err("Xen changes its first instructions when it boots".to_owned());
    }
    for (faults, goes_on) in exceptions(xen)? {
        if moved.contains(&faults) || inside(&moved, goes_on) {
            return Err("its first instructions may fault, and Xen expects that there".to_owned());
        }
    }
    // Where an indirect jump of its own leads nobody tells; tables of the compiler are within it.
    let code = xen.code(known).unwrap_or_default();
    let decoder = Decoder::with_ip(64, code, known.address, DecoderOptions::NONE);
    if decoder
        .into_iter()
        .any(|one| one.flow_control() == FlowControl::IndirectBranch)
    {
        return Err("it has an indirect jump, which may lead to its beginning".to_owned());
    }
    match way(xen, &moved) {
        Some(from) => Err(format!(
            "what is at {from:#x} leads between its first instructions"
        )),
        None => Ok(()),
    }
}

/// What leads between the instructions: a branch, or a word that holds such an address.
fn way(xen: &Hypervisor<'_>, moved: &Range<u64>) -> Option<u64> {
    let mut starts: Vec<u64> = xen.starts.iter().copied().collect();
    starts.sort_unstable();
    for (range, bytes) in &xen.sections {
        // What is no code is read as if it were: at worst a function is refused that need not be.
        let first = starts.partition_point(|start| *start <= range.start);
        let last = starts.partition_point(|start| *start < range.end);
        let mut from = range.start;
        for &to in starts[first..last].iter().chain([&range.end]) {
            let part = usize::try_from(from - range.start).unwrap_or(usize::MAX)
                ..usize::try_from(to - range.start).unwrap_or(usize::MAX);
            let code = bytes.get(part).unwrap_or_default();
            let decoder = Decoder::with_ip(64, code, from, DecoderOptions::NONE);
            let mut branches = decoder.into_iter();
            let found = branches.find(|one| inside(moved, one.near_branch_target()));
            if let Some(found) = found {
                return Some(found.ip());
            }
            from = to;
        }
        let words = bytes.windows(8).zip(range.start..).step_by(4);
        for (word, at) in words {
            let word = word.try_into().map(u64::from_le_bytes).unwrap_or_default();
            if inside(moved, word) {
                return Some(at);
            }
        }
    }
    None
}

/// Between the first of the instructions and their end; both ends are right ways.
fn inside(moved: &Range<u64>, address: u64) -> bool {
    moved.start < address && address < moved.end
}

/// Where an instruction may fault, and where Xen then goes on: `.ex_table`.
fn exceptions(xen: &Hypervisor<'_>) -> Result<impl Iterator<Item = (u64, u64)>, String> {
    let place = |name: &str| xen.find(name.as_bytes()).map(|known| known.address);
    let (start, end) = (place("__start___ex_table"), place("__stop___ex_table"));
    let (Some(start), Some(end)) = (start, end) else {
        return Err("the file of Xen does not tell which instructions may fault".to_owned());
    };
    let size = usize::try_from(end.saturating_sub(start)).unwrap_or(usize::MAX);
    let table = xen.bytes(start).and_then(|bytes| bytes.get(..size));
    let table = table.ok_or("the table of instructions that may fault is not in the file")?;
    let records = table.chunks_exact(8).zip((start..).step_by(8));
    Ok(records.map(|(record, at)| {
        let to = |offset: usize| {
            let distance = word(record, offset).cast_signed();
            at.wrapping_add(offset as u64)
                .wrapping_add_signed(distance.into())
        };
        (to(0), to(4))
    }))
}
