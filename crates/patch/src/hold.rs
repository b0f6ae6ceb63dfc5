//! Is the code of what runs that of an object file? Every byte is held against it, and what each
//! reference means.
//!
//! A fix that was compiled from other source, by another compiler or with other flags would
//! otherwise patch functions that only have the same name.

use invivo_compare::{Comparison, Extent, extent};
use invivo_image::x86_64::{Line, Reference, ReferenceKind, decode};
use invivo_image::{Entity, Image, LinkAddr, Place};

/// `mov` from a slot, which linkers turn into a `lea` of what the slot would hold.
const MOV: u8 = 0x8b;
const LEA: u8 = 0x8d;

/// One reference of an object file's code, and what stands in its place.
#[derive(Debug)]
pub struct Held<'l> {
    /// The object file's instruction.
    pub line: &'l Line,
    /// Its reference.
    pub reference: &'l Reference,
    /// The address that the code which runs has there.
    pub target: LinkAddr,
    /// True if the linker made an address of what is read from a slot in the object file.
    pub relaxed: bool,
}

/// The code which an object file's is held against.
#[derive(Clone, Copy, Debug)]
pub struct Running<'r> {
    /// What it is part of, as in "this hypervisor".
    pub whole: &'r str,
    /// Where it lies.
    pub at: LinkAddr,
    /// Its bytes, as many as the object file's function has.
    pub code: &'r [u8],
}

/// Holds a function of an object file against `running`; `meant` judges what each reference means.
///
/// # Errors
/// The place of the first difference and what it is, as a text that goes on behind a function's name.
pub fn hold_code(
    base: &Image,
    entity: &Entity,
    running: Running<'_>,
    meant: &mut dyn FnMut(&Held<'_>) -> Result<(), String>,
) -> Result<(), String> {
    let Running { whole, at, code } = running;
    let (Some(lines), Some(own)) = (decode(base, entity), base.bytes(entity.addr, entity.size))
    else {
        return Err("is not all instructions".to_owned());
    };
    let mut expected = own.to_vec();
    for line in &lines {
        let start = usize::try_from(line.at().0 - entity.addr.0).map_err(|e| e.to_string())?;
        let next =
            at.0.wrapping_add(start as u64 + line.instruction.len() as u64);
        for reference in line.references() {
            let inside = entity.addr <= reference.target && reference.target < entity.end();
            if inside && reference.kind != ReferenceKind::Absolute {
                continue;
            }
            let place = start + usize::from(reference.offset);
            let range = place..place + usize::from(reference.width);
            let operand = code.get(range.clone()).ok_or("is cut off")?;
            let is_slot = matches!(base.place(reference.target), Place::Slot(_));
            let relaxed =
                place >= 2 && is_slot && expected[place - 2] == MOV && code[place - 2] == LEA;
            if relaxed {
                expected[place - 2] = LEA;
            }
            let target = LinkAddr(reference.target_of(operand, next));
            expected[range].copy_from_slice(operand);
            let held = Held {
                line,
                reference: &reference,
                target,
                relaxed,
            };
            meant(&held)
                .map_err(|what| format!("differs from {whole}'s at +{start:#x}: {what}"))?;
        }
    }
    let mut bytes = expected.iter().zip(code);
    match bytes.position(|(one, other)| one != other) {
        None => Ok(()),
        Some(at) => Err(format!(
            "differs from {whole}'s at +{at:#x}: it was compiled from other source, by another \
             compiler or with other flags"
        )),
    }
}

/// Holds the constant at `at` of the base, which `held` reads, against the `bytes` that stand in its place,
/// of which so many are asked for. How long a table is, and one that holds addresses, is not known.
///
/// # Errors
/// If it is another one.
pub fn hold_constant<'b>(
    c: &Comparison<'_>,
    held: &Held<'_>,
    at: LinkAddr,
    bytes: impl FnOnce(u64) -> Option<&'b [u8]>,
) -> Result<(), String> {
    let size = match extent(c.base, &c.base_usage, held.line, at) {
        Some(Extent::Text(size) | Extent::Operand(size)) => size,
        // A table of places has other distances where it lies.
        Some(Extent::UpToNext(_)) | None => return Ok(()),
    };
    let end = at.checked_add(size).ok_or("a constant that wraps around")?;
    let pointers = c.base.slots.range(at..end).next().is_some();
    let own = c.base.bytes(at, size);
    if pointers || own.is_some() && own == bytes(size) {
        return Ok(());
    }
    Err("the constant that it reads is another one".to_owned())
}
