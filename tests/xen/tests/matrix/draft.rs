//! A payload's file, taken apart so that anything in it can be spoiled, and put together again.

/// A section; `None` where the right value is worked out.
#[derive(Clone, Debug, Default)]
pub(crate) struct Part {
    pub(crate) name: String,
    pub(crate) name_at: Option<u32>,
    pub(crate) kind: u32,
    pub(crate) flags: u64,
    pub(crate) addr: u64,
    pub(crate) offset: Option<u64>,
    pub(crate) size: Option<u64>,
    pub(crate) link: Option<u32>,
    pub(crate) info: u32,
    pub(crate) align: u64,
    pub(crate) entry_size: u64,
    pub(crate) bytes: Vec<u8>,
}

#[derive(Clone, Debug)]
pub(crate) struct Mark {
    pub(crate) name: String,
    pub(crate) name_at: Option<u32>,
    pub(crate) section: u16,
    pub(crate) value: u64,
}

/// The file. Sections and symbols count from 1.
#[derive(Clone, Debug)]
pub(crate) struct Draft {
    pub(crate) header: [u8; 64],
    pub(crate) parts: Vec<Part>,
    pub(crate) symbols: Vec<Mark>,
    /// What is written into the file at last: place and bytes.
    pub(crate) spoiled: Vec<(usize, Vec<u8>)>,
    /// Where the table of sections begins, if not behind them.
    pub(crate) table: Option<u64>,
    /// How many sections the header tells.
    pub(crate) count: Option<u16>,
}

pub(crate) const PROGBITS: u32 = 1;
pub(crate) const SYMTAB: u32 = 2;
pub(crate) const STRTAB: u32 = 3;
pub(crate) const RELA: u32 = 4;
pub(crate) const NOBITS: u32 = 8;
pub(crate) const REL: u32 = 9;

fn number<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    *bytes[at..].first_chunk().expect("the file is whole")
}

fn text(bytes: &[u8], at: usize) -> String {
    let rest = bytes[at..].split(|byte| *byte == 0).next();
    String::from_utf8_lossy(rest.expect("a text")).into_owned()
}

impl Draft {
    /// Takes a file of the writer apart.
    pub(crate) fn of(file: &[u8]) -> Draft {
        let half = |at| usize::from(u16::from_le_bytes(number(file, at)));
        let word = |at| u32::from_le_bytes(number(file, at));
        let long = |at| u64::from_le_bytes(number(file, at));
        let (table, count) = (long(40) as usize, half(60));
        let names = long(table + half(62) * 64 + 24) as usize;
        let (mut parts, mut symbols) = (Vec::new(), Vec::new());
        for at in (1..count).map(|section| table + section * 64) {
            let (start, size) = (long(at + 24) as usize, long(at + 32));
            let kind = word(at + 4);
            let bytes = match kind {
                NOBITS => Vec::new(),
                _ => file[start..start + size as usize].to_vec(),
            };
            if kind == SYMTAB {
                let strings = long(table + word(at + 40) as usize * 64 + 24) as usize;
                symbols = bytes[24..]
                    .chunks_exact(24)
                    .map(|entry| Mark {
                        name: text(
                            file,
                            strings + u32::from_le_bytes(number(entry, 0)) as usize,
                        ),
                        name_at: None,
                        section: u16::from_le_bytes(number(entry, 6)),
                        value: u64::from_le_bytes(number(entry, 8)),
                    })
                    .collect();
            }
            if kind == SYMTAB || kind == STRTAB {
                continue;
            }
            parts.push(Part {
                name: text(file, names + word(at) as usize),
                kind,
                flags: long(at + 8),
                size: (kind == NOBITS).then_some(size),
                info: word(at + 44),
                align: long(at + 48),
                entry_size: long(at + 56),
                bytes,
                ..Part::default()
            });
        }
        Draft {
            header: number(file, 0),
            parts,
            symbols,
            spoiled: Vec::new(),
            table: None,
            count: None,
        }
    }

    /// The number of the section with that name.
    pub(crate) fn number(&self, name: &str) -> u16 {
        let place = self.parts.iter().position(|part| part.name == name);
        place.unwrap_or_else(|| unreachable!("no section {name}")) as u16 + 1
    }

    pub(crate) fn part(&mut self, name: &str) -> &mut Part {
        let number = usize::from(self.number(name));
        &mut self.parts[number - 1]
    }

    /// Adds a section that is loaded.
    pub(crate) fn add(&mut self, name: &str, flags: u64, bytes: &[u8]) -> u16 {
        self.parts.push(Part {
            name: name.to_owned(),
            kind: PROGBITS,
            flags,
            align: 8,
            bytes: bytes.to_vec(),
            ..Part::default()
        });
        self.parts.len() as u16
    }

    pub(crate) fn add_symbol(&mut self, name: &str, section: u16, value: u64) -> u32 {
        self.symbols.push(Mark {
            name: name.to_owned(),
            name_at: None,
            section,
            value,
        });
        self.symbols.len() as u32
    }

    /// Adds a relocation for a section: offset, type, symbol, addend.
    pub(crate) fn relocate(
        &mut self,
        section: u16,
        (offset, kind, symbol, addend): (u64, u32, u32, i64),
    ) {
        let place = self
            .parts
            .iter()
            .position(|p| p.kind == RELA && p.info == u32::from(section));
        let place = place.unwrap_or_else(|| {
            let name = format!(".rela{}", self.parts[usize::from(section) - 1].name);
            let number = self.add(&name, 0, &[]);
            let part = &mut self.parts[usize::from(number) - 1];
            (part.kind, part.info, part.entry_size) = (RELA, section.into(), 24);
            usize::from(number) - 1
        });
        let bytes = &mut self.parts[place].bytes;
        bytes.extend_from_slice(&offset.to_le_bytes());
        bytes.extend_from_slice(&(u64::from(symbol) << 32 | u64::from(kind)).to_le_bytes());
        bytes.extend_from_slice(&addend.to_le_bytes());
    }

    /// Puts the file together.
    pub(crate) fn file(&self) -> Vec<u8> {
        let mut file = vec![0; 64];
        let mut headers = vec![0; 64];
        let mut strings = vec![0];
        let mut section_names = vec![0];
        let mut entries = vec![0; 24];
        for symbol in &self.symbols {
            let at = match symbol.name.is_empty() {
                true => 0,
                false => add_text(&mut strings, &symbol.name),
            };
            entries.extend_from_slice(&symbol.name_at.unwrap_or(at).to_le_bytes());
            entries.extend_from_slice(&[0x10, 0]);
            entries.extend_from_slice(&symbol.section.to_le_bytes());
            entries.extend_from_slice(&symbol.value.to_le_bytes());
            entries.extend_from_slice(&0_u64.to_le_bytes());
        }
        let mut parts = self.parts.clone();
        let first_table = parts.len() as u32 + 1;
        let table = |name: &str, kind, entry_size, bytes| Part {
            name: name.to_owned(),
            kind,
            align: 1,
            entry_size,
            bytes,
            ..Part::default()
        };
        if !parts.iter().any(|part| part.kind == SYMTAB) {
            parts.push(table(".symtab", SYMTAB, 24, entries));
        }
        let symbols = parts
            .iter()
            .position(|part| part.kind == SYMTAB)
            .unwrap_or(0) as u32
            + 1;
        let strings_at = parts.len() as u32 + 1;
        parts.push(table(".strtab", STRTAB, 0, strings));
        parts.push(table(".shstrtab", STRTAB, 0, Vec::new()));
        let _ = first_table;
        let last = parts.len() - 1;
        let names: Vec<u32> = parts
            .iter()
            .map(|part| add_text(&mut section_names, &part.name))
            .collect();
        parts[last].bytes = section_names;
        for (part, name) in parts.iter().zip(names) {
            let align = usize::try_from(part.align.clamp(1, 64)).unwrap_or(1);
            file.resize(file.len().next_multiple_of(align), 0);
            let start = file.len() as u64;
            file.extend_from_slice(&part.bytes);
            let link = match part.kind {
                SYMTAB => strings_at,
                RELA | REL => symbols,
                _ => 0,
            };
            for word in [part.name_at.unwrap_or(name), part.kind] {
                headers.extend_from_slice(&word.to_le_bytes());
            }
            let size = part.size.unwrap_or(part.bytes.len() as u64);
            for long in [part.flags, part.addr, part.offset.unwrap_or(start), size] {
                headers.extend_from_slice(&long.to_le_bytes());
            }
            for word in [part.link.unwrap_or(link), part.info] {
                headers.extend_from_slice(&word.to_le_bytes());
            }
            for long in [part.align, part.entry_size] {
                headers.extend_from_slice(&long.to_le_bytes());
            }
        }
        file.resize(file.len().next_multiple_of(8), 0);
        let table = self.table.unwrap_or(file.len() as u64);
        let count = (parts.len() + 1) as u16;
        file.extend_from_slice(&headers);
        file[..64].copy_from_slice(&self.header);
        file[40..48].copy_from_slice(&table.to_le_bytes());
        file[60..62].copy_from_slice(&self.count.unwrap_or(count).to_le_bytes());
        file[62..64].copy_from_slice(&(count - 1).to_le_bytes());
        for (at, bytes) in &self.spoiled {
            file[*at..at + bytes.len()].copy_from_slice(bytes);
        }
        file
    }
}

fn add_text(table: &mut Vec<u8>, text: &str) -> u32 {
    let at = table.len() as u32;
    table.extend_from_slice(text.as_bytes());
    table.push(0);
    at
}
