//! Small Windows images, made byte by byte: a base, and a patch for it as in
//! the worked example of the format.

#![allow(dead_code, reason = "each test uses a part of it")]

use std::sync::Arc;

use invivo_format::hpat::{Base, Chunk, ChunkKind, HotPatch, Integrity, Record, base_flags, place};
use invivo_image::pe::PeImage;

pub(crate) const STAMP: u32 = 0x65a1_b2c3;
pub(crate) const CHECKSUM: u32 = 0x0004_d2f1;

const CODE: u32 = 0x6000_0020;
const CONSTANTS: u32 = 0x4000_0040;
const VARIABLES: u32 = 0xc000_0040;

/// A section: name, address, bytes, flags.
pub(crate) type Part<'a> = (&'a str, u32, Vec<u8>, u32);

/// What an image is made of.
pub(crate) struct Recipe<'a> {
    pub(crate) wide: bool,
    pub(crate) parts: Vec<Part<'a>>,
    /// Index, address, size.
    pub(crate) directories: Vec<(usize, u32, u32)>,
    pub(crate) image_size: u32,
}

pub(crate) fn put(bytes: &mut [u8], at: usize, value: u32) {
    bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
}

pub(crate) fn get(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

impl Recipe<'_> {
    /// The file: headers of 0x400 bytes, then each section from a sector on.
    pub(crate) fn file(&self) -> Vec<u8> {
        let mut file = vec![0; 0x400];
        file[..2].copy_from_slice(b"MZ");
        put(&mut file, 0x3c, 0x80);
        file[0x80..0x84].copy_from_slice(b"PE\0\0");
        let optional_size = if self.wide { 240 } else { 224 };
        let machine = if self.wide { 0x8664 } else { 0x14c };
        let count = u32::try_from(self.parts.len()).expect("a few");
        put(&mut file, 0x84, machine | count << 16);
        put(&mut file, 0x88, STAMP);
        let dll = if self.wide { 0x2022 } else { 0x2102 };
        put(&mut file, 0x94, optional_size | dll << 16);
        let optional = 0x98;
        let magic: u16 = if self.wide { 0x20b } else { 0x10b };
        file[optional..optional + 2].copy_from_slice(&magic.to_le_bytes());
        if self.wide {
            put(&mut file, optional + 24, 0x8000_0000);
            put(&mut file, optional + 28, 1);
        } else {
            put(&mut file, optional + 28, 0x1000_0000);
        }
        put(&mut file, optional + 32, 0x1000);
        put(&mut file, optional + 36, 0x200);
        put(&mut file, optional + 56, self.image_size);
        put(&mut file, optional + 60, 0x400);
        put(&mut file, optional + 64, CHECKSUM);
        let directories = optional + if self.wide { 112 } else { 96 };
        put(&mut file, directories - 4, 16);
        for (index, at, size) in &self.directories {
            put(&mut file, directories + 8 * index, *at);
            put(&mut file, directories + 8 * index + 4, *size);
        }
        let table = optional + optional_size as usize;
        for (number, (name, at, bytes, flags)) in self.parts.iter().enumerate() {
            let header = table + 40 * number;
            file[header..header + name.len()].copy_from_slice(name.as_bytes());
            let start = u32::try_from(file.len()).expect("small");
            let size = u32::try_from(bytes.len()).expect("small");
            put(&mut file, header + 8, size);
            put(&mut file, header + 12, *at);
            put(&mut file, header + 16, size.next_multiple_of(0x200));
            put(&mut file, header + 20, start);
            put(&mut file, header + 36, *flags);
            file.extend_from_slice(bytes);
            file.resize(file.len().next_multiple_of(0x200), 0);
        }
        file
    }
}

pub(crate) fn parse(file: &[u8]) -> PeImage {
    PeImage::parse(Arc::from(file)).expect("a Windows image")
}

/// The functions at 0x1010 and 0x1030, with padding before each.
fn base_code() -> Vec<u8> {
    let mut code = vec![0xcc; 0x1000];
    code[0x10..0x18].copy_from_slice(&[0x48, 0x83, 0xec, 0x28, 0x48, 0x8b, 0x05, 0]);
    code[0x30..0x34].copy_from_slice(&[0x40, 0x53, 0x48, 0x83]);
    code
}

/// The base: code, constants, variables at 0x4000, imports at 0x6000.
pub(crate) fn base_recipe() -> Recipe<'static> {
    Recipe {
        wide: true,
        parts: vec![
            (".text", 0x1000, base_code(), CODE),
            (".data", 0x4000, vec![0; 0x200], VARIABLES),
            (".idata", 0x6000, vec![0; 0x200], CONSTANTS),
        ],
        directories: Vec::new(),
        image_size: 0x8000,
    }
}

/// The patch without metadata: new code at 0x1100, its copy of an old function at 0x2030, its
/// pointers at 0x5000, imports at 0x6000, relocations at 0x7000, the load configuration at 0x8000.
pub(crate) fn patch_recipe() -> Recipe<'static> {
    let mut code = vec![0xcc; 0x1200];
    code[0x1030..0x1034].copy_from_slice(&[0x48, 0x89, 0x5c, 0x24]);
    let mut relocations = vec![0; 12];
    put(&mut relocations, 0, 0x5000);
    put(&mut relocations, 4, 12);
    // DIR64 at 0x5000 and at 0x5008: the pointers' own values.
    put(&mut relocations, 8, 0xa000 | 0xa008 << 16);
    let mut config = vec![0; 0x140];
    put(&mut config, 0, 0x140);
    Recipe {
        wide: true,
        parts: vec![
            (".text", 0x1000, code, CODE),
            (".rdata", 0x5000, vec![0; 0x100], CONSTANTS),
            (".idata", 0x6000, vec![0; 0x100], CONSTANTS),
            (".reloc", 0x7000, relocations, 0x4200_0040),
            (".config", 0x8000, config, CONSTANTS),
        ],
        directories: vec![(5, 0x7000, 12), (10, 0x8000, 0x140)],
        image_size: 0x9000,
    }
}

pub(crate) fn record(source: u32, target: u32, expected: u32) -> Record {
    Record {
        source,
        target,
        extra: vec![expected],
    }
}

/// The metadata of the worked example.
pub(crate) fn example() -> HotPatch {
    HotPatch {
        version: 4,
        sequence: 7,
        extra_words: 1,
        bases: vec![Base {
            sequence: 7,
            flags: base_flags::AMD64,
            time_stamp: STAMP,
            checksum: CHECKSUM,
            integrity: Integrity::None,
            buffer_offset: 0,
            chunks: vec![
                Chunk::new(
                    true,
                    ChunkKind::Function,
                    vec![record(0x2030, 0x1200, 0x245c_8948)],
                ),
                Chunk::new(
                    true,
                    ChunkKind::Absolute,
                    vec![record(0x5000, 0x4010, 0), record(0x5008, 0x4020, 0)],
                ),
                Chunk::new(true, ChunkKind::Indirect, vec![record(0x6000, 0x6010, 0)]),
                Chunk::new(
                    false,
                    ChunkKind::Function,
                    vec![
                        record(0x1010, 0x1100, 0x28ec_8348),
                        record(0x1030, 0x1180, 0x8348_5340),
                    ],
                ),
            ],
        }],
        ..HotPatch::default()
    }
}

/// A sound patch and its base, as files that an attack may change.
#[derive(Clone)]
pub(crate) struct Scene {
    pub(crate) base: Vec<u8>,
    pub(crate) patch: Vec<u8>,
    /// Where INFO stands in the patch's file.
    pub(crate) info: usize,
    /// Where the load configuration stands in the patch's file.
    pub(crate) config: usize,
}

impl Scene {
    pub(crate) fn new() -> Scene {
        Scene::with(&example())
    }

    pub(crate) fn with(patch: &HotPatch) -> Scene {
        let image = parse(&patch_recipe().file());
        let config = image.file_place(invivo_image::Rva(0x8000));
        let placed = place(&image, patch).expect("there is room");
        let made = parse(&placed.file);
        Scene {
            base: base_recipe().file(),
            info: made.file_place(placed.at).expect("in the file").start,
            config: config.expect("in the file").start,
            patch: placed.file.to_vec(),
        }
    }

    /// Writes a word of the metadata.
    pub(crate) fn set(&mut self, offset: usize, value: u32) {
        let at = self.info + offset;
        put(&mut self.patch, at, value);
    }

    /// Writes a word of the load configuration.
    pub(crate) fn set_config(&mut self, offset: usize, value: u32) {
        let at = self.config + offset;
        put(&mut self.patch, at, value);
    }
}
