//! Unwind data of an image: which frame description belongs to which code,
//! and the language's own table (LSDA) beside it.

mod lsda;

use std::ops::Range;

use gimli::{
    BaseAddresses, CallFrameInstruction, CieOrFde, EhFrame, EndianSlice, LittleEndian, Pointer,
    Reader, UnwindSection,
};

pub use self::lsda::Lsda;
use crate::{AddressIndex, Image, ImageError, LinkAddr};

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
    /// Where the code of each description begins.
    starts: Vec<LinkAddr>,
    starts_index: AddressIndex,
    /// `.eh_frame` in the file.
    section: Range<usize>,
}

impl UnwindTable {
    pub(crate) fn parse(image: &Image) -> Result<UnwindTable, ImageError> {
        let Some(section) = image.section_named(".eh_frame") else {
            return Ok(UnwindTable::default());
        };
        let bytes = image.section_bytes(section);
        let frame = EhFrame::new(bytes, LittleEndian);
        let bases = BaseAddresses::default().set_eh_frame(section.range.start.0);
        let mut table = UnwindTable {
            section: section.bytes.clone(),
            ..UnwindTable::default()
        };
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
        table.starts = table.fdes.iter().map(|fde| fde.range.start).collect();
        table.starts_index = AddressIndex::new(&table.starts);
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

    /// Instructions of an entry as they stand, which are in `range` of `.eh_frame`.
    #[must_use]
    pub fn instructions<'i>(&self, image: &'i Image, range: &Range<usize>) -> Option<&'i [u8]> {
        image.file.get(self.section.clone())?.get(range.clone())
    }

    /// The frame descriptions that begin in `range`.
    pub fn fdes_in(&self, range: &Range<LinkAddr>) -> &[Fde] {
        let before = range.start.0.checked_sub(1).map(LinkAddr);
        let first = before.map_or(0, |before| self.starts_index.up_to(&self.starts, before));
        let rest = &self.starts[first..];
        let inside = rest.iter().take_while(|start| **start < range.end);
        &self.fdes[first..first + inside.count()]
    }

    /// The frame description of the code at `at`.
    #[must_use]
    pub fn fde_at(&self, at: LinkAddr) -> Option<&Fde> {
        let after = self.starts_index.up_to(&self.starts, at);
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
