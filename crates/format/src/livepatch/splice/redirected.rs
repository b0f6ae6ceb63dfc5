//! Reads what a payload redirects, from its own tables.

use std::collections::BTreeSet;

use super::super::{Contents, Payload, Reference, RelocationKind, Section, SymbolPlace};
use super::Splice;
use super::stub::RECORD;

/// The section of the records of calls and jumps.
pub(super) const BRANCHES: &str = ".rodata.splice.callers";
/// The section of the records of pointers.
pub(super) const POINTERS: &str = ".rodata.splice.tables";
/// What the sections of the hooks begin with.
pub(super) const CODE: &str = ".text.splice";

/// A place that a payload leads to other code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Redirection {
    /// What is there.
    pub kind: Splice,
    /// Where: the distance of a call or jump, or the pointer.
    pub place: Reference,
    /// Where it led.
    pub from: Reference,
    /// Where it is to lead.
    pub to: Reference,
}

/// True if the payload has been given such tables.
pub(super) fn is_spliced(payload: &Payload) -> bool {
    let is_own = |section: &Section| {
        [BRANCHES, POINTERS].contains(&section.name.as_str()) || section.name.starts_with(CODE)
    };
    payload.sections.iter().any(is_own)
}

/// All places that a payload of [`super::splice`] leads to other code, in the order of its tables.
#[must_use]
pub fn redirections(payload: &Payload) -> Vec<Redirection> {
    let mut found = Vec::new();
    for section in &payload.sections {
        let kind = match section.name.as_str() {
            BRANCHES => Splice::Callers,
            POINTERS => Splice::Tables,
            _ => continue,
        };
        let Contents::Bytes(_) = section.contents else {
            continue;
        };
        let words = section.relocations.iter();
        let words = words.filter(|word| word.kind == RelocationKind::Absolute64);
        let words: std::collections::BTreeMap<u64, Reference> =
            words.map(|word| (word.offset, word.to)).collect();
        for at in words.keys().filter(|at| at.is_multiple_of(RECORD as u64)) {
            let word = |number: u64| words.get(&at.checked_add(number * 8)?).copied();
            if let (Some(place), Some(from), Some(to)) = (word(0), word(1), word(2)) {
                found.push(Redirection {
                    kind,
                    place,
                    from,
                    to,
                });
            }
        }
    }
    found
}

/// The functions of Xen that nothing enters while the payload is live, and that have no jump: what
/// a later payload led to their names, or wrote there, would not be what is meant.
#[must_use]
pub fn bypassed(payload: &Payload) -> BTreeSet<&str> {
    let names = redirections(payload).into_iter().filter_map(|one| {
        let symbol = payload.symbols.get(one.from.symbol as usize)?;
        let is_whole = symbol.place == SymbolPlace::Xen && one.from.addend == 0;
        (one.kind == Splice::Callers && is_whole).then_some(symbol.name.as_str())
    });
    let has_jump = |name: &&str| {
        payload
            .functions
            .iter()
            .any(|function| function.name == *name)
    };
    names.filter(|name| !has_jump(name)).collect()
}
