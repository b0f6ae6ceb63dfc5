//! Unwind data of an image: which frame description belongs to which code,
//! and the language's own table (LSDA) beside it.

use std::ops::Range;

use gimli::{
    BaseAddresses, CallFrameInstruction, CieOrFde, EhFrame, EndianSlice, LittleEndian, Pointer,
    Reader, UnwindSection,
};

use crate::{Image, ImageError, LinkAddr};

/// Pointer encodings, `DW_EH_PE_*`, as they are written here.
pub mod encoding {
    /// Relative to the pointer's own place, four bytes, signed.
    pub const PCREL_SDATA4: u8 = 0x1b;
    /// The pointer leads to the place that holds the address.
    pub const INDIRECT: u8 = 0x80;
    /// There is no pointer.
    pub const OMIT: u8 = 0xff;
}

/// A common information entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cie {
    /// `code_alignment_factor`.
    pub code_align: u64,
    /// `data_alignment_factor`.
    pub data_align: i64,
    /// The column of the return address.
    pub return_register: u16,
    /// The language's personality routine; true if the place holds its address
    /// rather than being it.
    pub personality: Option<(LinkAddr, bool)>,
    /// True if its functions carry an LSDA.
    pub has_lsda: bool,
    /// True for the frame that the kernel makes to run a signal handler.
    pub signal: bool,
    /// Initial instructions, as a range of `.eh_frame`.
    pub instructions: Range<usize>,
}

/// A frame description entry.
#[derive(Clone, Debug)]
pub struct Fde {
    /// The code that it describes.
    pub range: Range<LinkAddr>,
    /// Index into [`UnwindTable::cies`].
    pub cie: usize,
    /// Instructions, as a range of `.eh_frame`.
    pub instructions: Range<usize>,
    /// The language's table for this code.
    pub lsda: Option<LinkAddr>,
    /// Where the entry is in `.eh_frame`.
    offset: usize,
}

/// One unwind instruction with the code address from which on it holds. Its text tells all
/// of it: two texts are equal where two instructions are.
pub type UnwindStep = (LinkAddr, String);

/// `.eh_frame`, in order of code address.
#[derive(Clone, Debug, Default)]
pub struct UnwindTable {
    /// Common entries.
    pub cies: Vec<Cie>,
    /// Frame descriptions.
    pub fdes: Vec<Fde>,
    /// Where every LSDA starts, in order.
    pub lsdas: Vec<LinkAddr>,
}

/// A language-specific data area: `.gcc_except_table` of one function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lsda {
    /// Where it is.
    pub range: Range<LinkAddr>,
    /// Header, call sites, actions and lists of types that may pass: everything as it stands,
    /// but zeros in place of `types`, and without the padding that may follow.
    pub tables: Vec<u8>,
    /// Where control may land, relative to the start of the function.
    pub landing_pads: Vec<u64>,
    /// Entries of the type table: place, `DW_EH_PE` encoding, and what the pointer says
    /// (the slot itself for an indirect one); null entries (`catch (...)`) are left out.
    pub types: Vec<(LinkAddr, u8, LinkAddr)>,
}

impl UnwindTable {
    pub(crate) fn parse(image: &Image) -> Result<UnwindTable, ImageError> {
        let Some(section) = image.section_named(".eh_frame") else {
            return Ok(UnwindTable::default());
        };
        let bytes = image.section_bytes(section);
        let frame = EhFrame::new(bytes, LittleEndian);
        let bases = BaseAddresses::default().set_eh_frame(section.range.start.0);
        let mut table = UnwindTable::default();
        let mut known: Vec<(usize, usize)> = Vec::new();
        let mut entries = frame.entries(&bases);
        let fail = |error: gimli::Error| ImageError::Inconsistent(format!(".eh_frame: {error}"));
        while let Some(entry) = entries.next().map_err(fail)? {
            let CieOrFde::Fde(partial) = entry else {
                continue;
            };
            let fde = partial.parse(EhFrame::cie_from_offset).map_err(fail)?;
            let cie = fde.cie();
            let index = match known.iter().find(|(offset, _)| *offset == cie.offset()) {
                Some((_, index)) => *index,
                None => {
                    let instructions = tail(bytes, cie.offset(), cie.entry_len(), |body| {
                        skip_cie(body, cie.version())
                    });
                    table.cies.push(Cie {
                        code_align: cie.code_alignment_factor(),
                        data_align: cie.data_alignment_factor(),
                        return_register: cie.return_address_register().0,
                        personality: cie.personality().map(place),
                        has_lsda: cie.has_lsda(),
                        signal: cie.is_signal_trampoline(),
                        instructions: instructions.map_err(fail)?,
                    });
                    known.push((cie.offset(), table.cies.len() - 1));
                    table.cies.len() - 1
                }
            };
            let start = LinkAddr(fde.initial_address());
            let end = start.checked_add(fde.len()).ok_or_else(|| {
                ImageError::Inconsistent(".eh_frame: a range wraps around".to_owned())
            })?;
            let width = fde
                .cie()
                .fde_address_encoding()
                .map_or(8, |e| if e.0 & 7 == 3 { 4 } else { 8 });
            let augmented = fde.cie().augmentation().is_some();
            let instructions = tail(bytes, fde.offset(), fde.entry_len(), |body| {
                body.skip(2 * width)?;
                if augmented {
                    let size = body.read_uleb128()?;
                    body.skip(usize::try_from(size).map_err(|_| gimli::Error::UnsupportedOffset)?)?;
                }
                Ok(())
            });
            table.fdes.push(Fde {
                range: start..end,
                cie: index,
                instructions: instructions.map_err(fail)?,
                lsda: fde
                    .lsda()
                    .map(|pointer| place(pointer).0)
                    .filter(|at| at.0 != 0),
                offset: fde.offset(),
            });
        }
        table.fdes.sort_by_key(|fde| fde.range.start);
        table.lsdas = table.fdes.iter().filter_map(|fde| fde.lsda).collect();
        table.lsdas.sort_unstable();
        table.lsdas.dedup();
        Ok(table)
    }

    /// The instructions of `fde` one by one, those of its common entry first; `None` where
    /// they are broken.
    #[must_use]
    pub fn steps(&self, image: &Image, fde: &Fde) -> Option<Vec<UnwindStep>> {
        let section = image.section_named(".eh_frame")?;
        let frame = EhFrame::new(image.section_bytes(section), LittleEndian);
        let bases = BaseAddresses::default().set_eh_frame(section.range.start.0);
        let entry = frame
            .fde_from_offset(&bases, fde.offset.into(), EhFrame::cie_from_offset)
            .ok()?;
        let mut steps = Vec::new();
        let mut at = fde.range.start;
        let initial = entry.cie().instructions(&frame, &bases);
        for instructions in [initial, entry.instructions(&frame, &bases)] {
            let mut instructions = instructions;
            while let Some(instruction) = instructions.next().ok()? {
                match instruction {
                    CallFrameInstruction::AdvanceLoc { delta } => {
                        let bytes = entry
                            .cie()
                            .code_alignment_factor()
                            .checked_mul(delta.into())?;
                        at = at.checked_add(bytes)?;
                    }
                    CallFrameInstruction::SetLoc { address } => at = LinkAddr(address),
                    CallFrameInstruction::Nop => {}
                    CallFrameInstruction::DefCfaExpression { expression }
                    | CallFrameInstruction::Expression { expression, .. }
                    | CallFrameInstruction::ValExpression { expression, .. } => {
                        // What it says of the expression is only where that stands.
                        let bytes = expression.get(&frame).ok()?;
                        let kind = match instruction {
                            CallFrameInstruction::DefCfaExpression { .. } => "frame".to_owned(),
                            CallFrameInstruction::Expression { register, .. } => {
                                format!("{register:?} at")
                            }
                            CallFrameInstruction::ValExpression { register, .. } => {
                                format!("{register:?} is")
                            }
                            _ => return None,
                        };
                        steps.push((at, format!("{kind} {:02x?}", bytes.0.slice())));
                    }
                    other => steps.push((at, format!("{other:?}"))),
                }
            }
        }
        Some(steps)
    }

    /// The frame descriptions that begin in `range`.
    pub fn fdes_in(&self, range: &Range<LinkAddr>) -> &[Fde] {
        let first = self
            .fdes
            .partition_point(|fde| fde.range.start < range.start);
        let rest = &self.fdes[first..];
        &rest[..rest.partition_point(|fde| fde.range.start < range.end)]
    }

    /// The frame description of the code at `at`.
    #[must_use]
    pub fn fde_at(&self, at: LinkAddr) -> Option<&Fde> {
        let after = self.fdes.partition_point(|fde| fde.range.start <= at);
        let fde = self.fdes.get(after.checked_sub(1)?)?;
        fde.range.contains(&at).then_some(fde)
    }
}

fn place(pointer: Pointer) -> (LinkAddr, bool) {
    match pointer {
        Pointer::Direct(at) => (LinkAddr(at), false),
        Pointer::Indirect(at) => (LinkAddr(at), true),
    }
}

type Bytes<'a> = EndianSlice<'a, LittleEndian>;

/// The instructions of the entry at `offset`: what is left of its body behind `skip`.
fn tail(
    section: &[u8],
    offset: usize,
    length: usize,
    skip: impl FnOnce(&mut Bytes<'_>) -> gimli::Result<()>,
) -> gimli::Result<Range<usize>> {
    // Four bytes of length, four of CIE id or pointer; the 64-bit form is not used by any compiler.
    let end = offset.checked_add(4).and_then(|at| at.checked_add(length));
    let end = end.ok_or(gimli::Error::UnsupportedOffset)?;
    let body = section
        .get(offset + 8..end)
        .ok_or(gimli::Error::UnsupportedOffset)?;
    let mut rest = EndianSlice::new(body, LittleEndian);
    skip(&mut rest)?;
    Ok(end - rest.len()..end)
}

fn skip_cie(body: &mut Bytes<'_>, version: u8) -> gimli::Result<()> {
    body.read_u8()?;
    let augmentation = body.read_null_terminated_slice()?;
    body.read_uleb128()?;
    body.read_sleb128()?;
    if version == 1 {
        body.read_u8()?;
    } else {
        body.read_uleb128()?;
    }
    if augmentation.first() == Some(&b'z') {
        let size = body.read_uleb128()?;
        body.skip(usize::try_from(size).map_err(|_| gimli::Error::UnsupportedOffset)?)?;
    }
    Ok(())
}

impl Lsda {
    /// Reads the LSDA at `at`.
    ///
    /// # Errors
    /// A text that says what is broken or not understood.
    pub fn parse(image: &Image, at: LinkAddr) -> Result<Lsda, String> {
        let section = image
            .section_at(at)
            .ok_or("the LSDA lies outside the image")?;
        let lsdas = &image.unwind.lsdas;
        let next = lsdas.partition_point(|other| *other <= at);
        let next = lsdas.get(next).copied();
        let end = next.unwrap_or(section.range.end).min(section.range.end);
        let bytes = image
            .bytes(at, end.0 - at.0)
            .ok_or("the LSDA has no bytes")?;
        Self::parse_bytes(at, end, bytes).map_err(|error| format!("broken LSDA at {at}: {error}"))
    }

    fn parse_bytes(at: LinkAddr, end: LinkAddr, bytes: &[u8]) -> Result<Lsda, String> {
        let broken = |error: gimli::Error| error.to_string();
        let mut rest = EndianSlice::new(bytes, LittleEndian);
        if rest.read_u8().map_err(broken)? != encoding::OMIT {
            return Err("landing pads relative to another place".to_owned());
        }
        let type_encoding = rest.read_u8().map_err(broken)?;
        let mut type_base = None;
        if type_encoding != encoding::OMIT {
            let offset = rest.read_uleb128().map_err(broken)?;
            let offset = usize::try_from(offset).map_err(|_| "type table is too far away")?;
            type_base = Some(
                (bytes.len() - rest.len())
                    .checked_add(offset)
                    .ok_or("type table wraps")?,
            );
        }
        let site_encoding = rest.read_u8().map_err(broken)?;
        let sites = rest.read_uleb128().map_err(broken)?;
        let sites = usize::try_from(sites).map_err(|_| "call-site table is too long")?;
        let mut sites = rest.split(sites).map_err(broken)?;
        let sites_end = bytes.len() - rest.len();
        let mut landing_pads = Vec::new();
        let mut actions = Vec::new();
        while !sites.is_empty() {
            let mut field = || match site_encoding & 0x0f {
                0x01 => sites.read_uleb128().map_err(broken),
                0x03 => sites.read_u32().map(u64::from).map_err(broken),
                other => Err(format!("call sites in encoding {other:#x}")),
            };
            let (_, _, pad) = (field()?, field()?, field()?);
            landing_pads.extend((pad != 0).then_some(pad));
            let action = sites.read_uleb128().map_err(broken)?;
            actions.extend((action != 0).then_some(action));
        }
        let (mut largest, mut read) = largest_filter(bytes, sites_end, type_base, &actions)?;
        let mut types = Vec::new();
        let width = match type_encoding & 0x0f {
            0x03 | 0x0b => 4,
            0x00 => 8,
            _ if type_base.is_none() => 0,
            other => return Err(format!("type table in encoding {other:#x}")),
        };
        if let Some(base) = type_base {
            largest = largest_listed(bytes, sites_end, base, width, largest);
        }
        if let Some(base) = type_base.filter(|_| largest > 0) {
            read = read.max(base);
            for index in 1..=largest {
                let entry = index
                    .checked_mul(width)
                    .and_then(|back| base.checked_sub(back))
                    .and_then(|start| Some((start, bytes.get(start..start.checked_add(width)?)?)));
                let (start, raw) = entry.ok_or("the type table is shorter than its use")?;
                let place = LinkAddr(at.0 + start as u64);
                let value = match raw {
                    [a, b, c, d] => i64::from(i32::from_le_bytes([*a, *b, *c, *d])),
                    _ => raw
                        .try_into()
                        .map(i64::from_le_bytes)
                        .map_err(|_| "broken type entry")?,
                };
                if value == 0 {
                    continue;
                }
                let target = match type_encoding & 0x70 {
                    0x00 => LinkAddr(value.cast_unsigned()),
                    0x10 => place.checked_offset(value).ok_or("a type lies nowhere")?,
                    other => return Err(format!("types relative to {other:#x}")),
                };
                types.push((place, type_encoding, target));
            }
        }
        let mut tables = bytes.get(..read).ok_or("an action lies outside")?.to_vec();
        for (place, ..) in &types {
            let start = usize::try_from(place.0 - at.0).map_err(|_| "a type lies outside")?;
            tables[start..start + width].fill(0);
        }
        Ok(Lsda {
            range: at..end,
            tables,
            landing_pads,
            types,
        })
    }
}

/// The largest index into the type table that any action uses, and where the actions and
/// their lists of types end.
fn largest_filter(
    bytes: &[u8],
    table: usize,
    type_base: Option<usize>,
    actions: &[u64],
) -> Result<(usize, usize), String> {
    let mut largest = 0;
    let mut end = table;
    for action in actions {
        let mut at = usize::try_from(*action - 1)
            .ok()
            .and_then(|a| a.checked_add(table));
        // A chain of actions cannot be longer than the table has bytes.
        for _ in 0..=bytes.len() {
            let Some(here) = at else { break };
            let mut rest = EndianSlice::new(
                bytes.get(here..).ok_or("an action lies outside")?,
                LittleEndian,
            );
            let filter = rest.read_sleb128().map_err(|e| e.to_string())?;
            let link = bytes.len() - rest.len();
            let next = rest.read_sleb128().map_err(|e| e.to_string())?;
            end = end.max(bytes.len() - rest.len());
            let (index, list_end) = match usize::try_from(filter) {
                Ok(filter) => (filter, end),
                Err(_) => largest_specified(bytes, type_base, filter)?,
            };
            (largest, end) = (largest.max(index), end.max(list_end));
            at = if next == 0 {
                None
            } else {
                isize::try_from(next)
                    .ok()
                    .and_then(|next| link.checked_add_signed(next))
            };
        }
    }
    Ok((largest, end))
}

/// The same by all records of actions: gcc gives a function and its cold part one table of
/// them, so a record may be there, and its type, that no call site of this part names.
fn largest_listed(
    bytes: &[u8],
    table: usize,
    base: usize,
    width: usize,
    mut largest: usize,
) -> usize {
    let types = |count: usize| base.checked_sub(count.checked_mul(width)?);
    let mut at = table;
    while let Some(end) = types(largest).filter(|end| at < *end)
        && let Some(records) = bytes.get(at..end)
    {
        let mut rest = EndianSlice::new(records, LittleEndian);
        let (Ok(filter), Ok(_)) = (rest.read_sleb128(), rest.read_sleb128()) else {
            break;
        };
        at = end - rest.len();
        let filter = usize::try_from(filter).unwrap_or(0);
        if types(filter).is_some_and(|start| at <= start) {
            largest = largest.max(filter);
        }
    }
    largest
}

/// The largest index in a list of types that may pass (an exception specification;
/// an empty one stands where Rust forbids unwinding), and where that list ends. The lists
/// lie behind the types.
fn largest_specified(
    bytes: &[u8],
    type_base: Option<usize>,
    filter: i64,
) -> Result<(usize, usize), String> {
    let offset = usize::try_from(-1 - filter).map_err(|_| "a filter is too large")?;
    let at = type_base.and_then(|base| base.checked_add(offset));
    let list = at
        .and_then(|at| bytes.get(at..))
        .ok_or("a list of types lies outside")?;
    let mut rest = EndianSlice::new(list, LittleEndian);
    let mut largest = 0;
    loop {
        match rest.read_uleb128().map_err(|e| e.to_string())? {
            0 => return Ok((largest, bytes.len() - rest.len())),
            index => {
                largest = largest.max(usize::try_from(index).map_err(|_| "a type is too far")?)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The cold part of `RemoteLogger::reconnect` of PowerDNS Recursor: no call site in it names
    /// the record for the second type, which is another distance away in each build.
    #[test]
    fn a_type_that_only_the_other_part_uses_is_a_type() {
        let mut bytes = vec![0xff, 0x9b, 0x0f, 0x01, 0x04, 0x18, 0x05, 0x65, 0x03];
        bytes.extend([0x01, 0x00, 0x00, 0x7d]);
        bytes.extend([0x02, 0x7d]);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes.extend(0x1716c_i32.to_le_bytes());
        bytes.extend(0x17158_i32.to_le_bytes());
        bytes[2] = u8::try_from(bytes.len() - 3).expect("short");
        let (at, size) = (LinkAddr(0x63_be58), bytes.len() as u64);
        let lsda = Lsda::parse_bytes(at, LinkAddr(at.0 + size), &bytes).expect("it is whole");
        let types: Vec<u64> = lsda
            .types
            .iter()
            .map(|(place, _, _)| place.0 - at.0)
            .collect();
        assert_eq!(types, [size - 4, size - 8]);
        assert!(lsda.tables.ends_with(&[0; 8]), "distances are no bytes");
    }
}
