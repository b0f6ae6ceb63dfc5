//! R-CONST: a constant that something reads which the patch does not replace.
//!
//! A function that reads a changed constant is replaced and reads the patch's copy. Live
//! data that point to it, and other images that bind to it, go on with the base's. So do data in
//! the heap, of which nothing is known but that code gives the address away.

use invivo_image::{EntityId, EntityKind, Image, Place, SectionKind, Slot, demangle};

use crate::Comparison;
use crate::meaning::Meaning;
use crate::rules::{Finding, Rule, given};

pub(super) fn find(c: &Comparison<'_>, findings: &mut Vec<Finding>) {
    let meaning = Meaning::new(c);
    for (base, fixed) in c.pairs.iter() {
        // Whoever goes on reading old line numbers reads those of what still runs.
        let same = || c.moved_records.contains_key(&base) || meaning.same_object(base, fixed);
        if !is_constant(c, base, fixed) || same() {
            continue;
        }
        let entity = c.base.entity(base);
        // Tables of virtual functions and descriptions of types have their own rule.
        if ["_ZTV", "_ZTT", "_ZTI", "_ZTS", "_ZTC", "??_7", "??_R"]
            .iter()
            .any(|kind| entity.name().starts_with(kind))
        {
            continue;
        }
        let places = c.base_usage.pointed.get(&base).into_iter().flatten();
        let mut holders = places.filter_map(|at| {
            let section = c.base.section_at(*at)?;
            let holder = c.base.entity_at(*at)?;
            (section.kind == SectionKind::Data).then(|| demangle(c.base.entity(holder).name()))
        });
        let name = demangle(entity.name());
        let text =
            |reader| format!("has other contents in the fixed image, and {reader} the old ones");
        if let Some(holder) = holders.next() {
            let reader = format!("the live variable {holder} points to");
            findings.push(Finding::refuse(Rule::Constant, name, text(reader)));
        } else if let Some(holder) = given::holder(c, base) {
            let text = format!("has other contents in the fixed image, and {holder}");
            findings.push(Finding::refuse(Rule::Constant, name, text));
        } else if entity.names.iter().any(|symbol| symbol.exported) {
            let text = text("other images may read".to_owned());
            // Libraries hardly ever read what a program exports, and `-rdynamic` exports all.
            findings.push(if c.base.is_library {
                Finding::refuse(Rule::Constant, name, text)
            } else {
                Finding::note(Rule::Constant, name, text)
            });
        } else if let Some(giver) = given::giver(c, base) {
            let text = format!(
                "has other contents in the fixed image; {giver} gives its address away, and what \
                 lives and holds it goes on with the old ones"
            );
            findings.push(Finding::note(Rule::Constant, name, text));
        }
    }
}

fn is_constant(c: &Comparison<'_>, base: EntityId, fixed: EntityId) -> bool {
    let read_only = |image: &Image, id| {
        let entity = image.entity(id);
        entity.kind == EntityKind::Object && entity.size > 0 && image.is_constant_at(entity.addr)
    };
    read_only(c.base, base) && read_only(c.fixed, fixed)
}

/// True if two variables of one size differ only in what constants that they point to
/// hold: then it is the constants that changed, not the variable.
pub(super) fn is_all_that_differs(
    c: &Comparison<'_>,
    meaning: &Meaning<'_, '_>,
    base: EntityId,
    fixed: EntityId,
) -> bool {
    let (one, other) = (c.base.entity(base), c.fixed.entity(fixed));
    let bytes = (
        c.base.bytes(one.addr, one.size),
        c.fixed.bytes(other.addr, other.size),
    );
    let (Some(mut before), Some(mut after)) =
        (bytes.0.map(<[u8]>::to_vec), bytes.1.map(<[u8]>::to_vec))
    else {
        return false;
    };
    let slots: Vec<_> = c.base.slots.range(one.addr..one.end()).collect();
    let others: Vec<_> = c.fixed.slots.range(other.addr..other.end()).collect();
    if slots.is_empty() || slots.len() != others.len() {
        return false;
    }
    for ((at, slot), (there, counterpart)) in slots.iter().zip(&others) {
        let offset = at.0 - one.addr.0;
        if offset != there.0 - other.addr.0
            || !(meaning.same_slot(slot, counterpart) || is_same_constant(c, slot, counterpart))
        {
            return false;
        }
        // What the file holds below a relocation is replaced when the image is loaded.
        let Ok(start) = usize::try_from(offset) else {
            return false;
        };
        let Ok(pointer) = usize::try_from(c.base.pointer_size()) else {
            return false;
        };
        let end = start.saturating_add(pointer).min(before.len());
        before[start..end].fill(0);
        after[start..end].fill(0);
    }
    before == after
}

/// True if both point to the same place of one constant, whatever it holds.
fn is_same_constant(c: &Comparison<'_>, base: &Slot, fixed: &Slot) -> bool {
    let (Slot::Pointer(one), Slot::Pointer(other)) = (base, fixed) else {
        return false;
    };
    match (c.base.place(*one), c.fixed.place(*other)) {
        (Place::In(a, x), Place::In(b, y)) => {
            x == y && c.pairs.fixed_of(a) == Some(b) && is_constant(c, a, b)
        }
        _ => false,
    }
}
