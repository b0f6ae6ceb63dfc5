//! Which definition each name of a set of object files means.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use object::elf;

use super::file::{InPlace, InSymbol, Object};
use crate::ImageError;

/// What is called so in no file of the set: the rest of the program has it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct External {
    /// True if something calls it or jumps to it.
    pub(super) called: bool,
    /// How many bytes of it the files get at by its name.
    pub(super) reach: u64,
}

/// Names that the files of a set want and do not have.
pub(super) type Externals = BTreeMap<Arc<str>, External>;

/// The files of one program, or of a part of it.
pub(super) struct Set<'o, 'd> {
    pub(super) objects: &'o [Object<'d>],
    /// The object and the symbol in it that bear a name.
    definitions: HashMap<Arc<str>, (usize, usize)>,
    /// Variables that several files may declare without a value: size and alignment.
    pub(super) commons: BTreeMap<Arc<str>, (u64, u64)>,
    /// Sections of COMDAT groups that another file brought before.
    dropped: HashSet<(usize, usize)>,
}

impl<'o, 'd> Set<'o, 'd> {
    pub(super) fn new(objects: &'o [Object<'d>]) -> Result<Self, ImageError> {
        let mut set = Set {
            objects,
            definitions: HashMap::new(),
            commons: BTreeMap::new(),
            dropped: HashSet::new(),
        };
        let mut groups: HashSet<&str> = HashSet::new();
        for (number, object) in objects.iter().enumerate() {
            for (name, members) in &object.groups {
                if !groups.insert(name) {
                    let members = members.iter().map(|section| (number, *section));
                    set.dropped.extend(members);
                }
            }
        }
        for (number, object) in objects.iter().enumerate() {
            for (index, symbol) in object.symbols.iter().enumerate() {
                set.define(number, index, object, symbol)?;
            }
        }
        let definitions = &set.definitions;
        set.commons
            .retain(|name, _| !definitions.contains_key(name));
        Ok(set)
    }

    fn define(
        &mut self,
        number: usize,
        index: usize,
        object: &Object<'_>,
        symbol: &InSymbol,
    ) -> Result<(), ImageError> {
        if symbol.local || symbol.name.is_empty() {
            return Ok(());
        }
        match symbol.place {
            InPlace::Undefined => return Ok(()),
            InPlace::Common { size, align } => {
                let known = self.commons.entry(Arc::clone(&symbol.name)).or_default();
                *known = (known.0.max(size), known.1.max(align));
                return Ok(());
            }
            InPlace::In { section, .. } if !self.holds(number, section) => return Ok(()),
            InPlace::In { .. } | InPlace::Absolute(_) => {}
        }
        let known = self.definitions.get(&symbol.name).copied();
        if let Some((other, at)) = known {
            let before = &self.objects[other];
            if symbol.weak {
                return Ok(());
            }
            if !before.symbols[at].weak {
                return Err(object.fail(format!(
                    "defines {}, as does {}; give the files of one program",
                    symbol.name, before.label
                )));
            }
        }
        self.definitions
            .insert(Arc::clone(&symbol.name), (number, index));
        Ok(())
    }

    /// True if this section of this file is in the program.
    pub(super) fn holds(&self, object: usize, section: usize) -> bool {
        let sections = &self.objects[object].sections;
        matches!(sections.get(section), Some(Some(_))) && !self.dropped.contains(&(object, section))
    }

    /// The file and the number of the symbol that `symbol` of the file `object` means; `None`
    /// if no file of the set defines it.
    pub(super) fn definition(&self, object: usize, symbol: usize) -> Option<(usize, usize)> {
        let own = &self.objects[object].symbols[symbol];
        if own.local || own.name.is_empty() {
            return Some((object, symbol));
        }
        self.definitions.get(&own.name).copied()
    }

    /// What the files want and do not have.
    pub(super) fn externals(&self) -> Externals {
        let mut found = Externals::new();
        for (number, object) in self.objects.iter().enumerate() {
            for (index, section) in object.sections.iter().enumerate() {
                let Some(section) = section.as_ref().filter(|s| s.is_loaded()) else {
                    continue;
                };
                if !self.holds(number, index) {
                    continue;
                }
                for relocation in &section.relocations {
                    let symbol = &object.symbols[relocation.symbol];
                    let known = self.definition(number, relocation.symbol).is_some();
                    if known || self.commons.contains_key(&symbol.name) {
                        continue;
                    }
                    let external = found.entry(Arc::clone(&symbol.name)).or_default();
                    let code = section.flags.contains(elf::SHF_EXECINSTR);
                    let at = usize::try_from(relocation.offset).unwrap_or_default();
                    let bytes = section.bytes.as_deref().unwrap_or_default();
                    external.called |= code && is_branch(bytes, at);
                    // A distance counts from the end of an instruction, at most 8 bytes on.
                    const LONGEST: u64 = 16;
                    let reach = u64::try_from(relocation.addend).unwrap_or_default();
                    external.reach = external.reach.max(reach.saturating_add(LONGEST));
                }
            }
        }
        found
    }

    /// Names that some file defines or declares.
    pub(super) fn names(&self) -> BTreeSet<&Arc<str>> {
        self.definitions.keys().chain(self.commons.keys()).collect()
    }
}

/// True if the four bytes at `at` are the distance of a call or jump.
fn is_branch(bytes: &[u8], at: usize) -> bool {
    let before = |count: usize| at.checked_sub(count).and_then(|at| bytes.get(at)).copied();
    match before(1) {
        Some(0xe8 | 0xe9) => true,
        Some(0x80..=0x8f) => before(2) == Some(0x0f),
        _ => false,
    }
}
