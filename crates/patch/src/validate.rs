//! The invariants of the model: what every reader checks before anyone trusts
//! a patch, and every writer before it writes one.

use std::collections::HashSet;

use crate::model::{Direction, Patch, SectionKind, SymbolPlace};

/// The largest patch that is accepted, in bytes of contents.
const LARGEST: u64 = 1 << 30;

/// A patch that breaks an invariant; the text names the place.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidPatch(pub String);

impl Patch {
    /// Checks every invariant.
    ///
    /// # Errors
    /// The first one that is broken.
    pub fn validate(&self) -> Result<(), InvalidPatch> {
        let fail = |text: String| Err(InvalidPatch(text));
        let contents = &self.contents;
        if self.identity.name.is_empty() || self.identity.name.len() > 255 {
            return fail("the name has between 1 and 255 bytes".to_owned());
        }
        if self.identity.name.chars().any(|c| c.is_control()) {
            return fail("the name holds control characters".to_owned());
        }
        if self.target.build_id.0.is_empty() || self.target.build_id.0.len() > 64 {
            return fail("the build id has between 1 and 64 bytes".to_owned());
        }
        let mut total = 0u64;
        for (number, section) in contents.sections.iter().enumerate() {
            let name = &section.name;
            if !section.align.is_power_of_two() || section.align > 4096 {
                return fail(format!(
                    "section {number} {name}: alignment {}",
                    section.align
                ));
            }
            total = total
                .saturating_add(section.bytes.len() as u64)
                .saturating_add(section.align);
            for relocation in &section.relocations {
                let end = relocation
                    .offset
                    .checked_add(relocation.kind.width() as u64);
                if end.is_none_or(|end| end > section.bytes.len() as u64) {
                    return fail(format!(
                        "section {number} {name}: relocation behind its end"
                    ));
                }
                if contents.symbols.get(relocation.symbol as usize).is_none() {
                    return fail(format!(
                        "section {number} {name}: relocation without a symbol"
                    ));
                }
            }
        }
        if total > LARGEST {
            return fail(format!(
                "{total} bytes of contents, at most {LARGEST} are accepted"
            ));
        }
        for (number, symbol) in contents.symbols.iter().enumerate() {
            if let SymbolPlace::Patch {
                section,
                offset,
                size,
            } = symbol.place
            {
                let room = contents
                    .sections
                    .get(section as usize)
                    .map(|s| s.bytes.len() as u64);
                let end = offset.checked_add(size);
                if room.zip(end).is_none_or(|(room, end)| end > room) {
                    return fail(format!(
                        "symbol {number} {} lies outside its section",
                        symbol.name
                    ));
                }
            }
        }
        if !contents
            .symbols
            .is_sorted_by_key(|symbol| symbol.place.rank())
        {
            return fail("symbols of the patch, bindings and imports are mixed".to_owned());
        }
        if !self.redirects.iter().any(|redirect| redirect.hooked) {
            return fail("no redirect has a hook: the patch would never be reached".to_owned());
        }
        let mut places = HashSet::new();
        for redirect in &self.redirects {
            let name = &redirect.function;
            if redirect.direction != Direction::Forward {
                return fail(format!(
                    "redirect of {name}: this carrier has forward ones only"
                ));
            }
            if !places.insert(redirect.at) {
                return fail(format!("redirect of {name}: its entry is redirected twice"));
            }
            if redirect.size == 0 || redirect.size > LARGEST {
                return fail(format!("redirect of {name}: size {}", redirect.size));
            }
            let far = |(at, size): &(i64, u32)| at.unsigned_abs() > 4096 || *size > 4096;
            if u64::from(redirect.entry.clear) > redirect.size
                || redirect.entry.tail > 4096
                || redirect.entry.pads.iter().any(far)
            {
                return fail(format!(
                    "redirect of {name}: more room than the function has"
                ));
            }
            let steps = &redirect.entry.steps;
            let length: u64 = steps.iter().map(|step| u64::from(step.length)).sum();
            if length > redirect.size || !steps.iter().all(|step| step.is_valid()) {
                return fail(format!("redirect of {name}: its first instructions"));
            }
            if !self.is_code(redirect.replacement) {
                return fail(format!(
                    "redirect of {name}: its replacement is no code of the patch"
                ));
            }
            let checked = self
                .checks
                .iter()
                .any(|check| check.at == redirect.at && check.size == redirect.size);
            if !checked {
                return fail(format!("redirect of {name}: no check covers its bytes"));
            }
        }
        let mut moments = HashSet::new();
        for callout in &self.callouts {
            let name = &callout.function;
            if !moments.insert(callout.moment) {
                return fail(format!("callout {name}: a second one {}", callout.moment));
            }
            if !self.is_code(callout.symbol) {
                return fail(format!("callout {name}: it is no code of the patch"));
            }
        }
        for check in &self.checks {
            if check.size > LARGEST || check.sha256.0.len() != 32 {
                return fail(format!("check at {}: broken", check.at));
            }
        }
        Ok(())
    }

    /// True if the symbol is code of the patch.
    fn is_code(&self, symbol: u32) -> bool {
        let symbol = self.contents.symbols.get(symbol as usize);
        let section = symbol.and_then(|symbol| match symbol.place {
            SymbolPlace::Patch { section, .. } => self.contents.sections.get(section as usize),
            SymbolPlace::Base(_) | SymbolPlace::Import(_) => None,
        });
        section.is_some_and(|section| section.kind == SectionKind::Text)
    }
}
