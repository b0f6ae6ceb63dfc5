//! Constants without a symbol: how long they are, and what they say.
//!
//! Merged sections (`.rodata.str1.1`, `.rodata.cst16`) lose their borders when
//! they are linked, so a length has to come from the use or the next reference.

use invivo_image::x86_64::Line;
use invivo_image::{Image, Link, LinkAddr, Place};

use iced_x86::{InstructionInfoFactory, InstructionInfoOptions, Mnemonic, Register};

use crate::Usage;
use crate::conventions::changes;

/// The longest constant without a symbol that is looked at, in bytes.
const LONGEST: u64 = 1 << 20;

/// How much of an unnamed constant is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// The instruction reads this many bytes.
    Operand(u64),
    /// Text up to its NUL, which may be the tail of a longer one.
    Text(u64),
    /// Up to the next thing that anything refers to.
    UpToNext(u64),
}

impl Extent {
    /// In bytes.
    #[must_use]
    pub fn size(self) -> u64 {
        match self {
            Extent::Operand(size) | Extent::Text(size) | Extent::UpToNext(size) => size,
        }
    }
}

/// How much of the constant at `at` the instruction `line` uses.
#[must_use]
pub fn extent(image: &Image, usage: &Usage, line: &Line, at: LinkAddr) -> Option<Extent> {
    let section = image.section_at(at)?;
    let room = section.range.end.0 - at.0;
    let next = usage
        .next_boundary(at)
        .map_or(room, |next| next.0 - at.0)
        .min(room);
    let operand = line.operand_size() as u64;
    let base = line.instruction.memory_base();
    let plain = line.instruction.memory_index() == Register::None
        && matches!(base, Register::None | Register::RIP | Register::EIP)
        && line.instruction.mnemonic() != Mnemonic::Lea
        && line.address.is_some_and(|reference| reference.target == at);
    if plain && operand > 0 {
        return (operand <= room).then_some(Extent::Operand(operand));
    }
    let bytes = image.bytes(at, next.min(LONGEST))?;
    let whole = image.bytes(at, room.min(LONGEST))?;
    if let Some(end) = memchr::memchr(0, whole).filter(|_| image.holds_texts(section)) {
        return Some(Extent::Text(end as u64 + 1));
    }
    if let Some(text) = text(whole) {
        // Behind a text lies at most padding; anything else is part of a
        // constant that only begins like a text.
        let mut size = text.len() as u64 + 1;
        // A pointer to a single NUL may be the empty text, or may count from one into
        // what follows (see `Image::just_before`): what follows is then part of it.
        // A pointer in data does not count.
        let by_code = !line.instruction.is_invalid();
        if let (true, "", Some(following)) = (by_code, text, whole.get(1..).and_then(self::text)) {
            size += following.len() as u64 + 1;
        }
        // Zeros where the loader writes a pointer are no empty text.
        let filled = at
            .checked_add(size)
            .is_some_and(|end| image.slots.range(at..end).next().is_some());
        if !filled
            && bytes
                .get(text.len()..)
                .is_none_or(|rest| rest.iter().all(|byte| *byte == 0))
        {
            return Some(Extent::Text(size));
        }
    }
    Some(Extent::UpToNext(bytes.len() as u64))
}

/// The text that `bytes` begins with, if it ends with a NUL and reads like one.
fn text(bytes: &[u8]) -> Option<&str> {
    // Texts of Rust have no NUL, and the next one may be far away: this is asked for each of
    // them, so whole words are looked at before single characters.
    let bytes = &bytes[..memchr::memchr(0, bytes)?];
    if bytes.chunks(64).any(holds_odd) {
        return None;
    }
    let text = std::str::from_utf8(bytes).ok()?;
    let printable = |c: char| !c.is_control() || c.is_ascii();
    (text.is_ascii() || text.chars().all(printable)).then_some(text)
}

/// True if a byte is a control character that texts do not have. Nothing is decided before
/// all bytes are looked at, so that the compiler can look at many in one instruction: texts of
/// Rust are asked about again and again, each up to where the whole heap of them ends.
fn holds_odd(bytes: &[u8]) -> bool {
    const BELL: u8 = 0x07;
    const ESCAPE: u8 = 0x1b;
    const DELETE: u8 = 0x7f;
    bytes.iter().fold(false, |odd, byte| {
        let known = (BELL..=b'\n').contains(byte) | (*byte == b'\r') | (*byte == ESCAPE);
        odd | (*byte == DELETE) | ((*byte < b' ') & !known)
    })
}

/// One entry of a table of code places.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableEntry {
    /// Where the entry is.
    pub at: LinkAddr,
    /// Its size in bytes: 4 relative to the table's start, that of an address absolute.
    pub width: u8,
    /// Where it leads.
    pub target: LinkAddr,
}

/// The jump table that `lines[index]` refers to at `at`, if it is one: all its
/// entries lead to instructions of `is_inside`.
///
/// It ends at the next thing that anything refers to, or before the first entry
/// that leads elsewhere. An entry too many does no harm: it leads into the same
/// function and is never used.
#[must_use]
pub fn jump_table(
    image: &Image,
    usage: &Usage,
    lines: &[Line],
    index: usize,
    at: LinkAddr,
    is_inside: &dyn Fn(LinkAddr) -> bool,
) -> Option<Vec<TableEntry>> {
    let pointer = u8::try_from(image.pointer_size()).unwrap_or(8);
    let line = lines
        .get(index)
        .filter(|line| may_be_jump_table(line, pointer))?;
    // Code for x86 has no use for distances.
    let distances = names_table(line) && image.link != Link::Rebased;
    let width: u8 = if distances { 4 } else { pointer };
    let room = image.section_at(at)?.range.end.0 - at.0;
    let next = usage
        .next_boundary(at)
        .map_or(room, |next| next.0 - at.0)
        .min(room);
    let target_of = |entry: u64| {
        let place = at.checked_add(entry * u64::from(width))?;
        let raw = image.bytes(place, u64::from(width))?;
        let target = if distances {
            at.checked_offset(i64::from(i32::from_le_bytes(raw.try_into().ok()?)))?
        } else {
            match image.slots.get(&place) {
                Some(invivo_image::Slot::Pointer(target)) => *target,
                Some(_) => return None,
                None if image.link == Link::Rebased => return None,
                None => LinkAddr(u64::from_le_bytes(raw.try_into().ok()?)),
            }
        };
        is_inside(target).then_some(TableEntry {
            at: place,
            width,
            target,
        })
    };
    let read = |count: u64| (0..count).map_while(target_of).collect::<Vec<_>>();
    let entries = read(next / u64::from(width));
    // Most references fail here; to look for the jump first would go through the whole
    // function for each of them.
    if entries.is_empty() || !lines.iter().any(jumps_through) {
        return None;
    }
    let Some(count) = guard(lines, index).filter(|count| *count > entries.len() as u64) else {
        return Some(entries);
    };
    // A number that looks like an address seems to refer into the middle of the table: all of
    // it is there, or it is not understood.
    let all = read(count.min(room / u64::from(width)));
    (all.len() as u64 == count).then_some(all)
}

/// True for an instruction that may load the address of a jump table or an entry of one.
fn may_be_jump_table(line: &Line, pointer: u8) -> bool {
    let instruction = &line.instruction;
    let scaled = instruction.memory_index() != Register::None
        && instruction.memory_index_scale() == u32::from(pointer);
    scaled || names_table(line)
}

/// True for an instruction that may load the address of a table of distances.
fn names_table(line: &Line) -> bool {
    let mnemonic = line.instruction.mnemonic();
    mnemonic == Mnemonic::Lea || mnemonic == Mnemonic::Mov && line.immediate.is_some()
}

/// True for a jump to what a register or a place in memory holds.
fn jumps_through(line: &Line) -> bool {
    invivo_image::x86_64::jumps_through(&line.instruction)
}

/// The register that indexes the table which `lines[index]` refers to.
fn index_register(lines: &[Line], index: usize) -> Option<Register> {
    let own = lines[index].instruction.memory_index();
    if own != Register::None {
        return Some(own.full_register());
    }
    let table = lines[index].instruction.op0_register();
    lines.iter().skip(index + 1).take(8).find_map(|line| {
        let load = &line.instruction;
        (load.mnemonic() == Mnemonic::Movsxd && load.memory_base() == table)
            .then(|| load.memory_index().full_register())
    })
}

/// True if the code behind `lines[index]` treats what that one loaded the address of as
/// a table of distances from its own start: `movsxd rax, [rdx+rax*4]`, `add rax, rdx`.
///
/// The load alone says nothing: a table of plain numbers is read in the same way. Neither do
/// both, once the register holds something else: behind `lea rdx, [location]` and a call of
/// `panic` stands another block, which may well have a table in the same register. And where
/// the loader writes an address there are no distances.
#[must_use]
pub fn is_relative_table(image: &Image, lines: &[Line], index: usize) -> bool {
    if lines[index].instruction.mnemonic() != Mnemonic::Lea {
        return false;
    }
    let table = lines[index].instruction.op0_register();
    let near = &lines[index + 1..lines.len().min(index + 16)];
    let load = near.iter().position(|line| {
        let load = &line.instruction;
        load.mnemonic() == Mnemonic::Movsxd && load.memory_base() == table
    });
    let Some(load) = load else { return false };
    let distance = near[load].instruction.op0_register();
    let sum = near[load + 1..].iter().position(|line| {
        let sum = &line.instruction;
        let parts = match sum.mnemonic() {
            Mnemonic::Add => (sum.op0_register(), sum.op1_register()),
            Mnemonic::Lea => (sum.memory_base(), sum.memory_index()),
            _ => return false,
        };
        parts == (distance, table) || parts == (table, distance)
    });
    let Some(sum) = sum else { return false };
    let filled = |at: LinkAddr| {
        let end = LinkAddr(at.0.saturating_add(4));
        let start = LinkAddr(at.0.saturating_sub(7));
        image.slots.range(start..end).next().is_some()
    };
    let at = lines[index].address.map(|reference| reference.target);
    let way = &near[load + 1..][..sum];
    !at.is_some_and(filled)
        && keeps(&near[..load], table)
        && (distance == table || keeps(way, table))
        && keeps(way, distance)
}

/// True if no instruction of `lines` writes to the register.
fn keeps(lines: &[Line], register: Register) -> bool {
    use Register::{R8, R9, R10, R11, RAX, RCX, RDI, RDX, RSI};
    let register = register.full_register();
    let lost_in_calls = [RAX, RCX, RDX, RSI, RDI, R8, R9, R10, R11].contains(&register);
    let mut known = InstructionInfoFactory::new();
    !lines.iter().any(|line| {
        let used = known.info_options(&line.instruction, InstructionInfoOptions::NO_MEMORY_USAGE);
        line.is_call() && lost_in_calls
            || used
                .used_registers()
                .iter()
                .any(|used| changes(used) && used.register().full_register() == register)
    })
}

/// What the entries of a table of distances from its own start lead to (see
/// [`is_relative_table`]), where `lines[index]` loads the address of one.
///
/// LLVM turns a table of pointers into such a table, so that the loader has nothing to
/// relocate: every entry is another number when anything moves.
pub(crate) fn relative_table(
    image: &Image,
    usage: &Usage,
    lines: &[Line],
    index: usize,
    at: LinkAddr,
) -> Option<Vec<LinkAddr>> {
    if !is_relative_table(image, lines, index) {
        return None;
    }
    let room = image.section_at(at)?.range.end.0 - at.0;
    let next = usage.next_boundary(at).map_or(room, |next| next.0 - at.0);
    // A word that the loader writes is no distance.
    let filled = image.slots.range(at..).next();
    let filled = filled.map_or(room, |(place, _)| place.0 - at.0);
    let bytes = image.bytes(at, next.min(room).min(filled))?;
    let mut distances: Vec<i32> = bytes
        .chunks_exact(4)
        .map_while(|entry| Some(i32::from_le_bytes(entry.try_into().ok()?)))
        .collect();
    match guard(lines, index).and_then(|count| usize::try_from(count).ok()) {
        Some(count) if count > distances.len() => return None,
        Some(count) => distances.truncate(count),
        // What follows the last entry is padding.
        None => {
            let used = distances.iter().rposition(|distance| *distance != 0);
            distances.truncate(used.map_or(0, |last| last + 1));
        }
    }
    let lead = |distance: &i32| {
        let target = at.checked_offset(i64::from(*distance))?;
        image.section_at(target).map(|_| target)
    };
    distances.iter().map(lead).collect()
}

/// What the table of distances leads to which `lines[index]` loads the address of. Its symbol,
/// or no more than [`is_relative_table`] looks at and the eight lines before, says how long it is.
pub(crate) fn table_targets(image: &Image, lines: &[Line], index: usize) -> Vec<LinkAddr> {
    let Some(table) = lines[index].address.map(|reference| reference.target) else {
        return Vec::new();
    };
    let named = || match image.place(table) {
        Place::In(id, 0) => Some(image.entity(id).size).filter(|size| size.is_multiple_of(4)),
        _ => None,
    };
    let guarded = guard(lines, index).and_then(|count| count.checked_mul(4));
    let size = guarded.or_else(named);
    let bytes = size.and_then(|size| image.bytes(table, size));
    let entries = bytes.unwrap_or_default().chunks_exact(4);
    let targets = entries.filter_map(|entry| {
        let distance = i32::from_le_bytes(entry.try_into().expect("chunks of four"));
        table.checked_offset(i64::from(distance))
    });
    targets.collect()
}

/// The number of entries that the comparison before `lines[index]` allows, where
/// it compares the register that indexes the table.
pub(crate) fn guard(lines: &[Line], index: usize) -> Option<u64> {
    const LOOK_BACK: usize = 8;
    let before = &lines[index.saturating_sub(LOOK_BACK)..index];
    let jump = before
        .iter()
        .rposition(|line| line.instruction.mnemonic() == Mnemonic::Ja)?;
    // What comes behind a `ret` was reached from elsewhere, not through this comparison.
    if before[jump + 1..].iter().any(Line::ends_flow) {
        return None;
    }
    let compare = &before[..jump].last()?.instruction;
    let indexed = index_register(lines, index)?;
    let compared = compare.op0_register().full_register();
    // `cmp edi, 6`, `ja`, `movsxd rax, edi`: the index is a copy of what was compared.
    let after = index.saturating_sub(LOOK_BACK) + jump;
    let copied = lines.iter().skip(after).take(LOOK_BACK).any(|line| {
        let copy = &line.instruction;
        matches!(copy.mnemonic(), Mnemonic::Mov | Mnemonic::Movsxd)
            && copy.op0_register().full_register() == indexed
            && copy.op1_register().full_register() == compared
    });
    if compare.mnemonic() != Mnemonic::Cmp || (compared != indexed && !copied) {
        return None;
    }
    (0..compare.op_count())
        .find(|op| crate::told::is_immediate(compare.op_kind(*op)))
        .and_then(|op| compare.immediate(op).checked_add(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_hold_what_people_write() {
        for byte in 1..=u8::MAX {
            let known = matches!(byte, b'\n' | b'\t' | b'\r' | 0x1b | 0x07 | 0x08);
            let one = [b'a', byte, 0];
            let wanted = byte.is_ascii() && (known || !byte.is_ascii_control());
            assert_eq!(text(&one).is_some(), wanted, "{byte:#x}");
        }
        assert_eq!(text("naïve\0".as_bytes()), Some("naïve"));
        assert_eq!(text("\u{85}\0".as_bytes()), None);
        assert_eq!(text(b"without an end"), None);
        let long = [&[b'x'; 1000][..], &[1, 0]].concat();
        assert_eq!(text(&long), None);
    }
}
