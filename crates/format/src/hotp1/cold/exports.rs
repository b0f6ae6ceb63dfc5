//! What the patched file exports: all that the base does, and what only the module has.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use invivo_image::Rva;
use invivo_image::pe::{PeExport, PeImage, directory};
use invivo_patch::FinalPlan;

use super::parts::Parts;
use super::{ColdError, refuse};

/// Bytes of `IMAGE_EXPORT_DIRECTORY`.
const HEADER: usize = 40;

/// The longest name of a library that is copied.
const LONGEST: u64 = 260;

/// The export directory for `at`, with the names that only `module` has; `None` where there are none,
/// and where the module is not the fixed build, but was given: its exports are about itself.
/// Whoever enters by a name of the base goes on to its own place, and meets the hooks there.
pub(super) fn directory(
    base: &PeImage,
    module: &PeImage,
    parts: &Parts,
    plan: Option<&FinalPlan>,
    at: u32,
) -> Result<Option<Vec<u8>>, ColdError> {
    let Some(plan) = plan else {
        return Ok(None);
    };
    once("patch module", module)?;
    let known = forwards(&base.exports);
    let mut all: Vec<(u16, Entry, Vec<&str>)> = Vec::new();
    for export in &base.exports {
        let entry = entry(export, |place| Ok(place.0))?;
        all.push((
            export.ordinal,
            entry,
            export.names.iter().map(|n| &**n).collect(),
        ));
    }
    let mut used: BTreeSet<u16> = all.iter().map(|(ordinal, ..)| *ordinal).collect();
    let before = all.len();
    for export in &module.exports {
        let same = |name: &&str| known.contains_key(name);
        let new: Vec<&str> = export
            .names
            .iter()
            .map(|n| &**n)
            .filter(|n| !same(n))
            .collect();
        let Some(first) = new.first() else {
            forwarded_alike(&known, export)?;
            continue;
        };
        let entry = entry(export, |place| {
            where_it_is(module, parts, plan, place, first)
        })?;
        // Whoever binds to it by its number has the fixed build's.
        let free = Some(export.ordinal).filter(|ordinal| !used.contains(ordinal));
        let behind = used.last().map_or(Some(1), |last| last.checked_add(1));
        let Some(ordinal) = free.or(behind) else {
            return refuse("the base has no number left for another export");
        };
        used.insert(ordinal);
        all.push((ordinal, entry, new));
    }
    if all.len() == before {
        return Ok(None);
    }
    write(base, module, all, at).map(Some)
}

/// Refuses a file that exports two things by one name: which one programs get, nobody knows, and the
/// new file would have to choose.
pub(super) fn once(whose: &str, image: &PeImage) -> Result<(), ColdError> {
    let mut known: BTreeMap<&str, u16> = BTreeMap::new();
    for export in &image.exports {
        for name in &export.names {
            if let Some(first) = known.insert(name, export.ordinal) {
                let second = export.ordinal;
                return refuse(format!(
                    "the {whose} exports {name} twice, as numbers {first} and {second}; take one of \
                     them out of its export list (/export, .def) and link it again"
                ));
            }
        }
    }
    Ok(())
}

/// The names, and where each is forwarded to, if it is.
type Forwards<'e> = BTreeMap<&'e str, &'e Option<String>>;

fn forwards(exports: &[PeExport]) -> Forwards<'_> {
    exports
        .iter()
        .flat_map(|export| {
            let names = export.names.iter();
            names.map(|name| (&**name, &export.forward))
        })
        .collect()
}

/// What a number leads to.
enum Entry {
    Place(u64),
    Forward(String),
}

fn entry(
    export: &PeExport,
    place: impl Fn(Rva) -> Result<u64, ColdError>,
) -> Result<Entry, ColdError> {
    match (&export.forward, export.at) {
        (Some(to), _) => Ok(Entry::Forward(to.clone())),
        (None, Some(at)) => Ok(Entry::Place(place(at)?)),
        (None, None) => refuse(format!("export {} leads nowhere", export.ordinal)),
    }
}

/// Names that both have may not be forwarded differently: hooks do not change where they lead.
fn forwarded_alike(known: &Forwards<'_>, export: &PeExport) -> Result<(), ColdError> {
    let mut names = export.names.iter();
    let other = names.find(|name| {
        let there = known.get(&***name);
        there.is_some_and(|forward| **forward != export.forward)
    });
    match other {
        Some(name) => refuse(format!(
            "export {name} is forwarded elsewhere by the fixed build"
        )),
        None => Ok(()),
    }
}

/// Where the new file has what the module exports as `name`.
fn where_it_is(
    module: &PeImage,
    parts: &Parts,
    plan: &FinalPlan,
    place: Rva,
    name: &str,
) -> Result<u64, ColdError> {
    if !parts.holds(place) {
        return refuse(format!(
            "the new export {name} is not in the patch module's sections"
        ));
    }
    if let Some(link) = plan.exports.iter().find(|link| link.fixed == place) {
        return Ok(link.base.0);
    }
    let is_code = module
        .section_at(place)
        .is_some_and(|section| section.is_executable());
    let runs = |range: &Range<Rva>| range.contains(&place);
    if is_code && !plan.code.iter().any(runs) {
        return refuse(format!(
            "the code of the new export {name} was not looked at"
        ));
    }
    Ok(place.0.saturating_add(parts.distance.into()))
}

fn write(
    base: &PeImage,
    module: &PeImage,
    all: Vec<(u16, Entry, Vec<&str>)>,
    at: u32,
) -> Result<Vec<u8>, ColdError> {
    let found = [base, module].into_iter().find_map(|image| {
        let table = image.directory(directory::EXPORT)?;
        let head: [u8; HEADER] = image.array(table.at)?;
        let name = u32::from_le_bytes([head[12], head[13], head[14], head[15]]);
        let room = (1..=LONGEST)
            .rev()
            .find_map(|size| image.bytes(Rva(name.into()), size))?;
        let end = room.iter().position(|byte| *byte == 0)?;
        Some((head, room[..end].to_vec()))
    });
    let Some((mut head, library)) = found else {
        return refuse("the export directory has no name that can be read");
    };
    let first = all.iter().map(|(ordinal, ..)| *ordinal).min().unwrap_or(1);
    let last = all
        .iter()
        .map(|(ordinal, ..)| *ordinal)
        .max()
        .unwrap_or(first);
    let count = usize::from(last - first) + 1;
    let mut sorted: BTreeMap<&str, u16> = BTreeMap::new();
    for (ordinal, _, names) in &all {
        sorted.extend(names.iter().map(|name| (*name, ordinal - first)));
    }
    let pointers = HEADER + 4 * count;
    let ordinals = pointers + 4 * sorted.len();
    let mut blob = vec![0; ordinals + 2 * sorted.len()];
    let place = |offset: usize| {
        let offset = u32::try_from(offset).ok();
        let place = offset.and_then(|offset| at.checked_add(offset));
        place.map_or_else(|| refuse("the image would exceed 4 GiB"), Ok)
    };
    let text = |blob: &mut Vec<u8>, text: &[u8]| {
        let here = place(blob.len());
        blob.extend_from_slice(text);
        blob.push(0);
        here
    };
    let library = text(&mut blob, &library)?;
    for (ordinal, entry, _) in &all {
        let value = match entry {
            Entry::Place(place) => {
                u32::try_from(*place).or_else(|_| refuse("no place of 32 bits"))?
            }
            // By lying in the directory it is known to be one.
            Entry::Forward(to) => text(&mut blob, to.as_bytes())?,
        };
        let slot = HEADER + 4 * usize::from(ordinal - first);
        blob[slot..slot + 4].copy_from_slice(&value.to_le_bytes());
    }
    for (number, (name, ordinal)) in sorted.iter().enumerate() {
        let name = text(&mut blob, name.as_bytes())?;
        let (one, other) = (pointers + 4 * number, ordinals + 2 * number);
        blob[one..one + 4].copy_from_slice(&name.to_le_bytes());
        blob[other..other + 2].copy_from_slice(&ordinal.to_le_bytes());
    }
    let counted = |count: usize| u32::try_from(count).or_else(|_| refuse("too many exports"));
    let words = [
        (12, library),
        (16, u32::from(first)),
        (20, counted(count)?),
        (24, counted(sorted.len())?),
        (28, place(HEADER)?),
        (32, place(pointers)?),
        (36, place(ordinals)?),
    ];
    for (offset, word) in words {
        head[offset..offset + 4].copy_from_slice(&word.to_le_bytes());
    }
    blob[..HEADER].copy_from_slice(&head);
    Ok(blob)
}
