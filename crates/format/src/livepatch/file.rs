//! The file as Xen sees it: headers, symbols, names; the rules X01–X13 and X63, in Xen's order.
//!
//! Xen reads at any offset, aligned or not, so this does, too.

mod bytes;
mod header;

use super::{LivepatchError, Rule};
use header::header;

pub(super) use bytes::{half, long, name, shown, slice, word};

/// The most bytes of a payload, and of a section of zeros.
pub(super) const LARGEST: u64 = 2 << 20;

pub(super) const SHT_SYMTAB: u32 = 2;
pub(super) const SHT_STRTAB: u32 = 3;
pub(super) const SHT_RELA: u32 = 4;
pub(super) const SHT_NOBITS: u32 = 8;
pub(super) const SHT_REL: u32 = 9;
pub(super) const SHF_WRITE: u64 = 1;
pub(super) const SHF_ALLOC: u64 = 2;
pub(super) const SHF_EXECINSTR: u64 = 4;
pub(super) const SHF_MERGE: u64 = 0x10;
pub(super) const SHN_UNDEF: u16 = 0;
pub(super) const SHN_LORESERVE: u16 = 0xff00;
pub(super) const SHN_ABS: u16 = 0xfff1;
pub(super) const SHN_COMMON: u16 = 0xfff2;

const HEADER: u64 = 64;
const SECTION_HEADER: u64 = 64;
const SYMBOL: u64 = 24;
pub(super) const RELA: u64 = 24;
pub(super) const REL: u64 = 16;

/// A section's header with its name. Number 0 is never one.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Header<'f> {
    pub(super) name: &'f [u8],
    name_at: u32,
    pub(super) kind: u32,
    pub(super) flags: u64,
    addr: u64,
    pub(super) offset: u64,
    pub(super) size: u64,
    pub(super) link: u32,
    pub(super) info: u32,
    pub(super) align: u64,
    pub(super) entry_size: u64,
}

impl Header<'_> {
    pub(super) fn is_loaded(&self) -> bool {
        self.flags & SHF_ALLOC != 0
    }

    pub(super) fn is_code(&self) -> bool {
        self.flags & SHF_EXECINSTR != 0
    }

    pub(super) fn is_writable(&self) -> bool {
        self.flags & SHF_WRITE != 0
    }

    /// The name for a person.
    pub(super) fn shown(&self) -> String {
        shown(self.name)
    }
}

/// An entry of the symbol table.
#[derive(Clone, Copy, Debug)]
pub(super) struct RawSymbol<'f> {
    pub(super) name: &'f [u8],
    pub(super) section: u16,
    pub(super) value: u64,
    pub(super) size: u64,
}

/// An entry of a relocation section.
#[derive(Clone, Copy, Debug)]
pub(super) struct RawRelocation {
    pub(super) offset: u64,
    pub(super) symbol: u32,
    pub(super) kind: u32,
    pub(super) addend: i64,
}

/// The file's parts. Every range in it is inside the file.
pub(super) struct File<'f> {
    bytes: &'f [u8],
    /// With number 0, which is empty.
    pub(super) sections: Vec<Header<'f>>,
    /// With number 0, which is empty.
    pub(super) symbols: Vec<RawSymbol<'f>>,
    /// The number of the symbol table.
    pub(super) symbol_table: usize,
}

impl<'f> File<'f> {
    /// Splits the file up.
    ///
    /// # Errors
    /// The first rule that is broken, as Xen finds it.
    pub(super) fn parse(bytes: &'f [u8]) -> Result<File<'f>, LivepatchError> {
        let length = bytes.len() as u64;
        if length == 0 || length > LARGEST {
            return Err(LivepatchError::new(
                Rule::X01,
                format!("the file has {length} bytes"),
            ));
        }
        header(bytes)?;
        let mut file = File {
            bytes,
            sections: vec![Header::default()],
            symbols: Vec::new(),
            symbol_table: 0,
        };
        file.read_headers()?;
        file.check_tables()?;
        file.read_names()?;
        file.read_symbols()?;
        Ok(file)
    }

    /// What a section holds; nothing where its bytes are not in the file.
    pub(super) fn contents(&self, section: &Header<'_>) -> &'f [u8] {
        if section.kind == SHT_NOBITS {
            return &[];
        }
        slice(self.bytes, section.offset, section.size).unwrap_or_default()
    }

    /// The first section of that name, with its number; Xen looks for no second one.
    pub(super) fn section(&self, name: &str) -> Option<(usize, &Header<'f>)> {
        let mut all = self.sections.iter().enumerate().skip(1);
        all.find(|(_, section)| section.name == name.as_bytes())
    }

    /// Entries of a relocation section with addends.
    pub(super) fn relocations(
        &self,
        section: &Header<'_>,
    ) -> impl Iterator<Item = RawRelocation> + 'f {
        let size = usize::try_from(section.entry_size.max(RELA)).unwrap_or(usize::MAX);
        self.contents(section).chunks_exact(size).map(|entry| {
            let info = long(entry, 8);
            RawRelocation {
                offset: long(entry, 0),
                symbol: (info >> 32) as u32,
                kind: info as u32,
                addend: long(entry, 16).cast_signed(),
            }
        })
    }

    fn read_headers(&mut self) -> Result<(), LivepatchError> {
        let bytes = self.bytes;
        let (table, size, count) = (long(bytes, 40), half(bytes, 58), half(bytes, 60));
        let length = bytes.len() as u64;
        for number in 1..count {
            // `header` has shown that the whole table is in the file.
            let at = table + u64::from(number) * u64::from(size);
            let entry = slice(bytes, at, SECTION_HEADER).unwrap_or(&[0; 64]);
            let section = Header {
                name: &[],
                name_at: word(entry, 0),
                kind: word(entry, 4),
                flags: long(entry, 8),
                addr: long(entry, 16),
                offset: long(entry, 24),
                size: long(entry, 32),
                link: word(entry, 40),
                info: word(entry, 44),
                align: long(entry, 48),
                entry_size: long(entry, 56),
            };
            self.check_section(number, &section, length)?;
            if section.kind == SHT_SYMTAB {
                if self.symbol_table != 0 {
                    let text = format!("section {number} is a second symbol table");
                    return Err(LivepatchError::new(Rule::X11, text));
                }
                if section.link >= count.into() {
                    let text = format!("the strings of symbols are section {}", section.link);
                    return Err(LivepatchError::new(Rule::X12, text));
                }
                self.symbol_table = number.into();
            }
            self.sections.push(section);
        }
        Ok(())
    }

    fn check_section(
        &self,
        number: u16,
        section: &Header<'_>,
        length: u64,
    ) -> Result<(), LivepatchError> {
        let (offset, size, align) = (section.offset, section.size, section.align);
        let is_held = section.kind != SHT_NOBITS;
        let past = offset > length || offset.wrapping_add(size) > length;
        if offset < HEADER || (is_held && past) {
            let text = format!("section {number}: {size:#x} bytes at {offset:#x} of the file");
            return Err(LivepatchError::new(Rule::X07, text));
        }
        if is_held && offset.checked_add(size).is_none() {
            let text = format!("section {number}: {size:#x} bytes at {offset:#x} wrap around");
            return Err(LivepatchError::new(Rule::X63, text));
        }
        if align != 0 && !align.is_power_of_two() {
            let text = format!("section {number} has the alignment {align}");
            return Err(LivepatchError::new(Rule::X08, text));
        }
        if align != 0 && !section.addr.is_multiple_of(align) {
            let text = format!(
                "section {number}, aligned to {align}, has the address {:#x}",
                section.addr
            );
            return Err(LivepatchError::new(Rule::X09, text));
        }
        if !is_held && section.flags & (SHF_WRITE | SHF_ALLOC) != 0 && size > LARGEST {
            let text = format!("section {number} is {size:#x} zeros");
            return Err(LivepatchError::new(Rule::X10, text));
        }
        Ok(())
    }

    /// The symbol table's header, and both tables of strings.
    fn check_tables(&self) -> Result<(), LivepatchError> {
        let broken = |text: String| Err(LivepatchError::new(Rule::X12, text));
        if self.symbol_table == 0 {
            return broken("there is no symbol table".to_owned());
        }
        let table = &self.sections[self.symbol_table];
        let (size, entry) = (table.size, table.entry_size);
        if size == 0 || entry < SYMBOL || !size.is_multiple_of(entry) {
            return broken(format!(
                "the symbol table has {size} bytes, {entry} for each symbol"
            ));
        }
        if table.link == 0 {
            let text = "the strings of symbols are section 0".to_owned();
            return Err(LivepatchError::new(Rule::X63, text));
        }
        self.check_strings(table.link as usize, Rule::X12)?;
        self.check_strings(half(self.bytes, 62).into(), Rule::X13)
    }

    fn check_strings(&self, number: usize, rule: Rule) -> Result<(), LivepatchError> {
        let section = &self.sections[number];
        let bytes = self.contents(section);
        let is_framed = bytes.first() == Some(&0) && bytes.last() == Some(&0);
        if section.kind != SHT_STRTAB || !is_framed {
            let text = format!("section {number} is no table of strings between zeros");
            return Err(LivepatchError::new(rule, text));
        }
        Ok(())
    }

    fn read_names(&mut self) -> Result<(), LivepatchError> {
        let strings = self.contents(&self.sections[usize::from(half(self.bytes, 62))]);
        for (number, section) in self.sections.iter_mut().enumerate().skip(1) {
            section.name = name(strings, section.name_at).ok_or_else(|| {
                let text = format!("the name of section {number} is at {:#x}", section.name_at);
                LivepatchError::new(Rule::X13, text)
            })?;
        }
        Ok(())
    }

    fn read_symbols(&mut self) -> Result<(), LivepatchError> {
        let table = &self.sections[self.symbol_table];
        let strings = self.contents(&self.sections[table.link as usize]);
        let size = usize::try_from(table.entry_size).unwrap_or(usize::MAX);
        for (number, entry) in self.contents(table).chunks_exact(size).enumerate() {
            // Xen does not look at the name of number 0.
            let at = if number == 0 { 0 } else { word(entry, 0) };
            let found = name(strings, at).ok_or_else(|| {
                let text = format!("the name of symbol {number} is at {at:#x}");
                LivepatchError::new(Rule::X12, text)
            })?;
            self.symbols.push(RawSymbol {
                name: found,
                section: half(entry, 6),
                value: long(entry, 8),
                size: long(entry, 16),
            });
        }
        Ok(())
    }
}
