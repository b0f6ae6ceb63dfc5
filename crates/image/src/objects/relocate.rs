//! What the linker would fill in: each value is written, and what it means is kept.

use std::collections::HashMap;

use object::elf;

use super::file::{InPlace, InSection, Relocation};
use super::layout::Layout;
use super::set::Set;
use crate::model::{Image, Slot};
use crate::{ImageError, LinkAddr};

/// What a symbol stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Value {
    /// A place of the image.
    Place(u64),
    /// A number.
    Number(u64),
    /// An offset in the block of a thread's variables.
    ThreadLocal(u64),
    /// A place in a section that the program does not have.
    Dropped,
}

/// A set that is laid out.
pub(super) struct Linked<'s, 'o, 'd> {
    pub(super) set: &'s Set<'o, 'd>,
    pub(super) layout: Layout,
    /// Slots by what they hold, in the order of their making.
    slots: HashMap<Slot, u64>,
    order: Vec<Slot>,
    /// Where the first slot is.
    table: u64,
}

impl<'s, 'o, 'd> Linked<'s, 'o, 'd> {
    pub(super) fn new(set: &'s Set<'o, 'd>, layout: Layout) -> Self {
        let table = (layout.end + 64).next_multiple_of(64);
        Linked {
            set,
            layout,
            slots: HashMap::new(),
            order: Vec::new(),
            table,
        }
    }

    /// Where the table of slots is, and what it holds.
    pub(super) fn table(&self) -> (LinkAddr, &[Slot]) {
        (LinkAddr(self.table), &self.order)
    }

    /// What `symbol` of the file `object` stands for.
    pub(super) fn value(&self, object: usize, symbol: usize) -> Value {
        let own = &self.set.objects[object].symbols[symbol];
        let Some((object, symbol)) = self.set.definition(object, symbol) else {
            let common = self.layout.commons.get(&own.name);
            let place = common.or_else(|| self.layout.externals.get(&own.name));
            return place.map_or(Value::Dropped, |at| Value::Place(*at));
        };
        let defined = &self.set.objects[object].symbols[symbol];
        match defined.place {
            InPlace::Absolute(value) => Value::Number(value),
            InPlace::Undefined | InPlace::Common { .. } => Value::Dropped,
            InPlace::In { section, offset } => {
                let start = self.layout.starts.get(&(object, section));
                let Some(at) = start.and_then(|start| start.checked_add(offset)) else {
                    return Value::Dropped;
                };
                let holder = self.set.objects[object].sections[section].as_ref();
                if holder.is_some_and(|s| s.flags.contains(elf::SHF_TLS)) {
                    Value::ThreadLocal(at)
                } else {
                    Value::Place(at)
                }
            }
        }
    }

    /// Fills in all values, and tells `image` what they mean.
    pub(super) fn relocate(&mut self, image: &mut Image) -> Result<(), ImageError> {
        for (number, object) in self.set.objects.iter().enumerate() {
            for (index, section) in object.sections.iter().enumerate() {
                let Some(section) = section.as_ref().filter(|_| self.set.holds(number, index))
                else {
                    continue;
                };
                for relocation in &section.relocations {
                    let done = if section.is_loaded() {
                        self.loaded(image, (number, index), section, relocation)
                    } else {
                        self.debug((number, index), section, relocation)
                    };
                    done.map_err(|why| {
                        let (name, at) = (&section.name, relocation.offset);
                        let symbol = &object.symbols[relocation.symbol].name;
                        let kind = relocation.kind.0;
                        object.fail(format!(
                            "{name}+{at:#x}: relocation {kind} to \"{symbol}\": {why}"
                        ))
                    })?;
                }
            }
        }
        Ok(())
    }

    fn slot(&mut self, slot: Slot) -> u64 {
        if let Some(at) = self.slots.get(&slot) {
            return *at;
        }
        let at = self.table + 8 * self.order.len() as u64;
        self.slots.insert(slot.clone(), at);
        self.order.push(slot);
        at
    }

    fn loaded(
        &mut self,
        image: &mut Image,
        at: (usize, usize),
        section: &InSection<'_>,
        relocation: &Relocation,
    ) -> Result<(), String> {
        use elf::{
            R_X86_64_32, R_X86_64_32S, R_X86_64_64, R_X86_64_CODE_4_GOTPCRELX, R_X86_64_DTPOFF32,
            R_X86_64_GOTPCREL, R_X86_64_GOTPCRELX, R_X86_64_GOTTPOFF, R_X86_64_NONE, R_X86_64_PC32,
            R_X86_64_PC64, R_X86_64_PLT32, R_X86_64_REX_GOTPCRELX, R_X86_64_TLSGD, R_X86_64_TLSLD,
            R_X86_64_TPOFF32, R_X86_64_TPOFF64,
        };
        let kind = relocation.kind;
        if kind == R_X86_64_NONE {
            return Ok(());
        }
        let value = self.value(at.0, relocation.symbol);
        let name = &self.set.objects[at.0].symbols[relocation.symbol].name;
        let start = *self
            .layout
            .starts
            .get(&at)
            .ok_or("its section has no place")?;
        let place = start.checked_add(relocation.offset);
        let place = place.ok_or("it lies outside its section")?;
        let added = |value: u64| value.wrapping_add_signed(relocation.addend);
        let relative = |value: u64| added(value).wrapping_sub(place);
        let code = section.flags.contains(elf::SHF_EXECINSTR);
        let (to, is_place) = match value {
            Value::Place(to) => (to, true),
            Value::Number(number) => (number, false),
            // Tables of unwinding keep records of code that another file brought.
            Value::Dropped if section.name == ".eh_frame" => (0, false),
            Value::Dropped => return Err("it leads to code or data of another copy".to_owned()),
            Value::ThreadLocal(offset) => (offset, false),
        };
        let is_local = matches!(value, Value::ThreadLocal(_));
        let local = |slot: fn(std::sync::Arc<str>, i64) -> Slot| slot(name.clone(), 0);
        let (bytes, width) = match kind {
            R_X86_64_64 if !is_local => {
                if is_place && code {
                    let target = added(to).cast_signed();
                    image.code_relocations.insert(LinkAddr(place), target);
                } else if is_place {
                    let slot = Slot::Pointer(LinkAddr(added(to)));
                    image.slots.insert(LinkAddr(place), slot);
                }
                (added(to), 8)
            }
            R_X86_64_32 | R_X86_64_32S if !is_local => {
                if is_place && code {
                    let target = added(to).cast_signed();
                    image.code_relocations.insert(LinkAddr(place), target);
                } else if is_place {
                    image.slots.insert(LinkAddr(place), Slot::Unknown(kind.0));
                }
                (added(to), 4)
            }
            R_X86_64_PC32 | R_X86_64_PLT32 => (relative(to), 4),
            R_X86_64_PC64 => (relative(to), 8),
            R_X86_64_GOTPCREL
            | R_X86_64_GOTPCRELX
            | R_X86_64_REX_GOTPCRELX
            | R_X86_64_CODE_4_GOTPCRELX
                if !is_local =>
            {
                let slot = if is_place {
                    Slot::Pointer(LinkAddr(to))
                } else {
                    Slot::Number(to)
                };
                (relative(self.slot(slot)), 4)
            }
            R_X86_64_GOTTPOFF => (relative(self.slot(local(Slot::TlsFromThreadPointer))), 4),
            R_X86_64_TLSGD => {
                let first = self.slot(Slot::TlsModule(name.clone()));
                self.slot(local(Slot::TlsOffset));
                (relative(first), 4)
            }
            R_X86_64_TLSLD => (relative(self.slot(Slot::TlsModule("".into()))), 4),
            R_X86_64_DTPOFF32 if is_local => (added(to), 4),
            R_X86_64_TPOFF32 if is_local => (added(to).wrapping_sub(self.layout.tls_block), 4),
            R_X86_64_TPOFF64 if is_local => (added(to).wrapping_sub(self.layout.tls_block), 8),
            _ => return Err("this kind is not supported".to_owned()),
        };
        if width == 4 {
            let signed = bytes.cast_signed();
            let fits = i32::try_from(signed).is_ok()
                || kind == R_X86_64_32 && u32::try_from(bytes).is_ok();
            // What led nowhere is not read.
            if !fits && value != Value::Dropped {
                return Err("the value does not fit".to_owned());
            }
        }
        let first = self
            .layout
            .in_file
            .get(&at)
            .ok_or("its section has no bytes")?;
        let file = &mut self.layout.file;
        write(file, *first, section.size, relocation.offset, bytes, width)
    }

    fn debug(
        &mut self,
        at: (usize, usize),
        section: &InSection<'_>,
        relocation: &Relocation,
    ) -> Result<(), String> {
        let width = match relocation.kind {
            elf::R_X86_64_NONE => return Ok(()),
            elf::R_X86_64_64 | elf::R_X86_64_DTPOFF64 => 8,
            elf::R_X86_64_32 | elf::R_X86_64_DTPOFF32 => 4,
            _ => return Err("this kind is not supported".to_owned()),
        };
        let value = match self.value(at.0, relocation.symbol) {
            Value::Place(value) | Value::Number(value) | Value::ThreadLocal(value) => {
                value.wrapping_add_signed(relocation.addend)
            }
            Value::Dropped => 0,
        };
        let first = *self
            .layout
            .starts
            .get(&at)
            .ok_or("its section has no place")?;
        let first = usize::try_from(first).map_err(|e| e.to_string())?;
        let whole = self.layout.debug.get_mut(&section.name);
        let whole = whole.ok_or("its section has no bytes")?;
        write(whole, first, section.size, relocation.offset, value, width)
    }
}

/// Writes `value` at `offset` of the section of `size` bytes that begins at `first`.
fn write(
    bytes: &mut [u8],
    first: usize,
    size: u64,
    offset: u64,
    value: u64,
    width: usize,
) -> Result<(), String> {
    let outside = "it lies outside its section";
    let inside = offset
        .checked_add(width as u64)
        .is_some_and(|end| end <= size);
    let start = usize::try_from(offset).ok().filter(|_| inside);
    let start = start.and_then(|start| start.checked_add(first));
    let room = start.and_then(|start| bytes.get_mut(start..start.checked_add(width)?));
    room.ok_or(outside)?
        .copy_from_slice(&value.to_le_bytes()[..width]);
    Ok(())
}
