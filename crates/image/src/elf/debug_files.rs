//! Files that hold an image's debug data and symbols beside it: which ones it asks for,
//! and whether a file is the one that was meant.
//!
//! Nobody looks for files here. The caller finds them by the names that the image gives
//! and attaches them; each is held against its build id, checksum or unit id first,
//! because symbols of another build would name the wrong places.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::Arc;

use gimli::{
    DebugCuIndex, Dwarf, DwarfFileType, DwarfSections, EndianSlice, LittleEndian, SectionId,
};
use object::read::elf::{ElfFile64, FileHeader};
use object::{Object, ObjectSection};

use super::{Elf, LE, broken, kept, read_build_id, symbols};
use crate::ImageError;
use crate::model::{BuildId, Image};

/// `.gnu_debuglink`: the file that was split off when the image was stripped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DebugLink {
    /// Its name, without a folder.
    pub name: String,
    /// The CRC-32 of all its bytes.
    pub crc: u32,
}

impl DebugLink {
    /// Holds the checksum against a file.
    ///
    /// # Errors
    /// When it is another one.
    pub fn check(&self, file: &[u8]) -> Result<(), ImageError> {
        let found = crc32fast::hash(file);
        if found == self.crc {
            return Ok(());
        }
        Err(ImageError::ForeignFile {
            what: "debug file",
            expected: format!("CRC {:08x}", self.crc),
            found: format!("CRC {found:08x}"),
        })
    }
}

/// `.gnu_debugaltlink`: the file to which `dwz` moved what several programs have in common.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SupplementaryLink {
    /// Its path, relative to the file that holds the link.
    pub path: String,
    /// Its build id.
    pub build_id: BuildId,
}

/// A compilation unit whose debug data were left outside the program (`-gsplit-dwarf`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SplitUnit {
    /// `DW_AT_dwo_name`: the file as the compiler wrote it.
    pub name: String,
    /// `DW_AT_comp_dir`: the folder that a relative name starts from.
    pub folder: String,
    /// What the unit in that file must be called.
    pub id: u64,
}

impl Image {
    /// True if DWARF data are in the image or in its debug file.
    #[must_use]
    pub fn has_debug_data(&self) -> bool {
        self.debug_data_file().is_some()
    }

    /// The one of both files that holds the DWARF data.
    fn debug_data_file(&self) -> Option<&Arc<[u8]>> {
        std::iter::once(&self.file)
            .chain(&self.debug_file)
            .find(|file| parse(file).is_ok_and(|elf| elf.section_by_name(".debug_info").is_some()))
    }

    /// The debug file that the image names.
    ///
    /// # Errors
    /// When the link is broken or leads to another folder.
    pub fn debug_link(&self) -> Result<Option<DebugLink>, ImageError> {
        let link = parse(&self.file)?
            .gnu_debuglink()
            .map_err(broken(".gnu_debuglink"))?;
        let Some((name, crc)) = link else {
            return Ok(None);
        };
        let name = String::from_utf8_lossy(name).into_owned();
        // The name is looked up in several folders; with a path in it the file could
        // name any file of the machine.
        if name.is_empty() || name.contains('/') {
            let text = format!(".gnu_debuglink holds no plain file name: {name:?}");
            return Err(ImageError::Inconsistent(text));
        }
        Ok(Some(DebugLink { name, crc }))
    }

    /// Takes symbols and debug data from a separate file, where the image has none itself.
    ///
    /// # Errors
    /// When the file is broken, or when neither build id nor checksum says that it
    /// belongs to this very build.
    pub fn attach_debug(&mut self, file: Arc<[u8]>) -> Result<(), ImageError> {
        let header = Elf::parse(&file[..]).map_err(broken("debug file"))?;
        let found = read_build_id(header, &file)?;
        if found.is_none() || found != self.build_id {
            match (&self.build_id, self.debug_link()?) {
                // Nothing else identifies a build that was linked without a build id.
                (None, Some(link)) => link.check(&file)?,
                _ => return Err(foreign("debug file", self.build_id.as_ref(), found)),
            }
        }
        if !self.has_symbols {
            let table = header
                .sections(LE, &file[..])
                .map_err(broken("debug file's section headers"))?;
            let own = Arc::clone(&self.file);
            let own_header = Elf::parse(&own[..]).map_err(broken("file header"))?;
            let own_table = own_header
                .sections(LE, &own[..])
                .map_err(broken("section headers"))?;
            symbols::read(self, (&own, &own_table), (&file, &table))?;
        }
        self.debug_file = Some(kept::kept(&file).unwrap_or(file));
        Ok(())
    }

    /// The supplementary file that the debug data refer to.
    ///
    /// # Errors
    /// When the link is broken.
    pub fn supplementary_link(&self) -> Result<Option<SupplementaryLink>, ImageError> {
        let Some(file) = self.debug_data_file() else {
            return Ok(None);
        };
        let link = parse(file)?
            .gnu_debugaltlink()
            .map_err(broken(".gnu_debugaltlink"))?;
        Ok(link.map(|(path, id)| SupplementaryLink {
            path: String::from_utf8_lossy(path).into_owned(),
            build_id: BuildId(id.to_vec()),
        }))
    }

    /// Keeps the supplementary file of the debug data.
    ///
    /// # Errors
    /// When it is broken or not the file that the debug data refer to.
    pub fn attach_supplementary(&mut self, file: Arc<[u8]>) -> Result<(), ImageError> {
        const WHAT: &str = "supplementary debug file";
        let expected = self.supplementary_link()?.map(|link| link.build_id);
        let header = Elf::parse(&file[..]).map_err(broken(WHAT))?;
        let found = read_build_id(header, &file)?;
        if found.is_none() || found != expected {
            return Err(foreign(WHAT, expected.as_ref(), found));
        }
        self.supplementary_file = Some(file);
        Ok(())
    }

    /// The units whose debug data are in files of their own and not attached yet.
    ///
    /// # Errors
    /// When the list of units is broken.
    pub fn missing_split_units(&self) -> Result<Vec<SplitUnit>, ImageError> {
        let Some(file) = self.debug_data_file() else {
            return Ok(Vec::new());
        };
        let mut units = skeletons(file)?;
        for file in &self.split_files {
            let held = held_units(file, &units)?;
            units.retain(|unit| !held.contains(&unit.id));
        }
        Ok(units)
    }

    /// Keeps a file with debug data of some of the `missing` units: a `.dwo` with one
    /// unit, or a `.dwp` with many.
    ///
    /// # Errors
    /// When it is broken or has none of them.
    pub fn attach_split(
        &mut self,
        file: Arc<[u8]>,
        missing: &[SplitUnit],
    ) -> Result<(), ImageError> {
        if held_units(&file, missing)?.is_empty() {
            return Err(ImageError::ForeignFile {
                what: "split debug file",
                expected: missing
                    .first()
                    .map_or("none".to_owned(), |unit| format!("unit {:016x}", unit.id)),
                found: "other units".to_owned(),
            });
        }
        self.split_files.push(file);
        Ok(())
    }
}

fn foreign(what: &'static str, expected: Option<&BuildId>, found: Option<BuildId>) -> ImageError {
    let show =
        |id: Option<&BuildId>| id.map_or("no build id".to_owned(), |id| format!("build id {id}"));
    ImageError::ForeignFile {
        what,
        expected: show(expected),
        found: show(found.as_ref()),
    }
}

fn parse(file: &[u8]) -> Result<ElfFile64<'_, object::LittleEndian>, ImageError> {
    ElfFile64::parse(file).map_err(broken("debug sections"))
}

fn of_dwarf(error: gimli::Error) -> ImageError {
    ImageError::Inconsistent(format!("debug data: {error}"))
}

type Bytes<'a> = EndianSlice<'a, LittleEndian>;

/// Loads what the first entry of each unit is read from; `dwo`: under the names that
/// the sections have in split files.
fn sections(file: &[u8], dwo: bool) -> Result<DwarfSections<Cow<'_, [u8]>>, ImageError> {
    let elf = parse(file)?;
    DwarfSections::load(|id| {
        let needed = matches!(
            id,
            SectionId::DebugInfo
                | SectionId::DebugAbbrev
                | SectionId::DebugAddr
                | SectionId::DebugLine
                | SectionId::DebugLineStr
                | SectionId::DebugStr
                | SectionId::DebugStrOffsets
        );
        let name = if dwo { id.dwo_name() } else { Some(id.name()) };
        let section = name
            .filter(|_| needed)
            .and_then(|name| elf.section_by_name(name));
        section.map_or(Ok(Cow::Borrowed(&[][..])), |section| {
            section.uncompressed_data().map_err(broken("debug section"))
        })
    })
}

/// All units of `file` that are only the skeleton of one in another file.
fn skeletons(file: &[u8]) -> Result<Vec<SplitUnit>, ImageError> {
    let sections = sections(file, false)?;
    let dwarf: Dwarf<Bytes<'_>> = sections.borrow(|bytes| EndianSlice::new(bytes, LittleEndian));
    let mut found = Vec::new();
    let mut units = dwarf.units();
    while let Some(header) = units.next().map_err(of_dwarf)? {
        let unit = dwarf.unit(header).map_err(of_dwarf)?;
        let (Some(id), Some(name)) = (unit.dwo_id, unit.dwo_name().map_err(of_dwarf)?) else {
            continue;
        };
        let name = dwarf.attr_string(&unit, name).map_err(of_dwarf)?;
        let folder = unit.comp_dir.unwrap_or_default();
        found.push(SplitUnit {
            name: name.to_string_lossy().into_owned(),
            folder: folder.to_string_lossy().into_owned(),
            id: id.0,
        });
    }
    Ok(found)
}

/// Those of the `wanted` units that a `.dwo` or `.dwp` file holds.
fn held_units(file: &[u8], wanted: &[SplitUnit]) -> Result<BTreeSet<u64>, ImageError> {
    let ids = wanted.iter().map(|unit| unit.id);
    if let Some(index) = parse(file)?.section_by_name(".debug_cu_index") {
        let bytes = index
            .uncompressed_data()
            .map_err(broken(".debug_cu_index"))?;
        let index = DebugCuIndex::new(&bytes, LittleEndian).index();
        let index = index.map_err(of_dwarf)?;
        return Ok(ids.filter(|id| index.find(*id).is_some()).collect());
    }
    let sections = sections(file, true)?;
    let mut dwarf: Dwarf<Bytes<'_>> =
        sections.borrow(|bytes| EndianSlice::new(bytes, LittleEndian));
    dwarf.file_type = DwarfFileType::Dwo;
    let mut held = BTreeSet::new();
    let mut units = dwarf.units();
    while let Some(header) = units.next().map_err(of_dwarf)? {
        let unit = dwarf.unit(header).map_err(of_dwarf)?;
        let id = unit.dwo_id.map(|id| id.0);
        held.extend(id.filter(|id| wanted.iter().any(|unit| unit.id == *id)));
    }
    Ok(held)
}
