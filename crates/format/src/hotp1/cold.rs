//! A cold patch: a patch module made part of its target's file, so that what starts next is fixed.
//!
//! ```text
//! base │ .text_CP │ .rdat_CP, .data_CP, … │ .DBG_POR
//!   │        ▲        the module's sections, each as far from the next as it was
//!   └────────┘ static hooks             moved directories, and the mark
//! ```
//!
//! Every byte of the base stays where it is but for headers and hooks. The module's words are fixed
//! up once, for the one place where it is now; the loader moves both together. Directories that
//! grow are moved: imports, unwind data, base relocations, and the debug directory, in which an
//! entry says that the file was patched and which checksum it had before. So are the exports where
//! the module has some that the base has not; those of the base lead where they did: whoever
//! enters by them meets the hooks, and so does a hot patch that comes later.
//!
//! The names of the sections and the mark are those of the description of 2007. That the mark's
//! `ChecksumData` is the checksum of the file before is taken from its name; `PEHashData` is a hash
//! whose algorithm is not public, and is left zero.

mod check;
mod contents;
mod exports;
mod parts;
mod possible;
pub(super) mod tables;

use std::fmt;
use std::sync::Arc;

use invivo_image::Rva;
use invivo_image::pe::{
    BaseRelocation, BaseRelocationKind, PeError, PeImage, PeMachine, directory, section_flags,
};

use super::{
    CodeError, Finding, HookCode, HookKind, Hotp1Error, LegacyPatch, Places, read, validate,
};
use crate::section::{self, Section};
use invivo_patch::FinalPlan;
use parts::Parts;
use possible::possible;

pub use check::{cold_mark, cold_mark_of, is_cold, validate_cold};

/// `IMAGE_DEBUG_TYPE_RESERVED10`.
pub const MARK: u32 = 10;
/// `HOTPATCH_DEBUG_SIGNATURE.Signature` of a file that was patched on disk.
const COLD: u16 = 0xd202;
/// Bytes of the mark: version and signature, `PEHashData`, `ChecksumData`.
pub const MARK_SIZE: u32 = 20;
/// The section of new code.
const CODE: [u8; 8] = *b".text_CP";
/// The section of the mark and of what was moved.
const TABLES: [u8; 8] = *b".DBG_POR";

/// Why a file cannot be patched so.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ColdError {
    /// What is there does not allow it; the text tells the remedy.
    #[error("{0}")]
    Image(String),
    /// The patch module cannot be read.
    #[error(transparent)]
    Module(#[from] Hotp1Error),
    /// A hook does not reach, or is of a type that is never applied.
    #[error(transparent)]
    Hook(#[from] CodeError),
    /// The patch module breaks rules, or is for another file.
    #[error("the patch module breaks {} rules, the first: {}", .0.len(), .0[0])]
    Rules(Vec<Finding>),
    /// What was made breaks rules: a defect here, or files that are broken in a way that nobody
    /// looked for.
    #[error(
        "the patched file would break {} rules, so nothing is made; the first: {}; the two files may be \
         broken: look at both with invivo inspect, and link them again", .0.len(), .0[0]
    )]
    Result(Vec<Finding>),
    /// What was made cannot be read back: a defect here, or files that are broken in a way that
    /// nobody looked for. Nothing is made of them.
    #[error(
        "what would be made of the two files cannot be read back, so nothing is made: {0}; they may be \
         broken: look at both with invivo inspect, and link them again"
    )]
    Unreadable(#[from] PeError),
}

fn refuse<T>(text: impl Into<String>) -> Result<T, ColdError> {
    Err(ColdError::Image(text.into()))
}

/// A file that was patched.
#[derive(Clone)]
pub struct Cold {
    /// The new file.
    pub file: Arc<[u8]>,
    /// How far the module's places are from where they were in the module.
    pub distance: u32,
    /// Bytes of certificates that were left out: they are not right for the new file.
    pub certificates: u64,
    /// Bytes behind the base's sections that belong to none (an overlay); they stay where they are in
    /// the file, and are not its end any more.
    pub overlay: u64,
}

impl fmt::Debug for Cold {
    /// Without the file's bytes, of which there may be millions.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (length, distance) = (self.file.len(), self.distance);
        write!(
            f,
            "Cold {{ {length} bytes, the module {distance:#x} further }}"
        )
    }
}

/// Makes the patch module `module` part of `base`, the file that it is for. The same input gives
/// the same bytes.
///
/// `plan` is what the module was made by ([`plan_cold`](invivo_patch::plan_cold)), where that is known:
/// only the code that runs by it has its unwind data carried and is held against what a moved module
/// cannot have. Without it all of the module's code is taken to run.
///
/// # Errors
/// When the module breaks a rule, is for another file, or needs what a part of another file cannot
/// have; and when the base has no room, or is such that what is added would not work.
pub fn cold(base: &PeImage, module: &PeImage, plan: Option<&FinalPlan>) -> Result<Cold, ColdError> {
    let code = plan.map(|plan| &plan.code[..]);
    let Some(model) = read(module)? else {
        return refuse("the patch module has no section .hotp1");
    };
    possible(base, module, code.is_some())?;
    let findings = validate(module, &model, Some(base));
    if !findings.is_empty() {
        return Err(ColdError::Rules(findings));
    }
    exports::once("base", base)?;
    let mut parts = Parts::of(base, module)?;
    let distance = parts.distance;
    let Some(patch) = base.image_base.checked_add(distance.into()) else {
        return refuse("the base is at the end of all addresses");
    };
    let places = Places {
        machine: base.machine,
        target: base.image_base,
        patch,
    };
    let mut moved = parts.relocate(module, &places)?;
    moved.extend(parts.fix_up(&model, &places)?);
    parts.lead_imports(module)?;
    let unwind = tables::unwind(base, module, &mut parts, code)?;
    let (hooks, pointers) = hooks(base, &model, &places)?;
    moved.extend(pointers);

    let mut sections = parts.sections();
    let start = parts.end(base);
    let mut tables = tables::Tables::new(start, Vec::new());
    tables.debug(base, &mark(base))?;
    tables.imports(base, module, distance)?;
    tables.exports(|at| exports::directory(base, module, &parts, plan, at))?;
    if let Some(unwind) = unwind {
        tables.put(directory::EXCEPTION, &unwind)?;
    }
    tables.relocations(base, moved)?;
    let flags = section_flags::INITIALIZED_DATA | section_flags::READ;
    let contents = tables.bytes().to_vec();
    sections.push(Section::new(TABLES, flags, contents).map_err(ColdError::Image)?);

    let grown = section::append(base, &sections).map_err(ColdError::Image)?;
    let mut made = grown.file;
    let file = section::bytes_of(&mut made);
    for (at, bytes) in hooks {
        let place = base.file_place(at).map(|place| place.start);
        let place = place.and_then(|start| file.get_mut(start..start + bytes.len()));
        place.expect("the base has it").copy_from_slice(&bytes);
    }
    let (_, in_file) = grown.places.last().copied().unwrap_or_default();
    tables.finish(base, file, in_file);
    let file = section::finish(base, made);
    let made = PeImage::parse(Arc::clone(&file))?;
    let findings = validate_cold(&made, Some(base));
    if !findings.is_empty() {
        return Err(ColdError::Result(findings));
    }
    Ok(Cold {
        file,
        distance,
        certificates: grown.certificates,
        overlay: grown.overlay,
    })
}

/// The mark: this file was patched, and had that checksum before.
fn mark(base: &PeImage) -> Vec<u8> {
    let mut mark = Vec::from(1_u16.to_le_bytes());
    mark.extend(COLD.to_le_bytes());
    mark.extend(0_u64.to_le_bytes());
    mark.extend(u64::from(base.checksum).to_le_bytes());
    mark
}

type Hooks = Vec<(Rva, Vec<u8>)>;

/// What is written into the base, and which of it are addresses that the loader has to move.
fn hooks(
    base: &PeImage,
    model: &LegacyPatch,
    places: &Places,
) -> Result<(Hooks, Vec<BaseRelocation>), ColdError> {
    let (mut written, mut moved) = (Vec::new(), Vec::new());
    let codes = HookCode::of(model, *places);
    for hook in &model.hooks {
        let at = Rva(hook.at.into());
        let bytes = codes.bytes(hook)?;
        let end = at.0 + bytes.len() as u64;
        let section = base.section_at(at);
        let Some(section) = section.filter(|_| base.bytes(at, bytes.len() as u64).is_some()) else {
            return refuse(format!(
                "the hook at {at} is in no section of the base's file"
            ));
        };
        let is_code = matches!(
            hook.kind,
            HookKind::X86Jmp | HookKind::Jmp2B | HookKind::Amd64Ind
        );
        if is_code && !section.is_executable() {
            return refuse(format!("the hook at {at} would write code into data"));
        }
        if hook.kind == HookKind::Amd64Cnt {
            return refuse(format!(
                "the hook at {at} writes a number (AMD64_CNT), which nobody could tell from damage"
            ));
        }
        let kind = match hook.kind {
            HookKind::Va32 => Some(BaseRelocationKind::Address32),
            HookKind::Va64 => Some(BaseRelocationKind::Address64),
            _ => None,
        };
        if kind == Some(BaseRelocationKind::Address32) && base.machine != PeMachine::I386 {
            return refuse(format!("the hook at {at} has 32 bits, addresses have 64"));
        }
        let own = kind.map(|kind| BaseRelocation { at, kind });
        let mut touched = base.relocations_over(at..Rva(end));
        match (touched.next(), own) {
            // The pointer is one already.
            (Some(known), Some(own)) if *known == own => {}
            (Some(known), _) => {
                let place = known.at;
                return refuse(format!(
                    "the loader changes {place}, where the hook at {at} would be"
                ));
            }
            (None, own) => moved.extend(own),
        }
        written.push((at, bytes));
    }
    Ok((written, moved))
}
