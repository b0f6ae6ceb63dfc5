//! Tables that compilers of C++ write for classes and thrown objects: how long they are, which no
//! symbol tells, and which of their words hold places relative to the image, which no relocation
//! tells. The layouts are those of the headers of Visual C++'s runtime (`rttidata.h`, `ehdata.h`).

use std::collections::{BTreeMap, BTreeSet};

use super::{PeImage, PeMachine};
use crate::model::Slot;
use crate::{LinkAddr, Rva};

/// Lists of more base classes than this are taken for something else.
const MOST_BASES: u32 = 1 << 12;
/// Bytes of what describes where an object's class is to be found (`_RTTICompleteObjectLocator`).
const LOCATOR: u64 = 24;
/// In it, and in what it leads to: where the words are that hold places.
const OWN_PLACE: u64 = 20;

/// What a name of the linker stands for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Table {
    /// `??_7`: pointers to virtual functions.
    Functions,
    /// `??_R1`: one base class of a class.
    Base,
    /// `??_R2`: all of them.
    Bases,
    /// `??_R3`: how many there are.
    Hierarchy,
    /// `??_R4`: what a table of virtual functions belongs to.
    Locator,
    /// `_TI`: a thrown object.
    Thrown,
    /// `_CTA`: as which types it can be caught.
    Catchables,
    /// `_CT`: one of them.
    Catchable,
}

fn table(machine: PeMachine, name: &str) -> Option<Table> {
    let found = match name.get(..5) {
        _ if name.starts_with("??_7") => Table::Functions,
        Some("??_R1") => Table::Base,
        Some("??_R2") => Table::Bases,
        Some("??_R3") => Table::Hierarchy,
        Some("??_R4") => Table::Locator,
        _ => {
            // Names of C have an underscore before them there.
            let name = match machine {
                PeMachine::I386 => name.strip_prefix('_')?,
                PeMachine::Amd64 | PeMachine::Arm64 => name,
            };
            if name.starts_with("_CT?") {
                Table::Catchable
            } else if counts(name, "_CTA") {
                Table::Catchables
            } else if counts(name, "_TI") {
                Table::Thrown
            } else {
                return None;
            }
        }
    };
    Some(found)
}

/// True for the prefix, marks of what is constant, and a number.
fn counts(name: &str, prefix: &str) -> bool {
    let rest = name.strip_prefix(prefix);
    let rest = rest.map(|rest| rest.trim_start_matches(['C', 'V', 'U']));
    rest.is_some_and(|rest| rest.starts_with(|letter: char| letter.is_ascii_digit()))
}

/// The tables of one image.
pub(super) struct ClassTables<'p> {
    pe: &'p PeImage,
    slots: &'p BTreeMap<LinkAddr, Slot>,
    /// Where names begin.
    names: BTreeSet<Rva>,
    /// How many words may still be looked at: tables of a broken file may share all of them.
    budget: usize,
    /// Words of four bytes that hold a place relative to the image, and that place.
    pub(super) relative: BTreeMap<LinkAddr, LinkAddr>,
}

impl<'p> ClassTables<'p> {
    /// Those that are found without a name, too: what tables of virtual functions belong to.
    pub(super) fn of(
        pe: &'p PeImage,
        slots: &'p BTreeMap<LinkAddr, Slot>,
        named: impl Iterator<Item = LinkAddr>,
    ) -> Self {
        let named = named.filter_map(|at| Some(Rva(at.0.checked_sub(pe.image_base)?)));
        let mut tables = ClassTables {
            pe,
            slots,
            names: named.collect(),
            budget: pe.file.len(),
            relative: BTreeMap::new(),
        };
        // For x86 they hold addresses, which have relocations.
        if pe.machine != PeMachine::I386 {
            tables.find_locators();
        }
        tables
    }

    /// How many bytes the table with this name has; `None` where that is not known.
    pub(super) fn size(&mut self, name: &str, at: LinkAddr) -> Option<u64> {
        let at = Rva(at.0.checked_sub(self.pe.image_base)?);
        let table = table(self.pe.machine, name).filter(|_| self.is_constant(at))?;
        let wide = self.pe.machine != PeMachine::I386;
        let size = match table {
            Table::Functions => self.functions(at)?,
            Table::Base => 28,
            Table::Bases => 4 * self.words_of_list(at)?,
            Table::Hierarchy => 16,
            Table::Locator if wide => LOCATOR,
            Table::Locator => LOCATOR - 4,
            Table::Thrown => 16,
            Table::Catchables => 4 + 4 * u64::from(self.word(at, 0)?.min(MOST_BASES)),
            Table::Catchable => 28,
        };
        self.pe.bytes(at, size)?;
        if self
            .names
            .range(at..)
            .nth(1)
            .is_some_and(|next| next.0 - at.0 < size)
        {
            return None;
        }
        if wide {
            self.named(table, at)?;
        }
        Some(size)
    }

    /// `None` when all is spent.
    fn spend(&mut self, words: usize) -> Option<()> {
        self.budget = self.budget.saturating_sub(words);
        (self.budget > 0).then_some(())
    }

    fn is_constant(&self, at: Rva) -> bool {
        let section = self.pe.section_at(at);
        section.is_some_and(|section| !section.is_writable())
    }

    fn is_code(&self, at: Rva) -> bool {
        let section = self.pe.section_at(at);
        section.is_some_and(|section| section.is_executable())
    }

    fn word(&self, at: Rva, offset: u64) -> Option<u32> {
        self.pe.word(at.checked_add(offset)?)
    }

    fn address(&self, at: Rva) -> LinkAddr {
        LinkAddr(self.pe.image_base.wrapping_add(at.0))
    }

    /// Pointers to code, one behind the other, up to the next name.
    fn functions(&self, at: Rva) -> Option<u64> {
        let width = u64::from(self.pe.machine.pointer_size());
        let is_function = |index: &u64| {
            let Some(place) = at.checked_add(index * width) else {
                return false;
            };
            let Some(Slot::Pointer(to)) = self.slots.get(&self.address(place)) else {
                return false;
            };
            let to = to.0.checked_sub(self.pe.image_base).map(Rva);
            to.is_some_and(|to| self.is_code(to)) && (*index == 0 || !self.names.contains(&place))
        };
        let count = (0u64..).take_while(is_function).count() as u64;
        (count > 0).then_some(count * width)
    }

    /// Words of a list that ends with a zero, which counts.
    fn words_of_list(&self, at: Rva) -> Option<u64> {
        let mut words = (0..=u64::from(MOST_BASES)).take_while(|index| {
            let word = self.word(at, index * 4);
            word.is_some_and(|word| word != 0)
        });
        let count = words.by_ref().count() as u64;
        (self.word(at, count * 4) == Some(0)).then_some(count + 1)
    }

    /// Finds what tables of virtual functions belong to: each says where it is itself.
    fn find_locators(&mut self) {
        const VERSION: u32 = 1;
        let pe = self.pe;
        for section in &pe.sections {
            if !self.is_constant(section.range.start) {
                continue;
            }
            let Some(bytes) = pe.bytes(section.range.start, section.file_size()) else {
                continue;
            };
            let (words, _) = bytes.as_chunks::<4>();
            let word = |index: usize| words.get(index).map(|word| u32::from_le_bytes(*word));
            for index in 0..words.len() {
                let at = section.range.start.0 + 4 * index as u64;
                let own = word(index + 5).map(u64::from);
                if own == Some(at) && word(index) == Some(VERSION) && self.budget > 0 {
                    // What is none of them is left as it is: then its bytes count.
                    let _ = self.locator(Rva(at));
                }
            }
        }
    }

    fn locator(&mut self, at: Rva) -> Option<()> {
        let (class, hierarchy) = (self.word(at, 12)?, self.word(at, 16)?);
        let hierarchy = Rva(hierarchy.into());
        let mut found = vec![(at, 12), (at, 16), (at, OWN_PLACE)];
        self.class(Rva(class.into()))?;
        let list = self.address(hierarchy.checked_add(12)?);
        if !self.relative.contains_key(&list) {
            let mut hierarchies = vec![hierarchy];
            let mut seen = BTreeSet::new();
            while let Some(one) = hierarchies.pop() {
                if seen.insert(one) {
                    let before = found.len();
                    let whole = self.hierarchy(one, &mut found, &mut hierarchies);
                    self.spend(found.len() - before + 1)?;
                    whole?;
                }
            }
        }
        for (table, offset) in found {
            self.add(table, offset);
        }
        Some(())
    }

    /// The words of a list of base classes, and of each of them.
    fn hierarchy(&self, at: Rva, found: &mut Vec<(Rva, u64)>, others: &mut Vec<Rva>) -> Option<()> {
        const LONGEST: usize = 1 << 16;
        let (version, count, list) = (self.word(at, 0)?, self.word(at, 8)?, self.word(at, 12)?);
        if version != 0 || count == 0 || count > MOST_BASES || found.len() > LONGEST {
            return None;
        }
        found.push((at, 12));
        let list = Rva(list.into());
        for index in 0..u64::from(count) {
            let base = Rva(self.word(list, 4 * index)?.into());
            self.class(Rva(self.word(base, 0)?.into()))?;
            found.extend([(list, 4 * index), (base, 0)]);
            // Whether it has a hierarchy of its own, a bit says.
            const HAS_HIERARCHY: u32 = 0x40;
            if self.word(base, 20)? & HAS_HIERARCHY != 0 {
                found.push((base, 24));
                others.push(Rva(self.word(base, 24)?.into()));
            }
        }
        Some(())
    }

    /// A class says what it is called, behind two pointers.
    fn class(&self, at: Rva) -> Option<()> {
        let name = self.pe.bytes(at.checked_add(16)?, 2)?;
        (name == b".?").then_some(())
    }

    /// The words of a table that is known by its name. A word that leads nowhere is noted, too:
    /// then it is equal to no other.
    fn named(&mut self, table: Table, at: Rva) -> Option<()> {
        const HAS_HIERARCHY: u32 = 0x40;
        let list = |first: u64, count: u64| (first..first + count).map(|word| 4 * word).collect();
        let offsets: Vec<u64> = match table {
            Table::Functions => Vec::new(),
            Table::Base if self.word(at, 20)? & HAS_HIERARCHY != 0 => vec![0, 24],
            Table::Base => vec![0],
            Table::Bases => list(0, self.words_of_list(at)?),
            Table::Hierarchy => vec![12],
            Table::Locator => vec![12, 16, OWN_PLACE],
            Table::Thrown => vec![4, 8, 12],
            Table::Catchables => list(1, self.word(at, 0)?.min(MOST_BASES).into()),
            Table::Catchable => vec![4, 24],
        };
        self.spend(offsets.len())?;
        for offset in offsets {
            if self.word(at, offset)? != 0 {
                self.add(at, offset);
            }
        }
        Some(())
    }

    fn add(&mut self, table: Rva, offset: u64) {
        let place = table.checked_add(offset);
        let to = self.word(table, offset);
        if let (Some(place), Some(to)) = (place, to) {
            let to = self.address(Rva(to.into()));
            self.relative.insert(self.address(place), to);
        }
    }
}
