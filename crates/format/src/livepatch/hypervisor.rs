//! What is known of a hypervisor: the names that it knows itself by, its code, its build id.

use std::collections::{HashMap, HashSet};
use std::ops::Range;

use invivo_image::BuildId;
use object::read::elf::ElfFile64;
use object::{
    LittleEndian, Object as _, ObjectSection as _, ObjectSymbol as _, SymbolFlags, SymbolKind,
    SymbolSection, elf,
};

use super::function::Expectation;

/// Bytes of `struct alt_instr`.
pub(super) const ALTERNATIVE: usize = 14;
/// More than Xen's own table keeps of a name.
const LONGEST_NAME: usize = 255;
/// Where Xen begins if nothing else is known of it.
const XEN_START: u64 = 0xffff_82d0_4020_0000;
/// Xen's part of the address space: it, and payloads behind it.
pub(super) const XEN_ROOM: u64 = 1 << 30;

/// A hypervisor, from its `xen-syms` or from a `.map` file of the same build.
#[derive(Debug, Default)]
pub struct Hypervisor<'f> {
    names: HashMap<Vec<u8>, Known>,
    pub(super) starts: HashSet<u64>,
    pub(super) sections: Vec<(Range<u64>, &'f [u8])>,
    boot: Range<u64>,
    altered: Vec<Range<u64>>,
    build_id: Option<BuildId>,
}

/// Something that has a name in Xen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Known {
    /// Its address.
    pub address: u64,
    /// Bytes; 0 where a `.map` file does not tell.
    pub size: u64,
}

impl<'f> Hypervisor<'f> {
    /// Reads `xen-syms` or a `.map` file. The names are those of Xen's own table: `printk`, and
    /// `common/keyhandler.c#key_table` for what is static.
    ///
    /// # Errors
    /// A text when the file is neither.
    pub fn parse(file: &'f [u8]) -> Result<Hypervisor<'f>, String> {
        let mut found = if file.starts_with(b"\x7fELF") {
            let object = ElfFile64::<LittleEndian>::parse(file);
            let object = object.map_err(|error| format!("it is no xen-syms: {error}"))?;
            Hypervisor::of_object(&object)
        } else {
            Hypervisor::of_map(file).ok_or("it is neither xen-syms nor a .map file of Xen")?
        };
        let place = |name: &str| found.names.get(name.as_bytes()).map(|known| known.address);
        // It runs in the upper half of the address space.
        if place("_start").is_none_or(|start| start.cast_signed() >= 0) {
            return Err("it has no `_start` as a hypervisor has it".to_owned());
        }
        if let (Some(start), Some(end)) = (place("__init_begin"), place("__init_end")) {
            found.boot = start..end;
        }
        found.altered = found.alternatives();
        Ok(found)
    }

    fn of_object(object: &ElfFile64<'f, LittleEndian>) -> Hypervisor<'f> {
        let mut found = Hypervisor {
            build_id: object
                .build_id()
                .ok()
                .flatten()
                .map(|id| BuildId(id.to_vec())),
            ..Hypervisor::default()
        };
        let mut file = Vec::new();
        for symbol in object.symbols() {
            let name = symbol.name_bytes().unwrap_or_default();
            if symbol.kind() == SymbolKind::File {
                file = name.to_vec();
                continue;
            }
            let is_placed = matches!(symbol.section(), SymbolSection::Section(_));
            let is_long = file.len() + name.len() > LONGEST_NAME;
            if name.is_empty() || is_long || !is_placed || symbol.kind() == SymbolKind::Section {
                continue;
            }
            let is_local = matches!(symbol.flags(), SymbolFlags::Elf { st_info, .. } if st_info.st_bind() == elf::STB_LOCAL);
            let name = match is_local && !file.is_empty() {
                true => [&file, &b"#"[..], name].concat(),
                false => name.to_vec(),
            };
            found.add(name, symbol.address(), symbol.size());
        }
        for section in object.sections() {
            let (start, size) = (section.address(), section.size());
            let bytes = section.data().unwrap_or_default();
            if let (true, Some(end)) = (start != 0 && !bytes.is_empty(), start.checked_add(size)) {
                found.sections.push((start..end, bytes));
            }
        }
        found
    }

    fn of_map(file: &[u8]) -> Option<Hypervisor<'f>> {
        let mut found = Hypervisor::default();
        let lines = file.split(|byte| *byte == b'\n');
        for line in lines.filter(|line| !line.is_empty()) {
            let mut words = line.splitn(3, |byte| *byte == b' ');
            let address = std::str::from_utf8(words.next()?).ok()?;
            let address = u64::from_str_radix(address.strip_prefix("0x")?, 16).ok()?;
            let (_, name) = (words.next()?, words.next()?);
            found.add(name.to_vec(), address, 0);
        }
        (!found.names.is_empty()).then_some(found)
    }

    /// Of two with one name Xen finds the lower one.
    fn add(&mut self, name: Vec<u8>, address: u64, size: u64) {
        self.starts.insert(address);
        let known = Known { address, size };
        let held = self.names.entry(name).or_insert(known);
        if address < held.address {
            *held = known;
        }
    }

    /// What has this name.
    #[must_use]
    pub fn find(&self, name: &[u8]) -> Option<Known> {
        self.names.get(name).copied()
    }

    /// All names, in no order.
    pub(super) fn named(&self) -> impl Iterator<Item = (&[u8], Known)> {
        let names = self.names.iter();
        names.map(|(name, known)| (&name[..], *known))
    }

    /// The build id of `xen.gz`; `None` from a `.map` file.
    #[must_use]
    pub fn build_id(&self) -> Option<&BuildId> {
        self.build_id.as_ref()
    }

    /// The bytes that the file has from an address on, to the end of their section.
    #[must_use]
    pub fn bytes(&self, address: u64) -> Option<&'f [u8]> {
        let (range, bytes) = self
            .sections
            .iter()
            .find(|(range, _)| range.contains(&address))?;
        bytes.get(usize::try_from(address - range.start).ok()?..)
    }

    /// The code of a function.
    #[must_use]
    pub fn code(&self, known: Known) -> Option<&'f [u8]> {
        let size = usize::try_from(known.size).ok()?;
        self.bytes(known.address)?.get(..size)
    }

    /// True if the memory there is given back when Xen has booted.
    #[must_use]
    pub fn is_for_boot(&self, address: u64) -> bool {
        self.boot.contains(&address)
    }

    /// True if something with a name begins there.
    #[must_use]
    pub fn is_start(&self, address: u64) -> bool {
        self.starts.contains(&address)
    }

    /// The offsets in a function that Xen changes when it boots, to fit the processor.
    #[must_use]
    pub fn altered(&self, known: Known) -> Vec<Range<u64>> {
        let end = known.address.saturating_add(known.size);
        let inside = self
            .altered
            .iter()
            .filter(|range| range.start < end && known.address < range.end);
        let place = |range: &Range<u64>| {
            range.start.saturating_sub(known.address)..range.end.min(end) - known.address
        };
        inside.map(place).collect()
    }

    /// What a payload may expect of a function: as many of its first bytes as are the same in memory.
    #[must_use]
    pub fn expectation(&self, known: Known) -> Option<Expectation> {
        Expectation::beginning(self.code(known)?, &self.altered(known))
    }

    /// Where the first payload is loaded, as good as that can be told: behind Xen. There are
    /// [`XEN_ROOM`] bytes from there on, whatever the file says of Xen's end.
    pub(super) fn end(&self) -> u64 {
        const LARGE_PAGE: u64 = 2 << 20;
        let end = self.find(b"_end").map(|known| known.address);
        end.and_then(|end| end.checked_next_multiple_of(LARGE_PAGE))
            .filter(|end| end.checked_add(XEN_ROOM).is_some())
            .unwrap_or(XEN_START)
    }

    fn alternatives(&self) -> Vec<Range<u64>> {
        let place = |name: &str| self.find(name.as_bytes()).map(|known| known.address);
        let (start, end) = (place("__alt_instructions"), place("__alt_instructions_end"));
        let (Some(start), Some(end)) = (start, end) else {
            return Vec::new();
        };
        let size = usize::try_from(end.saturating_sub(start)).unwrap_or(0);
        let table = self.bytes(start).and_then(|bytes| bytes.get(..size));
        let records = table.unwrap_or_default().chunks_exact(ALTERNATIVE);
        let places = (start..).step_by(ALTERNATIVE);
        let altered = records.zip(places).map(|(record, at)| {
            let distance = super::file::word(record, 0).cast_signed();
            let start = at.wrapping_add_signed(distance.into());
            // The original instruction, and the padding behind it.
            let length = u64::from(record[10]) + u64::from(record[12]);
            start..start.saturating_add(length)
        });
        altered.collect()
    }
}
