//! What is led elsewhere, and whether the jump at a function's entry stays.

use super::super::function::{has_endbr, shortest_patchable};
use super::super::{Contents, Hypervisor, Known, New, Payload, Reference, SymbolPlace};
use super::places::Places;
use super::references::References;
use super::{Planned, Splice};

/// Decides what is led elsewhere, and whether the jump stays.
pub(super) fn plan<'x>(
    payload: &Payload,
    places: &Places<'x>,
    (number, known): (usize, Known),
    mut found: References<'x>,
    what: &[Splice],
) -> Planned<'x> {
    let mut reasons = found.left;
    let taken = found.taken.first().cloned();
    reasons.extend(found.taken);
    if let Some(site) = found.branches.first()
        && !what.contains(&Splice::Callers)
    {
        reasons.push(format!("{} calls it", places.shown(site.at)));
        found.branches.clear();
    }
    if let Some(site) = found.pointers.first() {
        // Who compares the pointer with the function's address must find both changed.
        let stays = if !what.contains(&Splice::Tables) {
            Some("and tables stay as they are".to_owned())
        } else if let Some(taken) = taken {
            Some(format!("and {taken}, too"))
        } else if !fits_pointers(payload, number, places.xen, known) {
            let text = "and the new code does not begin with ENDBR64, as that of pointers must";
            Some(text.to_owned())
        } else {
            None
        };
        let place = places.shown(site.at);
        reasons.push(match &stays {
            Some(stays) => format!("{place} points to it, {stays}"),
            None => format!("{place} points to it, and Xen may have copied that"),
        });
        if stays.is_some() {
            found.pointers.clear();
        }
    }
    if payload.xen_depends.as_ref() != Some(&payload.depends) {
        reasons.push("what is applied below may lead to it".to_owned());
    }
    if refers(payload, places.xen, known) {
        reasons.push("the payload's own code leads to it".to_owned());
    }
    if reasons.is_empty() && found.branches.is_empty() {
        reasons.push("nothing that leads to it is known".to_owned());
    }
    let more = reasons.len().saturating_sub(1);
    let jump = reasons.into_iter().next().map(|reason| match more {
        0 => reason,
        more => format!("{reason}, and {more} more"),
    });
    Planned {
        number,
        known,
        branches: found.branches,
        pointers: found.pointers,
        dead: found.dead,
        jump,
    }
}

/// True if pointers may lead to the new code where they led to the old: on machines with CET both begin
/// with `ENDBR64`.
fn fits_pointers(payload: &Payload, number: usize, xen: &Hypervisor<'_>, known: Known) -> bool {
    let New::Code { code, .. } = payload.functions[number].new else {
        return false;
    };
    let bytes = || {
        let symbol = payload.symbols.get(code.symbol as usize)?;
        let SymbolPlace::Section {
            section, offset, ..
        } = symbol.place
        else {
            return None;
        };
        let at = usize::try_from(offset.checked_add_signed(code.addend)?).ok()?;
        match &payload.sections.get(section as usize)?.contents {
            Contents::Bytes(bytes) => bytes.get(at..),
            Contents::Zeros(_) => None,
        }
    };
    !xen.code(known).is_some_and(has_endbr) || bytes().is_some_and(has_endbr)
}

/// True if what the payload brings leads to the function of Xen.
fn refers(payload: &Payload, xen: &Hypervisor<'_>, known: Known) -> bool {
    let leads = |to: &Reference| {
        let symbol = payload.symbols.get(to.symbol as usize);
        let symbol = symbol.filter(|symbol| symbol.place == SymbolPlace::Xen);
        let found = symbol.and_then(|symbol| xen.find(symbol.name.as_bytes()));
        let place = found.map(|found| found.address.wrapping_add_signed(to.addend));
        // A distance is told from behind its operand, at most so many bytes.
        let first = known.address.saturating_sub(16);
        place
            .is_some_and(|place| (first..known.address.saturating_add(known.size)).contains(&place))
    };
    let relocations = payload
        .sections
        .iter()
        .flat_map(|section| &section.relocations);
    relocations.map(|relocation| &relocation.to).any(leads)
        || payload.hooks.iter().any(|hook| leads(&hook.code))
}

/// Refuses a function that needs the jump and has no room for it.
pub(super) fn has_room<'x>(
    xen: &Hypervisor<'_>,
    planned: Planned<'x>,
) -> Result<Planned<'x>, String> {
    let code = xen.code(planned.known).unwrap_or_default();
    let least = shortest_patchable(code) as usize;
    match &planned.jump {
        Some(reason) if code.len() < least => Err(format!(
            "it has {} bytes, a jump takes {least}, and it needs one: {reason}",
            code.len()
        )),
        _ => Ok(planned),
    }
}
