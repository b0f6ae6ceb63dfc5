//! Where each section of a set of object files is put, as if a linker had done it.
//!
//! No address that comes out of this means anything to a running program: what counts is that
//! each place has one, and that no two have the same. Sections of the same name stay apart, so
//! that the end of each is known and no reference leads from one into the next.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::set::{Externals, Set};
use object::elf;

use super::file::InSection;
use crate::elf::section_kind;
use crate::model::{Section, SectionKind};
use crate::{ImageError, LinkAddr};

/// The lowest address.
pub(super) const BASE: u64 = 0x1000_0000;
/// The highest: 32-bit operands reach it.
const HIGHEST: u64 = 0x7000_0000;
/// Between two sections. More than what [`crate::Image::just_before`] looks across, twice.
pub(crate) const GAP: u64 = 64;
/// What sections are called that hold nothing but texts, each up to its NUL: linkers merge them as
/// such, so nobody reads behind one.
pub(crate) const TEXTS: &str = ".rodata.str1";
/// Sections of which the image has one: what the files bring is put together.
const JOINED: [&str; 7] = [
    ".eh_frame",
    ".init_array",
    ".fini_array",
    ".preinit_array",
    ".ctors",
    ".dtors",
    ".tdata",
];

/// Where everything is.
#[derive(Default)]
pub(super) struct Layout {
    /// Where the first byte of a section is; debug sections count from zero, and so do the
    /// variables of threads.
    pub(super) starts: HashMap<(usize, usize), u64>,
    /// Where the bytes of a section are in the file that is made.
    pub(super) in_file: HashMap<(usize, usize), usize>,
    /// Where common variables are.
    pub(super) commons: BTreeMap<Arc<str>, u64>,
    /// Where things are that no file of the set has.
    pub(super) externals: BTreeMap<Arc<str>, u64>,
    /// The loaded sections, in order of address.
    pub(super) sections: Vec<Section>,
    /// Debug sections by name, with their bytes.
    pub(super) debug: BTreeMap<String, Vec<u8>>,
    /// The bytes of the loaded sections.
    pub(super) file: Vec<u8>,
    /// The size of the block of a thread's variables.
    pub(super) tls_block: u64,
    /// The first address behind everything.
    pub(super) end: u64,
}

/// The name that a linker gives to the section into which it puts one called `name`.
pub(super) fn output_name(name: &str) -> &str {
    let known = [
        ".text",
        ".rodata",
        ".data.rel.ro",
        ".data",
        ".bss",
        ".tdata",
        ".tbss",
        ".gcc_except_table",
        ".init_array",
        ".fini_array",
        ".preinit_array",
        ".ctors",
        ".dtors",
        ".init.text",
        ".init.data",
        ".init.rodata",
        ".fixup",
    ];
    let under = |known: &&&str| {
        let rest = name.strip_prefix(**known);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    };
    known.iter().find(under).map_or(name, |known| *known)
}

/// Text first, variables of threads last.
fn rank(kind: SectionKind, has_bytes: bool) -> u8 {
    match (kind, has_bytes) {
        (SectionKind::Text, _) => 0,
        (SectionKind::ReadOnly | SectionKind::Got, _) => 1,
        (SectionKind::Data, true) => 2,
        (SectionKind::Data, false) => 3,
        (SectionKind::Tls, true) => 4,
        (SectionKind::Tls, false) => 5,
    }
}

/// One section of a file, in the order of the image.
struct Piece<'s> {
    rank: u8,
    joined: bool,
    name: &'s str,
    at: (usize, usize),
    kind: SectionKind,
}

impl Layout {
    pub(super) fn new(set: &Set<'_, '_>, externals: &Externals) -> Result<Self, ImageError> {
        let mut layout = Layout {
            end: BASE,
            ..Layout::default()
        };
        let pieces = pieces(set);
        let mut last: Option<&Piece<'_>> = None;
        let mut tls = None;
        for piece in &pieces {
            let object = &set.objects[piece.at.0];
            let Some(section) = &object.sections[piece.at.1] else {
                continue;
            };
            let too_large = || object.fail(format!("section {}: too large", section.name));
            if piece.kind == SectionKind::Tls && section.bytes.is_none() {
                let start = layout.tls_block.checked_next_multiple_of(section.align);
                let start = start.ok_or_else(too_large)?;
                layout.starts.insert(piece.at, start);
                let end = start.checked_add(section.size).filter(|end| *end < HIGHEST);
                layout.tls_block = end.ok_or_else(too_large)?;
                continue;
            }
            let follows = piece.joined && last.is_some_and(|last| last.name == piece.name);
            last = Some(piece);
            // Zeros between two tables of `.eh_frame` would end it.
            let align = if piece.name == ".eh_frame" {
                1
            } else {
                section.align
            };
            let align = if follows { align } else { align.max(16) };
            let from = layout.end + if follows { 0 } else { GAP };
            let start = from.checked_next_multiple_of(align).ok_or_else(too_large)?;
            let end = start.checked_add(section.size).filter(|end| *end < HIGHEST);
            let end = end.ok_or_else(too_large)?;
            layout.end = end;
            let mut bytes = 0..0;
            if let Some(content) = &section.bytes {
                if follows {
                    let gap = usize::try_from(start - from).unwrap_or_default();
                    layout.file.resize(layout.file.len() + gap, 0);
                }
                let first = layout.file.len();
                layout.in_file.insert(piece.at, first);
                layout.file.extend_from_slice(content);
                bytes = first..layout.file.len();
            }
            if piece.kind == SectionKind::Tls {
                let block = *tls.get_or_insert(start);
                layout.starts.insert(piece.at, start - block);
                layout.tls_block = end - block;
            } else {
                layout.starts.insert(piece.at, start);
            }
            match layout.sections.last_mut().filter(|_| follows) {
                Some(whole) => {
                    whole.range.end = LinkAddr(end);
                    whole.bytes.end = bytes.end;
                }
                None if section.size > 0 => layout.sections.push(Section {
                    name: piece.name.to_owned(),
                    range: LinkAddr(start)..LinkAddr(end),
                    kind: piece.kind,
                    bytes,
                }),
                // The next one does not follow on anything.
                None => last = None,
            }
        }
        layout.tls_block = layout.tls_block.next_multiple_of(16);
        layout.place_commons(set)?;
        layout.place_externals(externals)?;
        layout.place_debug(set);
        Ok(layout)
    }

    /// Room for `size` bytes behind everything else, between two gaps.
    fn take(&mut self, size: u64, align: u64) -> Option<u64> {
        let start = self.end.checked_add(GAP)?.checked_next_multiple_of(align)?;
        let end = start.checked_add(size).filter(|end| *end < HIGHEST)?;
        self.end = end;
        Some(start)
    }

    fn place_commons(&mut self, set: &Set<'_, '_>) -> Result<(), ImageError> {
        for (name, (size, align)) in &set.commons {
            let align = align.checked_next_power_of_two().unwrap_or(u64::MAX);
            let start = self.take(*size, align.max(16));
            let start = start.ok_or_else(|| {
                ImageError::Inconsistent(format!("the common variable {name} is too large"))
            })?;
            self.commons.insert(Arc::clone(name), start);
            self.push_zeros(".bss", start);
        }
        Ok(())
    }

    fn place_externals(&mut self, externals: &Externals) -> Result<(), ImageError> {
        let first = self.end;
        for (name, external) in externals {
            let size = if external.called { 0 } else { external.reach };
            let start = self.take(size, 16).ok_or_else(|| {
                ImageError::Inconsistent(format!("a reference to {name} leads too far"))
            })?;
            self.externals.insert(Arc::clone(name), start);
        }
        if !externals.is_empty() {
            self.end += GAP;
            // What ends right before does not end in it.
            self.push_zeros(super::EXTERNAL, first + GAP / 4);
        }
        Ok(())
    }

    /// A section without bytes from `start` to the end.
    fn push_zeros(&mut self, name: &str, start: u64) {
        if start < self.end {
            self.sections.push(Section {
                name: name.to_owned(),
                range: LinkAddr(start)..LinkAddr(self.end),
                kind: SectionKind::Data,
                bytes: 0..0,
            });
        }
    }

    fn place_debug(&mut self, set: &Set<'_, '_>) {
        for (number, object) in set.objects.iter().enumerate() {
            for (index, section) in object.sections.iter().enumerate() {
                let debug = section.as_ref().filter(|s| !s.is_loaded());
                let Some(section) = debug.filter(|_| set.holds(number, index)) else {
                    continue;
                };
                let whole = self.debug.entry(section.name.clone()).or_default();
                self.starts.insert((number, index), whole.len() as u64);
                whole.extend_from_slice(section.bytes.as_deref().unwrap_or_default());
            }
        }
    }
}

/// True for `.rodata.str1.8` and the like, as compilers write them: the first number is the size of a
/// character.
fn holds_texts(section: &InSection<'_>) -> bool {
    let merged = elf::SHF_MERGE | elf::SHF_STRINGS;
    section.flags.contains(merged)
        && section.name.starts_with(".rodata")
        && section.name.contains(".str1.")
}

fn pieces<'s>(set: &'s Set<'_, '_>) -> Vec<Piece<'s>> {
    let mut pieces = Vec::new();
    for (number, object) in set.objects.iter().enumerate() {
        for (index, section) in object.sections.iter().enumerate() {
            let loaded = section.as_ref().filter(|s| s.is_loaded());
            let Some(section) = loaded.filter(|_| set.holds(number, index)) else {
                continue;
            };
            let name = if holds_texts(section) {
                TEXTS
            } else {
                output_name(&section.name)
            };
            let kind = section_kind(name, section.flags);
            pieces.push(Piece {
                rank: rank(kind, section.bytes.is_some()),
                joined: JOINED.contains(&name) && section.bytes.is_some(),
                name,
                at: (number, index),
                kind,
            });
        }
    }
    let key = |piece: &Piece<'s>| {
        let joined = if piece.joined { piece.name } else { "" };
        (piece.rank, joined, piece.at)
    };
    pieces.sort_by(|a, b| key(a).cmp(&key(b)));
    pieces
}
