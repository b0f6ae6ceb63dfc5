//! A plan → a patch module: the fixed build, in which what did not change is led back to the base
//! by fixups, with the section `.hotp1`.

use std::collections::BTreeMap;
use std::sync::Arc;

use invivo_image::Rva;
use invivo_image::pe::{BaseRelocationKind, PeError, PeImage, PeMachine, directory, section_flags};
use invivo_patch::{FinalPlan, Hex, HookRoom, Link};

use super::cold::tables::Tables;
use super::model::{Fixup, FixupKind, FixupRegion, LegacyPatch, ModuleId};
use super::shape::way_to;
use super::{Finding, HookShape, Hotp1Error, MARK, SECTION, validate, write};
use crate::final_image::contents;
use crate::section::{self, Section};

/// `HOTPATCH_DEBUG_SIGNATURE` of a hot patch: version 1, and the signature.
const HOT: [u8; 4] = [1, 0, 0x01, 0xd2];
/// Bytes of the mark of a module that is made here: behind the signature stands which build it is made of.
const MADE_OF: usize = HOT.len() + 32;

/// Why there is no patch module.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// What is there does not allow it; the text tells the remedy.
    #[error("{0}")]
    Image(String),
    /// What was planned cannot be written.
    #[error(transparent)]
    Model(#[from] Hotp1Error),
    /// What was made breaks rules: a defect here.
    #[error("the patch module would break {} rules, the first: {}", .0.len(), .0[0])]
    Rules(Vec<Finding>),
    /// What was made cannot be read back: a defect here.
    #[error("the patch module cannot be read: {0}")]
    Result(#[from] PeError),
}

/// Makes a patch module of `fixed` for the target `base`, whose file is called `name`.
///
/// Variables are reached through the pointers that the compiler made (`__ref_…`), which a fixup
/// of type VA64 leads to the target. Functions that did not change begin with a jump to the
/// target's, which a fixup of type PC32 completes. In code for x86 each operand is led to the target
/// itself, an address by a fixup of type VA32, a distance by one of type PC32
/// ([`plan_module`](invivo_patch::plan_module)). Imports are the loader's business. Each function that changed is hooked in the way `shape`, or in the first one that it has room for.
///
/// The loader loads the module as any library, and nothing of it must start a second time: it has
/// no entry point. Its own base is behind the target's, where jumps reach.
///
/// # Errors
/// When something has no room, or the images are not for x86-64 or x86.
pub fn build(
    base: &PeImage,
    fixed: &PeImage,
    plan: &FinalPlan,
    name: &str,
    shape: Option<HookShape>,
) -> Result<Arc<[u8]>, BuildError> {
    let refuse = |text: &str| Err(BuildError::Image(text.to_owned()));
    if base.machine == PeMachine::Arm64 || fixed.machine != base.machine {
        return refuse("patch modules are made of two images for x86-64, or two for x86");
    }
    if base.checksum == 0 {
        return refuse("the base has no checksum to be known by; link it with /release");
    }
    if let Some(shape) = shape.filter(|shape| !shape.is_for(base.machine)) {
        let machine = base.machine.name();
        let fit = HookShape::all_for(base.machine).into_iter();
        let fit: Vec<&str> = fit.map(HookShape::name).collect();
        let text = format!(
            "hooks of the shape {shape} are not for {machine}: let the hook be chosen, or take one of {}",
            fit.join(", ")
        );
        return Err(BuildError::Image(text));
    }
    let mark = [&HOT[..], &contents(fixed).0].concat();
    let fixed = &beside(base, fixed)?;
    let mut made = Made {
        base,
        fixed,
        file: fixed.file().to_vec(),
        fixups: BTreeMap::new(),
    };
    for link in &plan.variables {
        made.lead_variable(link)?;
    }
    for link in &plan.unchanged {
        made.lead_function(link)?;
    }
    for link in &plan.addresses {
        made.lead_variable(link)?;
    }
    for link in &plan.calls {
        made.lead_call(link)?;
    }
    let mut patch = LegacyPatch {
        hotp_base: fixed.image_base,
        target_base: base.image_base,
        target_name: name.to_owned(),
        id: ModuleId::checksum(base.checksum),
        fixups: regions(made.fixups),
        ..LegacyPatch::default()
    };
    for link in &plan.replaced {
        let (at, to) = (word(link.base, link)?, word(link.fixed, link)?);
        let room = plan.rooms.get(&link.base);
        for (mut hook, validation) in hooks(base, link, (at, to), room, shape)? {
            if hook.at > at {
                patch.validations.extend(way_to(base, at, &hook));
            }
            hook.validation = Some(patch.validations.len());
            patch.validations.push(validation);
            patch.hooks.push(hook);
        }
    }
    let at = section::next(fixed);
    let at = u32::try_from(at).or(Err(BuildError::Image("the image is too large".to_owned())))?;
    let contents = write(&patch, fixed.machine, at)?;
    let edited = PeImage::parse(Arc::from(made.file))?;
    let mut title = [b' '; 8];
    title[..SECTION.len()].copy_from_slice(SECTION.as_bytes());
    let flags = section_flags::INITIALIZED_DATA | section_flags::READ;
    // Behind it the debug directory, with an entry that says what this is.
    let mut tables = Tables::new(at.into(), contents);
    let marked = tables.debug(&edited, &mark);
    marked.map_err(|error| BuildError::Image(error.to_string()))?;
    let contents = tables.bytes().to_vec();
    let new = Section::new(title, flags, contents).map_err(BuildError::Image)?;
    let mut grown = section::append(&edited, &[new]).map_err(BuildError::Image)?;
    let bytes = section::bytes_of(&mut grown.file);
    tables.finish(&edited, bytes, grown.places[0].1);
    let file = section::finish(&edited, grown.file);
    let module = PeImage::parse(Arc::clone(&file))?;
    let findings = validate(&module, &patch, Some(base));
    if findings.is_empty() {
        Ok(file)
    } else {
        Err(BuildError::Rules(findings))
    }
}

/// The digest of the build that a patch module was made of, where [`build`] made it: the module itself leads
/// what did not change to the base, so that its own bytes do not tell.
pub(crate) fn made_of(image: &PeImage) -> Option<Hex> {
    let mut marks = image.debug.iter().filter(|entry| entry.kind == MARK);
    let (entry, None) = (marks.next()?, marks.next()) else {
        return None;
    };
    let bytes = image.array::<MADE_OF>(entry.at)?;
    let told = bytes.strip_prefix(&HOT)?;
    (entry.size as usize == MADE_OF).then(|| Hex(told.to_vec()))
}

/// The fixed build without an entry point, and moved to behind the base where the two would be at
/// the same place.
fn beside(base: &PeImage, fixed: &PeImage) -> Result<PeImage, BuildError> {
    const GRANULARITY: u64 = 0x1_0000;
    const PLACES: u64 = 256;
    const REACH: u64 = 1 << 30;
    let mut file = fixed.file().to_vec();
    let places = fixed.header_places();
    section::set(&mut file, places.entry_point, 0);
    let end = |image: &PeImage| image.image_base.saturating_add(image.size.into());
    let meet = fixed.image_base < end(base) && base.image_base < end(fixed);
    // Several patches of one target want places of their own; which, their builds tell.
    let size = u64::from(fixed.size).next_multiple_of(GRANULARITY);
    let place = size * (u64::from(fixed.time_stamp) % PLACES);
    let place = if place < REACH { place } else { 0 };
    let behind = end(base).checked_next_multiple_of(GRANULARITY);
    // Processes of 32 bits have less than the first two gibibytes.
    let last = match fixed.machine {
        PeMachine::I386 => 0x7fff_0000 - size.min(0x7fff_0000),
        _ => u64::MAX,
    };
    let far = |place| behind?.checked_add(place).filter(|at| *at <= last);
    let behind = far(place).or_else(|| far(0));
    if let Some(behind) = behind.filter(|_| meet && !fixed.relocations.is_empty()) {
        let moved = behind.wrapping_sub(fixed.image_base);
        for relocation in &fixed.relocations {
            let place = fixed.file_place(relocation.at);
            let width = match relocation.kind {
                BaseRelocationKind::Address32 => 4,
                BaseRelocationKind::Address64 => 8,
                BaseRelocationKind::Other(_) => 0,
            };
            let place = place
                .filter(|_| width > 0)
                .and_then(|place| file.get_mut(place.start..place.start + width));
            let Some(word) = place else {
                let at = relocation.at;
                return Err(BuildError::Image(format!(
                    "the address at {at} of the fixed build cannot be moved; link it with another /base"
                )));
            };
            let mut value = [0; 8];
            value[..width].copy_from_slice(word);
            let value = u64::from_le_bytes(value).wrapping_add(moved);
            word.copy_from_slice(&value.to_le_bytes()[..width]);
        }
        let width = fixed.machine.pointer_size() as usize;
        let field = file.get_mut(places.image_base..places.image_base + width);
        if let Some(field) = field {
            field.copy_from_slice(&behind.to_le_bytes()[..width]);
        }
    }
    Ok(PeImage::parse(Arc::from(file))?)
}

fn hooks(
    base: &PeImage,
    link: &Link,
    (at, to): (u32, u32),
    room: Option<&HookRoom>,
    shape: Option<HookShape>,
) -> Result<Vec<(super::Hook, super::Validation)>, BuildError> {
    let given = shape.map(|shape| vec![shape]);
    let other = match given {
        Some(_) => ", or let the hook be chosen",
        None => "",
    };
    let tried = given.unwrap_or_else(|| HookShape::all_for(base.machine));
    let mut reasons = Vec::new();
    for shape in tried {
        match shape.hooks(base, at, to, room) {
            Ok(hooks) => return Ok(hooks),
            Err(text) => reasons.push(text),
        }
    }
    let (name, reasons) = (&link.name, reasons.join("; "));
    let padding = match base.machine {
        PeMachine::I386 => 5,
        _ => 16,
    };
    Err(BuildError::Image(format!(
        "{name} cannot be hooked: {reasons}; build the base with -fms-hotpatch and \
         /functionpadmin:{padding}{other}"
    )))
}

fn word(at: Rva, link: &Link) -> Result<u32, BuildError> {
    let outside = |_| BuildError::Image(format!("{} at {at} is not in its image", link.name));
    u32::try_from(at.0).map_err(outside)
}

/// The file in the making.
struct Made<'a> {
    base: &'a PeImage,
    fixed: &'a PeImage,
    file: Vec<u8>,
    fixups: BTreeMap<u32, FixupKind>,
}

impl Made<'_> {
    /// The pointer or operand holds the address of the target's variable.
    fn lead_variable(&mut self, link: &Link) -> Result<(), BuildError> {
        let address = self.base.image_base.wrapping_add(link.base.0);
        let (width, kind) = match self.fixed.machine {
            PeMachine::I386 => (4, FixupKind::Va32),
            _ => (8, FixupKind::Va64),
        };
        self.put(link, link.fixed, &address.to_le_bytes()[..width])?;
        self.drop_relocation(link)?;
        self.fixups.insert(word(link.fixed, link)?, kind);
        Ok(())
    }

    /// The call, jump or operand leads to the target's function or variable.
    fn lead_call(&mut self, link: &Link) -> Result<(), BuildError> {
        let at = word(link.fixed, link)?;
        let there = self.base.image_base.wrapping_add(link.base.0);
        let next = self.fixed.image_base.wrapping_add(link.fixed.0 + 4);
        let distance = there.wrapping_sub(next);
        // Code of 32 bits reaches all addresses, round their end if need be.
        let narrow = self.fixed.machine == PeMachine::I386;
        if !narrow && i32::try_from(distance.cast_signed()).is_err() {
            let text = "link both builds with the same /base".to_owned();
            return Err(BuildError::Image(text));
        }
        self.put(link, link.fixed, &distance.to_le_bytes()[..4])?;
        self.fixups.insert(at, FixupKind::Pc32);
        Ok(())
    }

    /// The copy of the function begins with two jumps, as a hook would be: the second is in the
    /// padding before it, and leads to the target's function.
    fn lead_function(&mut self, link: &Link) -> Result<(), BuildError> {
        let at = word(link.fixed, link)?;
        HookShape::Short
            .hooks(self.fixed, at, 0, None)
            .map_err(|text| {
                BuildError::Image(format!("the fixed build's {}: {text}", link.name))
            })?;
        let there = i128::from(self.base.image_base) + i128::from(link.base.0);
        let here = i128::from(self.fixed.image_base) + i128::from(link.fixed.0);
        let far = |_| BuildError::Image("link both builds with the same /base".to_owned());
        let distance = i32::try_from(there - here).map_err(far)?;
        let mut code = vec![0xe9];
        code.extend(distance.to_le_bytes());
        code.extend([0xeb, 0xf9]);
        self.put(link, Rva(link.fixed.0 - 5), &code)?;
        self.fixups.insert(at - 4, FixupKind::Pc32);
        Ok(())
    }

    fn put(&mut self, link: &Link, at: Rva, bytes: &[u8]) -> Result<(), BuildError> {
        let place = self.fixed.file_place(at);
        let place = place
            .filter(|held| held.len() >= bytes.len())
            .map(|held| held.start);
        let room = place.and_then(|start| self.file.get_mut(start..start + bytes.len()));
        let outside = || BuildError::Image(format!("{} at {at} is not in the file", link.name));
        room.ok_or_else(outside)?.copy_from_slice(bytes);
        Ok(())
    }

    /// Takes the relocation of the pointer away: the loader would add how far the patch is from
    /// its own base to an address of the target.
    fn drop_relocation(&mut self, link: &Link) -> Result<(), BuildError> {
        let missing = || {
            let name = &link.name;
            BuildError::Image(format!(
                "the pointer to {name} has no relocation; leave /fixed out"
            ))
        };
        let table = self
            .fixed
            .directory(directory::BASE_RELOCATION)
            .ok_or_else(missing)?;
        let place = self.fixed.file_place(table.at).ok_or_else(missing)?;
        let end = place
            .end
            .min(place.start.saturating_add(table.size as usize));
        let mut at = place.start;
        while at + 8 <= end {
            let page = u64::from(section::get(&self.file, at));
            let size = section::get(&self.file, at + 4) as usize;
            if size < 8 || at + size > end {
                break;
            }
            for entry in (at + 8..at + size - 1).step_by(2) {
                let value = u16::from_le_bytes([self.file[entry], self.file[entry + 1]]);
                if value >> 12 != 0 && page + u64::from(value & 0xfff) == link.fixed.0 {
                    self.file[entry..entry + 2].fill(0);
                    return Ok(());
                }
            }
            at += size;
        }
        Err(missing())
    }
}

/// The fixups of each page, an even number of them.
fn regions(fixups: BTreeMap<u32, FixupKind>) -> Vec<FixupRegion> {
    let mut regions: Vec<FixupRegion> = Vec::new();
    for (at, kind) in fixups {
        let (page, offset) = (at >> 12, u16::try_from(at & 0xfff).unwrap_or(0));
        let full = |region: &FixupRegion| region.page != page || region.fixups.len() >= 0xffe;
        if regions.last().is_none_or(full) {
            let fixups = Vec::new();
            regions.push(FixupRegion { page, fixups });
        }
        if let Some(last) = regions.last_mut() {
            last.fixups.push(Fixup { offset, kind });
        }
    }
    for region in regions
        .iter_mut()
        .filter(|region| region.fixups.len() % 2 == 1)
    {
        let kind = FixupKind::None;
        region.fixups.push(Fixup { offset: 0, kind });
    }
    regions
}
