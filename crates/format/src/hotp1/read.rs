//! Section → model. The image is hostile: every count is held against the bytes that are there
//! before anything is made of it.

use invivo_image::Rva;
use invivo_image::pe::{PeImage, PeMachine};

use super::model::{
    Fixup, FixupKind, FixupRegion, Hook, HookKind, LegacyPatch, ModuleId, Validation,
};
use super::{Hotp1Error, Rule, SECTION, is_section};

/// Bytes of `HOTPATCH_HEADER`.
pub(super) const HEADER: u64 = 80;
/// `HOT1`.
pub(super) const SIGNATURE: u32 = 0x3154_4f48;
/// 1.0.
pub(super) const VERSION: u32 = 0x0001_0000;
/// Bytes of `HOTPATCH_VALIDATION`.
pub(super) const VALIDATION: u64 = 12;
/// Bytes of `HOTPATCH_HOOK`.
const HOOK: u64 = 16;
/// The longest name of a file that Windows has.
pub(super) const LONGEST_NAME: usize = 255;

/// To what arrays are aligned.
pub(super) fn alignment(machine: PeMachine) -> u64 {
    match machine {
        PeMachine::I386 => 8,
        PeMachine::Amd64 | PeMachine::Arm64 => 16,
    }
}

/// Reads the patch of a patch module; `None` where it has no section of that name.
///
/// # Errors
/// When the section is broken, with the rule that it breaks.
pub fn read(image: &PeImage) -> Result<Option<LegacyPatch>, Hotp1Error> {
    let Some(section) = image.sections.iter().find(|s| is_section(&s.name)) else {
        return Ok(None);
    };
    let start = section.range.start;
    let size = section.range.end.0 - start.0;
    let header = image.bytes(start, HEADER).filter(|_| size >= HEADER);
    let header = Words(header.ok_or_else(|| {
        let text = format!("section {SECTION} has {size} bytes, the header {HEADER}");
        Hotp1Error::new(Rule::B01, text)
    })?);
    let (signature, version) = (header.word(0), header.word(4));
    if (signature, version) != (SIGNATURE, VERSION) {
        let text = format!("signature {signature:#x}, version {version:#x}");
        return Err(Hotp1Error::new(Rule::B02, text));
    }
    let mut value = [0; 24];
    value.copy_from_slice(&header.0[0x38..0x50]);
    let validations_at = header.word(0x14);
    let validations = read_validations(image, validations_at, header.word(0x10))?;
    let hooks_at = header.word(0x1c);
    let hooks = array(image, "hooks", hooks_at, header.word(0x18), HOOK)?;
    let hooks = hooks
        .chunks_exact(HOOK as usize)
        .map(|bytes| read_hook(&Words(bytes), validations_at, validations.len()));
    Ok(Some(LegacyPatch {
        hotp_base: header.long(0x20),
        target_base: header.long(0x28),
        target_name: read_name(image, header.word(0x30))?,
        id: ModuleId {
            method: header.word(0x34),
            value,
        },
        fixups: read_fixups(image, header.word(0x0c), header.word(0x08))?,
        hooks: hooks.collect::<Result<_, _>>()?,
        validations,
    }))
}

/// The bytes of an array of `count` elements.
fn array<'i>(
    image: &'i PeImage,
    what: &str,
    at: u32,
    count: u32,
    size: u64,
) -> Result<&'i [u8], Hotp1Error> {
    if count == 0 {
        return Ok(&[]);
    }
    let align = alignment(image.machine);
    let whole = u64::from(count) * size;
    let bytes = image.bytes(Rva(at.into()), whole);
    match bytes.filter(|_| u64::from(at).is_multiple_of(align)) {
        Some(bytes) => Ok(bytes),
        None => {
            let text = format!(
                "{count} {what} at {at:#x}: not inside the image, or not at a multiple of {align}"
            );
            Err(Hotp1Error::new(Rule::B03, text))
        }
    }
}

fn read_validations(image: &PeImage, at: u32, count: u32) -> Result<Vec<Validation>, Hotp1Error> {
    let table = array(image, "validations", at, count, VALIDATION)?;
    // Validations may share their bytes: all together may have no more than the file.
    let mut left = image.file().len() as u64;
    let mut found = Vec::new();
    for bytes in table.chunks_exact(VALIDATION as usize) {
        let words = Words(bytes);
        let (source, size) = (words.word(0), u64::from(words.half(8)));
        let held = image.bytes(Rva(source.into()), size);
        let held = held.filter(|_| size <= left).ok_or_else(|| {
            let text = format!("the bytes of a validation, {size} at {source:#x}, are not there");
            Hotp1Error::new(Rule::B07, text)
        })?;
        left -= size;
        found.push(Validation {
            bytes: held.to_vec(),
            target: words.word(4),
            flags: words.half(10),
        });
    }
    Ok(found)
}

fn read_hook(words: &Words<'_>, validations_at: u32, count: usize) -> Result<Hook, Hotp1Error> {
    let (at, named) = (words.word(4), words.word(12));
    let validation = match named {
        0 => None,
        named => {
            let distance = u64::from(named).checked_sub(validations_at.into());
            let number = distance.filter(|d| d.is_multiple_of(VALIDATION));
            let number = number.and_then(|d| usize::try_from(d / VALIDATION).ok());
            let number = number.filter(|number| *number < count).ok_or_else(|| {
                let text = format!("the hook at {at:#x} names {named:#x}, where no validation is");
                Hotp1Error::new(Rule::B12, text)
            })?;
            Some(number)
        }
    };
    Ok(Hook {
        kind: HookKind::of(words.half(0)),
        options: words.half(2),
        at,
        to: words.word(8),
        validation,
    })
}

fn read_fixups(image: &PeImage, at: u32, count: u32) -> Result<Vec<FixupRegion>, Hotp1Error> {
    let mut at = Rva(at.into());
    let outside = |at: Rva| {
        Hotp1Error::new(
            Rule::B03,
            format!("the fixup region at {at} is not inside the image"),
        )
    };
    if count > 0 && !at.0.is_multiple_of(4) {
        return Err(Hotp1Error::new(Rule::B03, format!("fixup regions at {at}")));
    }
    let mut regions = Vec::new();
    for _ in 0..count {
        let head = image.bytes(at, 4).ok_or_else(|| outside(at))?;
        let head = Words(head).word(0);
        let (page, entries) = (head & 0xf_ffff, head >> 20);
        if !entries.is_multiple_of(2) {
            let text = format!("the region of page {page:#x} has {entries} fixups");
            return Err(Hotp1Error::new(Rule::B04, text));
        }
        let next = at.checked_add(4).ok_or_else(|| outside(at))?;
        let bytes = image.bytes(next, u64::from(entries) * 2);
        let bytes = bytes.ok_or_else(|| outside(at))?;
        let fixups = bytes.chunks_exact(2).map(|entry| {
            let word = Words(entry).half(0);
            let offset = word & 0xfff;
            let kind = FixupKind::of(word >> 12).ok_or_else(|| {
                let text = format!("type {} in page {page:#x} at {offset:#x}", word >> 12);
                Hotp1Error::new(Rule::B05, text)
            })?;
            Ok(Fixup { offset, kind })
        });
        let fixups = fixups.collect::<Result<_, _>>()?;
        regions.push(FixupRegion { page, fixups });
        at = next
            .checked_add(bytes.len() as u64)
            .ok_or_else(|| outside(at))?;
    }
    Ok(regions)
}

fn read_name(image: &PeImage, at: u32) -> Result<String, Hotp1Error> {
    let mut name = String::new();
    for offset in 0..=LONGEST_NAME as u64 {
        let byte = Rva(at.into()).checked_add(offset);
        match byte.and_then(|byte| image.bytes(byte, 1)) {
            Some([0]) if !name.is_empty() => return Ok(name),
            Some([byte @ 0x20..=0x7e]) => name.push(char::from(*byte)),
            _ => break,
        }
    }
    let text = format!("the name at {at:#x} is empty, too long, or not of printable ASCII");
    Err(Hotp1Error::new(Rule::B15, text))
}

/// Numbers in bytes that are known to be there.
struct Words<'b>(&'b [u8]);

impl Words<'_> {
    fn part<const N: usize>(&self, at: usize) -> [u8; N] {
        let mut out = [0; N];
        out.copy_from_slice(&self.0[at..at + N]);
        out
    }

    fn half(&self, at: usize) -> u16 {
        u16::from_le_bytes(self.part(at))
    }

    fn word(&self, at: usize) -> u32 {
        u32::from_le_bytes(self.part(at))
    }

    fn long(&self, at: usize) -> u64 {
        u64::from_le_bytes(self.part(at))
    }
}
