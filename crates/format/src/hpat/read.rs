//! Image → model. The image is hostile: each part must lie inside the
//! metadata, and all parts together may not be larger than it, so that entries
//! that share parts cannot make a small file into a large model.

use std::ops::Range;

use invivo_image::Rva;
use invivo_image::pe::{LoadConfig, PeImage, PeMachine};

use super::model::{
    BASE_SIZE, Base, Chunk, ChunkKind, HASHES_SIZE, HotPatch, Integrity, Record, bits, info_size,
};
use super::{HpatError, Rule};

/// The model, and where its parts were.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parsed {
    /// The model.
    pub patch: HotPatch,
    /// Where its parts were.
    pub places: Places,
}

/// Where the parts of the metadata are, in bytes from INFO on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Places {
    /// Bytes of the whole metadata.
    pub size: u32,
    /// INFO itself.
    pub info: Range<u32>,
    /// The list of BASE entries.
    pub list: Range<u32>,
    /// The BASE entries.
    pub bases: Vec<Range<u32>>,
    /// Their digests.
    pub hashes: Vec<Range<u32>>,
    /// Their patch tables with the zero word at the end; `None` where the entry names none.
    pub tables: Vec<Option<Range<u32>>>,
}

/// Reads the metadata of an image.
///
/// # Errors
/// When the image has none, or it cannot be followed to its end (A01–A04, A07,
/// A10, A11). What can be read may still break any other rule; see
/// [`validate`](super::validate).
pub fn read(image: &PeImage) -> Result<Parsed, HpatError> {
    let at = locate(image)?;
    let size = metadata_size(image, at)?;
    let text = || {
        format!("the metadata at {at}, {size:#x} bytes, is not wholly in one section of the file")
    };
    let bytes = image
        .bytes(at, size.into())
        .ok_or_else(|| HpatError::strict(Rule::A04, text()))?;
    read_metadata(bytes)
}

/// A01, A02: the address of INFO.
fn locate(image: &PeImage) -> Result<Rva, HpatError> {
    let broken = |text: String| HpatError::kernel(Rule::A01, text);
    let Some(config) = image.load_config else {
        return Err(broken("the image has no load configuration".to_owned()));
    };
    let (directory, least) = (config.directory, LoadConfig::least_size(image.machine));
    // Old 32-bit linkers wrote 64 whatever the size was, and the loader knows.
    let told = image.machine == PeMachine::I386 && directory.size == 64;
    if directory.size <= 4 || (directory.size != config.size && !told) {
        return Err(broken(format!(
            "the load configuration says that it has {:#x} bytes, its directory {:#x}",
            config.size, directory.size
        )));
    }
    if directory.at.0 + u64::from(config.size) > u64::from(image.size) {
        return Err(broken(
            "the load configuration ends behind the image".to_owned(),
        ));
    }
    let Some(at) = config.hot_patch else {
        return Err(broken(format!(
            "the load configuration has {:#x} bytes, {least:#x} are needed",
            config.size
        )));
    };
    let reason = if at.0 == 0 {
        Some("the load configuration names no hot-patch metadata")
    } else if at.0 >= 0xffff_fff8 || at.0 + 8 > u64::from(image.size) {
        Some("the hot-patch metadata is outside the image")
    } else {
        None
    };
    match reason {
        Some(text) => Err(HpatError::kernel(Rule::A02, text)),
        None => Ok(at),
    }
}

/// A03, A04: how many bytes the metadata has.
fn metadata_size(image: &PeImage, at: Rva) -> Result<u32, HpatError> {
    let [version, size] = [0, 4].map(|offset| image.word(Rva(at.0 + offset)));
    let (Some(version), Some(size)) = (version, size) else {
        return Err(HpatError::strict(
            Rule::A02,
            "the hot-patch metadata is in no section",
        ));
    };
    let least = info_size(version).ok_or_else(|| {
        HpatError::kernel(Rule::A03, format!("version {version}; 1 to 4 are known"))
    })?;
    let end = at.0 + u64::from(size);
    if size < least || end > u64::from(image.size) {
        let text = format!(
            "the metadata at {at} says that it has {size:#x} bytes; it has {least:#x} at least, \
             and the image ends at {:#x}",
            image.size
        );
        return Err(HpatError::kernel(Rule::A04, text));
    }
    Ok(size)
}

/// Reads metadata that was cut out of its image; `bytes` begins with INFO.
///
/// # Errors
/// As [`read`], without the rules about the image.
pub fn read_metadata(bytes: &[u8]) -> Result<Parsed, HpatError> {
    let short = || HpatError::kernel(Rule::A04, "the metadata is shorter than its header");
    let header = |at: u32| word(bytes, at).ok_or_else(short);
    let (version, size) = (header(0)?, header(4)?);
    let least = info_size(version).ok_or_else(|| {
        HpatError::kernel(Rule::A03, format!("version {version}; 1 to 4 are known"))
    })?;
    let held = usize::try_from(size)
        .ok()
        .and_then(|size| bytes.get(..size));
    let blob = held.filter(|_| size >= least).ok_or_else(short)?;
    let field = |at: u32| {
        if at < least {
            word(blob, at).ok_or_else(short)
        } else {
            Ok(0)
        }
    };
    let mut reader = Reader {
        blob,
        left: u64::from(size),
        extra: field(0x18)?,
        places: Places {
            size,
            info: 0..least,
            ..Places::default()
        },
    };
    let bases = reader.bases(header(0x0c)?, header(0x10)?)?;
    let patch = HotPatch {
        version,
        sequence: header(8)?,
        buffer_offset: field(0x14)?,
        extra_words: reader.extra,
        min_sequence: field(0x1c)?,
        flags: field(0x20)?,
        bases,
    };
    Ok(Parsed {
        patch,
        places: reader.places,
    })
}

fn word(bytes: &[u8], at: u32) -> Option<u32> {
    let rest = bytes.get(usize::try_from(at).ok()?..)?;
    rest.first_chunk().map(|word| u32::from_le_bytes(*word))
}

struct Reader<'a> {
    blob: &'a [u8],
    /// Bytes that may still be read.
    left: u64,
    /// Further words of each record.
    extra: u32,
    places: Places,
}

impl Reader<'_> {
    /// A part of the metadata that is about to be read.
    fn part(
        &mut self,
        rule: Rule,
        what: &str,
        at: u32,
        size: u64,
    ) -> Result<Range<u32>, HpatError> {
        let end = u64::from(at) + size;
        let end = u32::try_from(end)
            .ok()
            .filter(|_| end <= self.blob.len() as u64);
        let end = end.ok_or_else(|| {
            let text = format!("{what} at {at:#x}, {size:#x} bytes, is not in the metadata");
            HpatError::kernel(rule, text)
        })?;
        self.left = self.left.checked_sub(size).ok_or_else(|| {
            let text = format!("{what} at {at:#x} and other parts of the metadata overlap");
            HpatError::strict(Rule::A10, text)
        })?;
        Ok(at..end)
    }

    fn word(&self, at: u32) -> u32 {
        word(self.blob, at).unwrap_or_default()
    }

    fn bases(&mut self, list: u32, count: u32) -> Result<Vec<Base>, HpatError> {
        self.part(Rule::A04, "the header", 0, u64::from(self.places.info.end))?;
        self.places.list = self.part(Rule::A07, "the list of bases", list, 4 * u64::from(count))?;
        let mut bases = Vec::new();
        for place in self.places.list.clone().step_by(4) {
            let at = self.word(place);
            if at == 0 {
                let text = format!("base {} has offset 0", bases.len());
                return Err(HpatError::kernel(Rule::A07, text));
            }
            let base = self.base(at, bases.len())?;
            bases.push(base);
        }
        Ok(bases)
    }

    fn base(&mut self, at: u32, number: usize) -> Result<Base, HpatError> {
        let what = format!("base {number}");
        let place = self.part(Rule::A07, &what, at, BASE_SIZE.into())?;
        self.places.bases.push(place);
        let field = |reader: &Self, offset: u32| reader.word(at + offset);
        let (offset, size) = (field(self, 0x10), field(self, 0x14));
        let integrity = self.integrity(offset, size);
        let table = field(self, 0x18);
        let mut base = Base {
            sequence: field(self, 0),
            flags: field(self, 4),
            time_stamp: field(self, 8),
            checksum: field(self, 0x0c),
            integrity,
            buffer_offset: field(self, 0x1c),
            chunks: Vec::new(),
        };
        if table == 0 {
            self.places.tables.push(None);
            return Ok(base);
        }
        if u64::from(table) >= self.blob.len() as u64 {
            let text =
                format!("the patch table of base {number} is at {table:#x}, not in the metadata");
            return Err(HpatError::kernel(Rule::A10, text));
        }
        let mut end = table;
        while let Some(chunk) = self.chunk(&mut end, base.chunks.len())? {
            base.chunks.push(chunk);
        }
        self.places.tables.push(Some(table..end));
        Ok(base)
    }

    /// Digests; what is not of their size or place is kept as it is, since the
    /// kernel does not follow it.
    fn integrity(&mut self, offset: u32, size: u32) -> Integrity {
        if (offset, size) == (0, 0) {
            return Integrity::None;
        }
        let unknown = Integrity::Unknown { offset, size };
        if size != HASHES_SIZE || offset == 0 {
            return unknown;
        }
        let Ok(place) = self.part(Rule::A31, "the digests", offset, size.into()) else {
            return unknown;
        };
        let bytes = &self.blob[place.start as usize..place.end as usize];
        let (Some(sha256), Some(sha1)) = (bytes.first_chunk(), bytes.last_chunk()) else {
            return unknown;
        };
        self.places.hashes.push(place);
        Integrity::Hashes {
            sha256: *sha256,
            sha1: *sha1,
        }
    }

    /// The chunk at `at`, which is moved behind it; `None` at the end of the stream.
    fn chunk(&mut self, at: &mut u32, number: usize) -> Result<Option<Chunk>, HpatError> {
        let what = format!("the header of chunk {number}");
        let place = self.part(Rule::A11, &what, *at, 4)?;
        *at = place.end;
        let header = self.word(place.start);
        if header == 0 {
            return Ok(None);
        }
        let count = header & bits::COUNT;
        let record = 8 + 4 * u64::from(self.extra);
        let what = format!("the {count} records of chunk {number}");
        let place = self.part(Rule::A11, &what, *at, u64::from(count) * record)?;
        *at = place.end;
        let mut records = Vec::new();
        let mut next = place.start;
        for _ in 0..count {
            let mut take = || {
                next += 4;
                self.word(next - 4)
            };
            let (source, target) = (take(), take());
            let extra = (0..self.extra).map(|_| take()).collect();
            records.push(Record {
                source,
                target,
                extra,
            });
        }
        Ok(Some(Chunk {
            inverse: header & bits::INVERSE != 0,
            obligatory: header & bits::OBLIGATORY != 0,
            reserved: header & bits::RESERVED,
            kind: ChunkKind::from_code(header),
            records,
        }))
    }
}
