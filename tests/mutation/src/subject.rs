//! An image that is mutated, and the places in it that can be.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::proof::Facts;
use anyhow::{Context, Result, bail};
use iced_x86::{Decoder, DecoderOptions, FlowControl, Instruction};
use invivo_compare::Comparison;
use invivo_image::{Image, LinkAddr, SectionKind};
use object::LittleEndian as LE;
use object::elf::{self, FileHeader64};
use object::read::elf::{Dyn as _, FileHeader as _, SectionHeader as _};

/// The start-up code of the compiler, which no source has and which is not compared: it refers
/// to marks of the linker, and differs wherever the order of data does.
const START_UP: [&str; 4] = [
    "deregister_tm_clones",
    "register_tm_clones",
    "__do_global_dtors_aux",
    "frame_dummy",
];

/// What a mutation changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// A prefix, an opcode or a register of an instruction.
    Opcode,
    Immediate,
    Displacement,
    /// The target of a jump or call.
    Branch,
    /// A byte of a constant.
    Constant,
    /// An entry of a jump table.
    Table,
    /// A byte of a text.
    Text,
    /// The initial value of a variable, and what start-up reads.
    Data,
    /// A field of a dynamic relocation.
    Relocation,
    /// `.eh_frame`, `.gcc_except_table`.
    Unwind,
}

/// One field that a mutation may change: its place in the file, and its size in bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Site {
    pub(crate) offset: usize,
    pub(crate) size: usize,
}

/// An entry of a dynamic relocation table.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Relocation {
    /// Where it is in the file.
    pub(crate) offset: usize,
    pub(crate) place: LinkAddr,
    pub(crate) kind: u32,
}

/// An image with everything in it that can be changed.
pub(crate) struct Subject {
    pub(crate) name: String,
    pub(crate) bytes: Vec<u8>,
    pub(crate) image: Image,
    pub(crate) sites: Vec<(Kind, Vec<Site>)>,
    pub(crate) relocations: Vec<Relocation>,
    /// Every instruction of the image by its address.
    pub(crate) instructions: BTreeMap<u64, Instruction>,
    /// Every entry of a jump table, with the start of its table.
    pub(crate) tables: BTreeMap<u64, u64>,
    /// True if the loader fills all slots before the program starts.
    pub(crate) binds_now: bool,
    /// `DT_PLTGOT`.
    pub(crate) loader_table: Option<LinkAddr>,
    pub(crate) facts: Facts,
}

impl Subject {
    pub(crate) fn new(name: &str, bytes: Vec<u8>) -> Result<Subject> {
        let image = Image::parse(Arc::from(&bytes[..]), None).context("no image")?;
        let same = Comparison::new(&image, &image);
        if !same.is_unchanged() {
            bail!(
                "{name} differs from itself: {:?} {:?}",
                same.hot
                    .iter()
                    .map(|hot| (&hot.name, &hot.reasons))
                    .collect::<Vec<_>>(),
                same.findings
            );
        }
        let mut subject = Subject {
            name: name.to_owned(),
            relocations: relocations(&bytes)?,
            bytes,
            image,
            sites: Vec::new(),
            instructions: BTreeMap::new(),
            tables: BTreeMap::new(),
            binds_now: false,
            loader_table: None,
            facts: Facts::default(),
        };
        let says = |tag, bit: u64| -> Result<bool> {
            Ok(dynamic(&subject.bytes, tag)?
                .iter()
                .any(|flags| flags & bit != 0))
        };
        subject.binds_now = says(elf::DT_FLAGS, 8)? || says(elf::DT_FLAGS_1, 1)?;
        let table = dynamic(&subject.bytes, elf::DT_PLTGOT)?;
        subject.loader_table = table.first().copied().map(LinkAddr);
        let mut sites: BTreeMap<Kind, Vec<Site>> = BTreeMap::new();
        subject.code(&mut sites);
        subject.data(&mut sites);
        subject.tables(&mut sites);
        for relocation in &subject.relocations {
            // Place, type, symbol, addend: `Elf64_Rela`.
            for (skip, size) in [(0, 8), (8, 4), (12, 4), (16, 8)] {
                let offset = relocation.offset + skip;
                sites
                    .entry(Kind::Relocation)
                    .or_default()
                    .push(Site { offset, size });
            }
        }
        subject.facts = Facts::of(&subject);
        subject.sites = sites.into_iter().collect();
        Ok(subject)
    }

    /// Where the byte at `at` is in the file.
    fn offset(&self, at: u64) -> Option<usize> {
        let segment = self
            .image
            .segments
            .iter()
            .find(|s| s.range.contains(&LinkAddr(at)))?;
        let offset = segment.file.start + (at - segment.range.start.0);
        (offset < segment.file.end)
            .then(|| usize::try_from(offset).ok())
            .flatten()
    }

    /// The address of the byte at `offset` of the file.
    pub(crate) fn address(&self, offset: usize) -> Option<LinkAddr> {
        let offset = offset as u64;
        let segment = self
            .image
            .segments
            .iter()
            .find(|s| s.file.contains(&offset))?;
        Some(LinkAddr(
            segment.range.start.0 + (offset - segment.file.start),
        ))
    }

    fn code(&mut self, sites: &mut BTreeMap<Kind, Vec<Site>>) {
        for section in self
            .image
            .sections
            .iter()
            .filter(|s| s.kind == SectionKind::Text)
        {
            let (start, end) = (section.range.start.0, section.range.end.0);
            let mut borders: Vec<u64> = self
                .image
                .entities
                .iter()
                .flat_map(|entity| [entity.addr.0, entity.end().0])
                .filter(|at| (start..end).contains(at))
                .collect();
            borders.extend([start, end]);
            borders.sort_unstable();
            borders.dedup();
            let Some(first) = self.offset(start) else {
                continue;
            };
            for piece in borders.windows(2) {
                let bytes_from = LinkAddr(piece[0]);
                let start_up = self
                    .image
                    .entity_at(bytes_from)
                    .is_some_and(|id| START_UP.contains(&self.image.entity(id).name()));
                let from = first + usize::try_from(piece[0] - start).expect("inside");
                let size = usize::try_from(piece[1] - piece[0]).expect("inside");
                let bytes = &self.bytes[from..from + size];
                let mut decoder = Decoder::with_ip(64, bytes, piece[0], DecoderOptions::NONE);
                while decoder.can_decode() {
                    let before = decoder.position();
                    let instruction = decoder.decode();
                    let offset = from + before;
                    self.instructions.insert(instruction.ip(), instruction);
                    if start_up {
                        continue;
                    }
                    let parts = decoder.get_constant_offsets(&instruction);
                    let mut rest = vec![true; instruction.len()];
                    let branch = matches!(
                        instruction.flow_control(),
                        FlowControl::Call
                            | FlowControl::UnconditionalBranch
                            | FlowControl::ConditionalBranch
                    );
                    let number = if branch {
                        Kind::Branch
                    } else {
                        Kind::Immediate
                    };
                    for (kind, at, size) in [
                        (number, parts.immediate_offset(), parts.immediate_size()),
                        (
                            Kind::Displacement,
                            parts.displacement_offset(),
                            parts.displacement_size(),
                        ),
                    ] {
                        if size > 0 {
                            rest[at..at + size].fill(false);
                            sites.entry(kind).or_default().push(Site {
                                offset: offset + at,
                                size,
                            });
                        }
                    }
                    for at in (0..rest.len()).filter(|at| rest[*at]) {
                        let offset = offset + at;
                        sites
                            .entry(Kind::Opcode)
                            .or_default()
                            .push(Site { offset, size: 1 });
                    }
                }
            }
        }
    }

    fn data(&self, sites: &mut BTreeMap<Kind, Vec<Site>>) {
        for section in &self.image.sections {
            let name = section.name.as_str();
            let kind = match section.kind {
                SectionKind::Text => continue,
                // What only the loader, the linker and debuggers read is not compared.
                _ if [
                    ".dyn",
                    ".gnu",
                    ".rel",
                    ".interp",
                    ".hash",
                    ".note",
                    ".eh_frame_hdr",
                ]
                .iter()
                .any(|start| name.starts_with(start)) =>
                {
                    continue;
                }
                _ if [".eh_frame", ".gcc_except_table"].contains(&name) => Kind::Unwind,
                SectionKind::ReadOnly => Kind::Constant,
                SectionKind::Data | SectionKind::Tls | SectionKind::Got => Kind::Data,
            };
            let bytes = self.image.section_bytes(section);
            let Some(first) = self.offset(section.range.start.0) else {
                continue;
            };
            for at in 0..bytes.len() {
                let text = kind == Kind::Constant
                    && section.name.starts_with(".rodata")
                    && bytes[at.saturating_sub(4)..bytes.len().min(at + 4)]
                        .iter()
                        .all(|byte| byte.is_ascii_graphic() || *byte == b' ');
                let kind = if text { Kind::Text } else { kind };
                sites.entry(kind).or_default().push(Site {
                    offset: first + at,
                    size: 1,
                });
            }
        }
    }

    /// Entries of tables that lead from a place that code loads the address of to code.
    fn tables(&mut self, sites: &mut BTreeMap<Kind, Vec<Site>>) {
        let relative = self
            .instructions
            .values()
            .filter(|i| i.is_ip_rel_memory_operand());
        let starts = relative.map(Instruction::ip_rel_memory_address);
        let entries = starts.flat_map(|table| {
            let places = self.entries(table);
            places.into_iter().map(move |place| (place, table))
        });
        self.tables = entries.collect();
        for place in self.tables.keys() {
            if let Some(offset) = self.offset(*place) {
                sites
                    .entry(Kind::Table)
                    .or_default()
                    .push(Site { offset, size: 4 });
            }
        }
    }

    /// Places of the entries, four bytes each and relative to `table`, that lead to code.
    fn entries(&self, table: u64) -> Vec<u64> {
        let mut found = Vec::new();
        let mut place = table;
        while let Some(raw) = self.image.bytes(LinkAddr(place), 4) {
            let distance = i32::from_le_bytes(raw.try_into().expect("four bytes"));
            let target = table.wrapping_add_signed(i64::from(distance));
            if distance == 0 || !self.instructions.contains_key(&target) {
                break;
            }
            found.push(place);
            place += 4;
        }
        found
    }
}

/// The values that `.dynamic` has for `tag`.
fn dynamic(bytes: &[u8], tag: elf::DynamicTag) -> Result<Vec<u64>> {
    let header = FileHeader64::<LE>::parse(bytes)?;
    let mut found = Vec::new();
    for section in header.sections(LE, bytes)?.iter() {
        if let Some((entries, _)) = section.dynamic(LE, bytes)? {
            let tagged = entries.iter().filter(|entry| entry.d_tag(LE) == tag);
            found.extend(tagged.map(|entry| entry.d_val(LE)));
        }
    }
    Ok(found)
}

fn relocations(bytes: &[u8]) -> Result<Vec<Relocation>> {
    let header = FileHeader64::<LE>::parse(bytes)?;
    let mut found = Vec::new();
    for section in header.sections(LE, bytes)?.iter() {
        if !section.sh_flags(LE).contains(elf::SHF_ALLOC) {
            continue;
        }
        let Some((entries, _)) = section.rela(LE, bytes)? else {
            continue;
        };
        let start = usize::try_from(section.sh_offset(LE))?;
        for (index, entry) in entries.iter().enumerate() {
            found.push(Relocation {
                offset: start + index * 24,
                place: LinkAddr(entry.r_offset.get(LE)),
                kind: entry.r_type(LE, false).0,
            });
        }
    }
    Ok(found)
}
