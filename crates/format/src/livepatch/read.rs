//! File → model. The file is hostile: every number is held against what is there, and all
//! contents together are no more than the file.

use std::collections::HashMap;

use invivo_image::BuildId;

use super::build_id;
use super::file::{self, File, Header, RawRelocation, SHT_NOBITS, SHT_RELA, long, shown, word};
use super::function::StructureVersion;
use super::model::{Access, Contents, Moment, Payload, Section};
use super::model_check::LONGEST_NAME;
use super::{DEPENDS, FUNCTIONS, LivepatchError, MODINFO, NAMES, OWN_ID, Rule, XEN_DEPENDS};

mod functions;
mod hooks;
mod symbols;

/// What a file holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Read {
    /// The payload, in the order of [`Payload::normalize`].
    pub payload: Payload,
    /// Its own build id.
    pub id: BuildId,
}

/// True if the file has sections that only a payload has.
#[must_use]
pub fn is_payload(bytes: &[u8]) -> bool {
    File::parse(bytes).is_ok_and(|file| {
        let mut sections = file.sections.iter();
        sections.any(|section| section.name.starts_with(b".livepatch."))
    })
}

/// Reads a payload.
///
/// # Errors
/// When it breaks a rule so that it has no meaning. That it can be read does not say that Xen
/// takes it: see [`super::predict`].
pub fn read(bytes: &[u8]) -> Result<Read, LivepatchError> {
    let file = File::parse(bytes)?;
    let entries = file.sections.iter().filter(|s| s.kind == SHT_RELA);
    let entries = entries.fold(0_u64, |sum, section| sum.saturating_add(section.size));
    if entries > bytes.len() as u64 {
        return Err(shared());
    }
    let mut reader = Reader {
        file: &file,
        sections: HashMap::new(),
        symbols: Vec::new(),
    };
    let sections = reader.read_sections(bytes.len() as u64)?;
    let symbols = reader.read_symbols()?;
    let mut payload = Payload {
        version: StructureVersion::V1,
        functions: Vec::new(),
        hooks: Vec::new(),
        sections,
        symbols,
        depends: reader.note(DEPENDS, Rule::X25)?,
        xen_depends: match file.section(XEN_DEPENDS) {
            Some(_) => Some(reader.note(XEN_DEPENDS, Rule::X14)?),
            None => None,
        },
        modinfo: reader.modinfo()?,
    };
    reader.read_relocations(&mut payload)?;
    payload.version = match payload.xen_depends {
        Some(_) => StructureVersion::V2,
        None => StructureVersion::V1,
    };
    payload.functions = reader.functions(payload.version)?;
    payload.hooks = reader.hooks()?;
    super::model_check::check(&payload)?;
    payload.normalize();
    let id = reader.note(OWN_ID, Rule::X25)?;
    Ok(Read { payload, id })
}

struct Reader<'f> {
    file: &'f File<'f>,
    /// Numbers of the model by those of the file.
    sections: HashMap<usize, u32>,
    /// The same; `None` for what the model does not have.
    symbols: Vec<Option<u32>>,
}

impl<'f> Reader<'f> {
    fn read_sections(&mut self, mut left: u64) -> Result<Vec<Section>, LivepatchError> {
        let own = [FUNCTIONS, DEPENDS, XEN_DEPENDS, OWN_ID, MODINFO, NAMES];
        let mut sections = Vec::new();
        for (number, section) in self.file.sections.iter().enumerate().skip(1) {
            if !section.is_loaded() {
                continue;
            }
            let name = text(section.name)?;
            let is_hook = Moment::ALL.iter().any(|m| m.section() == name);
            if is_hook || own.contains(&name.as_str()) {
                continue;
            }
            let access = match (section.is_code(), section.is_writable()) {
                (true, true) => {
                    return Err(LivepatchError::new(
                        Rule::X15,
                        format!("{name} is writable and executable"),
                    ));
                }
                (true, false) => Access::Code,
                (false, true) => Access::Data,
                (false, false) => Access::ReadOnly,
            };
            if section.align == 0 {
                return Err(LivepatchError::new(
                    Rule::X54,
                    format!("{name} has no alignment"),
                ));
            }
            let contents = match section.kind {
                SHT_NOBITS => Contents::Zeros(section.size),
                _ => {
                    left = left.checked_sub(section.size).ok_or_else(shared)?;
                    Contents::Bytes(self.file.contents(section).to_vec())
                }
            };
            self.sections.insert(number, count(sections.len())?);
            sections.push(Section {
                name,
                access,
                align: section.align,
                contents,
                relocations: Vec::new(),
            });
        }
        Ok(sections)
    }

    fn modinfo(&self) -> Result<Vec<String>, LivepatchError> {
        let Some((_, section)) = self.file.section(MODINFO) else {
            return Ok(Vec::new());
        };
        let bytes = self.file.contents(section);
        let Some(texts) = bytes.strip_suffix(&[0]) else {
            return Err(LivepatchError::new(
                Rule::X41,
                format!("{MODINFO} has {} bytes and no zero at the end", bytes.len()),
            ));
        };
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec());
        let texts: Result<_, _> = texts.split(|byte| *byte == 0).map(text).collect();
        texts.map_err(|_| LivepatchError::new(Rule::X41, format!("{MODINFO} is no text")))
    }

    /// The build id in the note of a section.
    fn note(&self, name: &str, missing: Rule) -> Result<BuildId, LivepatchError> {
        let Some((_, section)) = self.file.section(name) else {
            return Err(LivepatchError::new(missing, format!("{name} is missing")));
        };
        let bytes = self.file.contents(section);
        build_id::parse(bytes).map_err(|problem| {
            let rule = match problem {
                build_id::Problem::Sizes => Rule::X36,
                build_id::Problem::Other => Rule::X37,
            };
            LivepatchError::new(rule, format!("{name} is no note with a build id"))
        })
    }
}

/// X21.
pub(super) fn whole_entries(file: &File<'_>, section: &Header<'_>) -> Result<(), LivepatchError> {
    let least = if section.kind == SHT_RELA {
        file::RELA
    } else {
        file::REL
    };
    let (size, entry, link) = (section.size, section.entry_size, section.link);
    if link as usize != file.symbol_table || entry < least || !size.is_multiple_of(entry) {
        let text = format!(
            "{} has {size} bytes, {entry} for each entry, and is linked to section {link}",
            section.shown()
        );
        return Err(LivepatchError::new(Rule::X21, text));
    }
    Ok(())
}

/// Then all of them together could be much more than the file.
fn shared() -> LivepatchError {
    LivepatchError::new(Rule::X16, "sections share their bytes")
}

fn text(bytes: &[u8]) -> Result<String, LivepatchError> {
    let name = String::from_utf8(bytes.to_vec()).ok();
    name.filter(|_| bytes.len() <= LONGEST_NAME)
        .ok_or_else(|| LivepatchError::new(Rule::X12, format!("the name {}", shown(bytes))))
}

fn count(number: usize) -> Result<u32, LivepatchError> {
    u32::try_from(number).map_err(|_| LivepatchError::new(Rule::X06, "too many parts".to_owned()))
}

/// The number in a structure.
fn number_at(bytes: &[u8], at: usize, width: usize) -> u64 {
    if width == 8 {
        long(bytes, at)
    } else {
        word(bytes, at).into()
    }
}
