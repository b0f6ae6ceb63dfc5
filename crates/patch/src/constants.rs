//! Constants and new variables that the patch brings itself.

use invivo_compare::{Extent, Parts, extent, is_relative_table, jump_table};
use invivo_image::x86_64::Line;
use invivo_image::{EntityId, Image, Link, LinkAddr, Place, SectionKind as ImageSection, Slot};

use crate::model::{Relocation, RelocationKind, Section, SectionKind, SymbolPlace};
use crate::planner::{Placed, Planner};
use crate::references::Target;

/// Code that uses a constant: the function, its instructions, and which of them.
type User<'u> = (&'u Parts, &'u [Line], usize);

impl Planner<'_, '_> {
    /// A copy of the unnamed constant at `at`.
    pub(crate) fn bind_constant(
        &mut self,
        user: Option<User<'_>>,
        at: LinkAddr,
    ) -> Result<Target, String> {
        let c = self.c;
        if let Some((parts, lines, index)) = user {
            let inside = |target: LinkAddr| {
                parts.ids().any(|id| {
                    let entity = c.fixed.entity(id);
                    entity.addr <= target && target < entity.end()
                })
            };
            if let Some(entries) = jump_table(c.fixed, &c.fixed_usage, lines, index, at, &inside) {
                let targets = entries
                    .iter()
                    .map(|entry| (entry.width, entry.target))
                    .collect();
                return self.copy_table(at, targets);
            }
            if is_relative_table(c.fixed, lines, index) {
                return self.copy_relative_table(at);
            }
        }
        let pointer = Line {
            instruction: Default::default(),
            address: None,
            immediate: None,
            word: None,
        };
        let line = user.map_or(&pointer, |(_, lines, index)| &lines[index]);
        let size = extent(c.fixed, &c.fixed_usage, line, at)
            .ok_or_else(|| format!("the constant at {at} has no end"))?;
        if let Extent::UpToNext(size) = size
            && user.is_some()
            && jumps_through(line)
            && c.fixed.link == Link::Fixed
            && size >= 8
        {
            return Err(format!("the table at {at} is not understood"));
        }
        let key = Placed::Constant(at, size.size());
        if let Some(symbol) = self.placed.get(&key) {
            return Ok((*symbol, 0));
        }
        let bytes = c
            .fixed
            .bytes(at, size.size())
            .ok_or("a constant without bytes")?
            .to_vec();
        // Vector instructions fault on a constant that lost its alignment.
        let align = 1u64 << at.0.trailing_zeros().min(6);
        let number = self.contents.sections.len();
        let symbol = self.place_data(
            format!(".rodata.{number}"),
            String::new(),
            SectionKind::ReadOnly,
            align,
            bytes,
            key,
        );
        self.relocate_data(symbol, at, size.size())?;
        Ok((symbol, 0))
    }

    fn place_data(
        &mut self,
        section: String,
        name: String,
        kind: SectionKind,
        align: u64,
        bytes: Vec<u8>,
        key: Placed,
    ) -> u32 {
        let size = bytes.len() as u64;
        let section = self.add_section(Section {
            name: section,
            kind,
            align,
            bytes,
            relocations: Vec::new(),
        });
        let symbol = self.add_symbol(
            name,
            SymbolPlace::Patch {
                section,
                offset: 0,
                size,
            },
        );
        self.placed.insert(key, symbol);
        symbol
    }

    /// A table of places in copied code.
    fn copy_table(&mut self, at: LinkAddr, entries: Vec<(u8, LinkAddr)>) -> Result<Target, String> {
        let width = entries.first().map_or(4, |(width, _)| *width);
        let size = entries.len() as u64 * u64::from(width);
        let key = Placed::Constant(at, size);
        if let Some(symbol) = self.placed.get(&key) {
            return Ok((*symbol, 0));
        }
        let number = self.contents.sections.len();
        let bytes = vec![0; usize::try_from(size).map_err(|e| e.to_string())?];
        let symbol = self.place_data(
            format!(".rodata.{number}"),
            String::new(),
            SectionKind::ReadOnly,
            u64::from(width),
            bytes,
            key,
        );
        let mut relocations = Vec::new();
        for ((_, target), offset) in entries
            .into_iter()
            .zip((0u64..).step_by(usize::from(width)))
        {
            let (symbol, addend) = self.bind_table_entry(target)?;
            // A distance counts from the table's start, a relocation from its own place.
            let (kind, addend) = match width {
                4 => (
                    RelocationKind::Relative32,
                    addend + i64::try_from(offset).map_err(|_| "a table that is too long")?,
                ),
                _ => (RelocationKind::Absolute64, addend),
            };
            relocations.push(Relocation {
                offset,
                kind,
                symbol,
                addend,
            });
        }
        self.set_relocations(symbol, relocations);
        Ok((symbol, 0))
    }

    /// A place in code: new code, where it is copied.
    pub(crate) fn bind_table_entry(&mut self, target: LinkAddr) -> Result<Target, String> {
        if let Place::In(id, offset) = self.c.fixed.place(target)
            && (self.hot.contains_key(&id) || self.cold.contains_key(&id))
        {
            return Ok((
                self.copied(id),
                i64::try_from(offset).map_err(|e| e.to_string())?,
            ));
        }
        self.bind_pointer(target)
    }

    /// A table of distances to constants, as `switch` statements that yield texts become.
    fn copy_relative_table(&mut self, at: LinkAddr) -> Result<Target, String> {
        let image = self.c.fixed;
        let end = image
            .section_at(at)
            .ok_or("a table outside the image")?
            .range
            .end;
        let next = self.c.fixed_usage.next_boundary(at).unwrap_or(end).min(end);
        let bytes = image
            .bytes(at, next.0 - at.0)
            .ok_or("a table without bytes")?;
        let mut entries = Vec::new();
        for raw in bytes.chunks_exact(4) {
            let distance = i32::from_le_bytes(raw.try_into().expect("chunks of four bytes"));
            let target = at.checked_offset(i64::from(distance));
            let target =
                target.filter(|target| distance != 0 && image.section_at(*target).is_some());
            entries.push((
                4,
                target.ok_or_else(|| format!("the table at {at} is not understood"))?,
            ));
        }
        if entries.is_empty() {
            return Err(format!("the table at {at} is not understood"));
        }
        self.copy_table(at, entries)
    }

    /// A copy of a constant or variable that the base lacks.
    pub(crate) fn copy_object(&mut self, id: EntityId) -> Result<u32, String> {
        let key = Placed::Copy(id);
        if let Some(symbol) = self.placed.get(&key) {
            return Ok(*symbol);
        }
        let image = self.c.fixed;
        let entity = image.entity(id);
        let section = image
            .section_at(entity.addr)
            .ok_or("an object outside the image")?;
        let (prefix, kind) = match section.kind {
            ImageSection::ReadOnly => (".rodata", SectionKind::ReadOnly),
            ImageSection::Data => (".data", SectionKind::Data),
            _ => {
                return Err(format!(
                    "{} is no data",
                    invivo_image::demangle(entity.name())
                ));
            }
        };
        const LARGEST: u64 = 1 << 30;
        let size = usize::try_from(entity.size)
            .ok()
            .filter(|_| entity.size <= LARGEST);
        let size = size.ok_or_else(|| format!("{} is too large", entity.name()))?;
        // A size out of a hostile symbol table is no reason for so many zeros.
        let ends = entity.addr.checked_add(entity.size);
        if ends.is_none_or(|end| end > section.range.end) {
            let name = invivo_image::demangle(entity.name());
            return Err(format!("{name} ends behind its section, {}", section.name));
        }
        let bytes = image
            .bytes(entity.addr, entity.size)
            .map_or_else(|| vec![0; size], <[u8]>::to_vec);
        let align = 1u64 << entity.addr.0.trailing_zeros().min(6);
        let name = entity.name().to_owned();
        let symbol = self.place_data(format!("{prefix}.{name}"), name, kind, align, bytes, key);
        self.relocate_data(symbol, entity.addr, entity.size)?;
        Ok(symbol)
    }

    /// Binds the pointers in copied data.
    fn relocate_data(&mut self, symbol: u32, at: LinkAddr, size: u64) -> Result<(), String> {
        let image = self.c.fixed;
        let end = at.checked_add(size).ok_or("data that wraps around")?;
        let mut pointers: Vec<(LinkAddr, LinkAddr)> = Vec::new();
        let mut bound: Vec<(LinkAddr, Target)> = Vec::new();
        for (place, slot) in image.slots.range(at..end) {
            match slot {
                Slot::Pointer(target) => pointers.push((*place, *target)),
                Slot::Import(name, addend) => {
                    let own = image
                        .entities
                        .iter()
                        .find(|e| e.names.iter().any(|s| s.name == *name));
                    match own.and_then(|entity| entity.addr.checked_offset(*addend)) {
                        Some(target) => pointers.push((*place, target)),
                        None => bound.push((*place, (self.import(name)?, *addend))),
                    }
                }
                other => return Err(format!("new data holds {other:?}")),
            }
        }
        if image.link == Link::Fixed {
            pointers.extend(fixed_pointers(image, at, end)?);
        }
        let owner = match image.place(at) {
            Place::In(id, 0) => Some(id),
            _ => None,
        };
        for (place, target) in pointers {
            let to = self.bind_pointer(target)?;
            self.doubt_data(owner, target, to);
            bound.push((place, to));
        }
        let relocations = bound
            .into_iter()
            .map(|(place, (symbol, addend))| Relocation {
                offset: place.0 - at.0,
                kind: RelocationKind::Absolute64,
                symbol,
                addend,
            });
        let relocations = relocations.collect();
        self.set_relocations(symbol, relocations);
        Ok(())
    }

    /// A slot of the patch's own that holds the address `target`.
    pub(crate) fn own_slot(&mut self, slot: &Slot, target: LinkAddr) -> Result<Target, String> {
        self.slot_for(Placed::Slot(slot.clone()), |planner| {
            planner.bind_pointer(target)
        })
    }

    /// The slot that is known as `key`; when it is first asked for it is made, and holds
    /// what `bind` says.
    pub(crate) fn slot_for(
        &mut self,
        key: Placed,
        bind: impl FnOnce(&mut Self) -> Result<Target, String>,
    ) -> Result<Target, String> {
        if let Some(symbol) = self.placed.get(&key) {
            return Ok((*symbol, 0));
        }
        let number = self.contents.sections.len();
        let slot = self.place_data(
            format!(".rodata.{number}"),
            String::new(),
            SectionKind::ReadOnly,
            8,
            vec![0; 8],
            key,
        );
        let (symbol, addend) = bind(self)?;
        let kind = RelocationKind::Absolute64;
        let offset = 0;
        self.set_relocations(
            slot,
            vec![Relocation {
                offset,
                kind,
                symbol,
                addend,
            }],
        );
        Ok((slot, 0))
    }

    fn set_relocations(&mut self, symbol: u32, relocations: Vec<Relocation>) {
        if let SymbolPlace::Patch { section, .. } = self.contents.symbols[symbol as usize].place {
            self.contents.sections[section as usize].relocations = relocations;
        }
    }
}

/// True for a jump through memory: what it reads is a table of places in code.
fn jumps_through(line: &Line) -> bool {
    line.instruction.mnemonic() == iced_x86::Mnemonic::Jmp
        && line.instruction.op0_kind() == iced_x86::OpKind::Memory
}

/// Aligned words of copied data that are addresses of an image with fixed addresses.
///
/// Five million is also a place in a large program, so a word counts as an address only
/// where something begins, and as a number only where nothing is.
fn fixed_pointers(
    image: &Image,
    at: LinkAddr,
    end: LinkAddr,
) -> Result<Vec<(LinkAddr, LinkAddr)>, String> {
    let first = at.0.next_multiple_of(8);
    let mut found = Vec::new();
    for place in (first..end.0.saturating_sub(7)).step_by(8) {
        let raw = image
            .bytes(LinkAddr(place), 8)
            .and_then(|raw| raw.try_into().ok());
        let target = LinkAddr(raw.map_or(0, u64::from_le_bytes));
        let begins = match image.place(target) {
            Place::Outside(_) => continue,
            Place::In(_, offset) => offset == 0,
            Place::Stub(_) | Place::Slot(_) => true,
            // A text begins behind the end of another one.
            Place::Constant(text) => {
                let before = text.checked_offset(-1).and_then(|at| image.bytes(at, 2));
                before.is_some_and(|pair| pair[0] == 0 && pair[1] != 0)
            }
            Place::Unnamed(_) => false,
        };
        if !begins {
            return Err(format!(
                "new data hold {target}, which may be a number or an address"
            ));
        }
        found.push((LinkAddr(place), target));
    }
    Ok(found)
}
