//! Model → section. One model is always written as the same bytes.

use invivo_image::pe::PeMachine;

use super::model::{Fixup, LegacyPatch};
use super::read::{HEADER, LONGEST_NAME, SIGNATURE, VALIDATION, VERSION, alignment};
use super::{Hotp1Error, Rule};

/// A region holds less than this many fixups.
const MOST_FIXUPS: u32 = 1 << 12;
/// A page has a smaller number than this.
const MOST_PAGES: u32 = 1 << 20;

/// Writes the contents of the section `.hotp1` for a module in which it begins at `start`, a
/// place relative to the module.
///
/// The header comes first, then the bytes of validations, the validations, hooks, fixups, and
/// the target's name.
///
/// # Errors
/// When the model holds what the format cannot express.
pub fn write(patch: &LegacyPatch, machine: PeMachine, start: u32) -> Result<Vec<u8>, Hotp1Error> {
    let large = |what: &str| Hotp1Error::new(Rule::B03, format!("too many {what}"));
    let align = usize::try_from(alignment(machine)).expect("a small number");
    if !(start as usize).is_multiple_of(align) {
        return Err(Hotp1Error::new(
            Rule::B03,
            format!("a section at {start:#x}"),
        ));
    }
    let name = patch.target_name.as_bytes();
    if name.is_empty()
        || name.len() > LONGEST_NAME
        || !name.iter().all(|b| (0x20..=0x7e).contains(b))
    {
        let text = format!("the name {:?}", patch.target_name);
        return Err(Hotp1Error::new(Rule::B15, text));
    }
    let mut out = vec![0; HEADER as usize];
    let place = |out: &Vec<u8>| {
        let offset = u32::try_from(out.len()).ok();
        offset
            .and_then(|offset| start.checked_add(offset))
            .ok_or_else(|| large("bytes"))
    };
    let mut sources = Vec::new();
    for validation in &patch.validations {
        sources.push(place(&out)?);
        out.extend_from_slice(&validation.bytes);
        pad(&mut out, 8);
    }
    pad(&mut out, align);
    let validations_at = place(&out)?;
    for (validation, source) in patch.validations.iter().zip(sources) {
        let size = u16::try_from(validation.bytes.len())
            .map_err(|_| Hotp1Error::new(Rule::B07, "a validation of 64 KiB or more".to_owned()))?;
        out.extend_from_slice(&source.to_le_bytes());
        out.extend_from_slice(&validation.target.to_le_bytes());
        out.extend_from_slice(&size.to_le_bytes());
        out.extend_from_slice(&validation.flags.to_le_bytes());
    }
    pad(&mut out, align);
    let hooks_at = place(&out)?;
    for hook in &patch.hooks {
        let named = match hook.validation {
            None => 0,
            Some(number) if number < patch.validations.len() => {
                validations_at + u32::try_from(number).unwrap_or(0) * VALIDATION as u32
            }
            Some(number) => {
                let text = format!("the hook at {:#x} names validation {number}", hook.at);
                return Err(Hotp1Error::new(Rule::B12, text));
            }
        };
        out.extend_from_slice(&hook.kind.code().to_le_bytes());
        out.extend_from_slice(&hook.options.to_le_bytes());
        for word in [hook.at, hook.to, named] {
            out.extend_from_slice(&word.to_le_bytes());
        }
    }
    let fixups_at = place(&out)?;
    for region in &patch.fixups {
        let count = u32::try_from(region.fixups.len()).unwrap_or(u32::MAX);
        if !count.is_multiple_of(2) || count >= MOST_FIXUPS {
            let text = format!("{count} fixups in the region of page {:#x}", region.page);
            return Err(Hotp1Error::new(Rule::B04, text));
        }
        if region.page >= MOST_PAGES {
            return Err(Hotp1Error::new(
                Rule::B06,
                format!("page {:#x}", region.page),
            ));
        }
        out.extend_from_slice(&(count << 20 | region.page).to_le_bytes());
        for Fixup { offset, kind } in &region.fixups {
            if *offset > 0xfff {
                return Err(Hotp1Error::new(
                    Rule::B06,
                    format!("offset {offset:#x} in a page"),
                ));
            }
            out.extend_from_slice(&(kind.code() << 12 | offset).to_le_bytes());
        }
    }
    let name_at = place(&out)?;
    out.extend_from_slice(name);
    out.push(0);
    let count = |number: usize, what: &str| u32::try_from(number).map_err(|_| large(what));
    let words = [
        SIGNATURE,
        VERSION,
        count(patch.fixups.len(), "regions")?,
        fixups_at,
        count(patch.validations.len(), "validations")?,
        validations_at,
        count(patch.hooks.len(), "hooks")?,
        hooks_at,
    ];
    let mut header: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    header.extend_from_slice(&patch.hotp_base.to_le_bytes());
    header.extend_from_slice(&patch.target_base.to_le_bytes());
    header.extend_from_slice(&name_at.to_le_bytes());
    header.extend_from_slice(&patch.id.method.to_le_bytes());
    header.extend_from_slice(&patch.id.value);
    out[..HEADER as usize].copy_from_slice(&header);
    Ok(out)
}

fn pad(out: &mut Vec<u8>, align: usize) {
    out.resize(out.len().next_multiple_of(align), 0);
}
