//! A plan → metadata.

use std::collections::{BTreeMap, BTreeSet};

use invivo_image::Rva;
use invivo_image::pe::{PeError, PeImage, PeMachine, guard_flags};
use invivo_patch::{FinalPlan, Link};

use super::model::base_flags;
use super::{Base, Chunk, ChunkKind, HotPatch, Integrity, Record};

/// Why a plan cannot be written as metadata.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// The two builds do not export the same.
    #[error("{} exported by one of the builds only: a patch cannot change what others import", .0.join(", "))]
    Exports(Vec<String>),
    /// The table of functions that may be called through pointers cannot be read.
    #[error(transparent)]
    GuardTable(#[from] PeError),
    /// A function that may be called through pointers is at a place that no patch can allow.
    #[error(
        "the function at {0} may be called through pointers and is not aligned to 16 bytes; compile it with -falign-functions=16"
    )]
    GuardAlignment(Rva),
    /// A place of the plan is not in its image.
    #[error("{name} at {at} is not in its image")]
    Outside {
        /// What it is called.
        name: String,
        /// Where it is said to be.
        at: Rva,
    },
}

/// Metadata that make `fixed` a patch of `base`, with one record for each link of the plan, in
/// order of place: redirects to the base first, new functions last.
///
/// # Errors
/// When the builds differ in what no patch can carry.
pub fn build(
    base: &PeImage,
    fixed: &PeImage,
    plan: &FinalPlan,
    sequence: u32,
) -> Result<HotPatch, BuildError> {
    check_exports(base, fixed)?;
    let word = |at: Rva, name: &str| {
        u32::try_from(at.0).map_err(|_| BuildError::Outside {
            name: name.to_owned(),
            at,
        })
    };
    // Which side is written decides which address comes first.
    let records = |links: &[Link], inverse: bool, expects: bool| {
        let records = links.iter().map(|link| {
            let (image, source, target) = match inverse {
                true => (fixed, link.fixed, link.base),
                false => (base, link.base, link.fixed),
            };
            let expected = match (expects, image.array(source)) {
                (false, _) => 0,
                (true, Some(bytes)) => u32::from_le_bytes(bytes),
                (true, None) => {
                    let name = link.name.clone();
                    return Err(BuildError::Outside { name, at: source });
                }
            };
            Ok(Record {
                source: word(source, &link.name)?,
                target: word(target, &link.name)?,
                extra: vec![expected],
            })
        });
        let mut records = records.collect::<Result<Vec<Record>, BuildError>>()?;
        records.sort_by_key(|record| record.source);
        Ok::<_, BuildError>(records)
    };
    let parts = [
        (
            true,
            ChunkKind::Function,
            records(&plan.unchanged, true, true)?,
        ),
        (
            true,
            ChunkKind::Absolute,
            records(&plan.variables, true, false)?,
        ),
        (
            true,
            ChunkKind::Indirect,
            records(&plan.imports, true, false)?,
        ),
        (true, ChunkKind::CallTarget, call_targets(fixed, plan)?),
        (
            false,
            ChunkKind::Function,
            records(&plan.replaced, false, true)?,
        ),
    ];
    let chunks = parts
        .into_iter()
        .flat_map(|(inverse, kind, records)| Chunk::split(inverse, kind, records));
    Ok(HotPatch {
        version: 4,
        sequence,
        extra_words: 1,
        bases: vec![Base {
            sequence,
            flags: machine_flag(fixed.machine),
            time_stamp: base.time_stamp,
            checksum: base.checksum,
            integrity: Integrity::None,
            buffer_offset: 0,
            chunks: chunks.collect(),
        }],
        ..HotPatch::default()
    })
}

/// The flag that names a machine.
#[must_use]
pub fn machine_flag(machine: PeMachine) -> u32 {
    match machine {
        PeMachine::I386 => base_flags::I386,
        PeMachine::Amd64 => base_flags::AMD64,
        PeMachine::Arm64 => base_flags::ARM64,
    }
}

/// Where calls are checked, nothing of a patch may be called through pointers but what is told: all
/// that may be in the fixed image when it runs alone.
fn call_targets(fixed: &PeImage, plan: &FinalPlan) -> Result<Vec<Record>, BuildError> {
    if fixed.guard_flags() & guard_flags::INSTRUMENTED == 0 {
        return Ok(Vec::new());
    }
    let links = plan.replaced.iter().chain(&plan.unchanged);
    let of_base: BTreeMap<Rva, Rva> = links.map(|link| (link.fixed, link.base)).collect();
    let targets = fixed.guard_targets()?.into_iter();
    let records = targets.filter(|target| target.may_be_called());
    let records = records.map(|target| {
        let outside = |at: Rva| BuildError::Outside {
            name: "a function that may be called through pointers".to_owned(),
            at,
        };
        if !target.at.0.is_multiple_of(16) {
            return Err(BuildError::GuardAlignment(target.at));
        }
        // No kernel that is known uses it, and each checks that it is in the base.
        let base = of_base.get(&target.at).copied().unwrap_or(Rva(0));
        Ok(Record {
            source: u32::try_from(target.at.0).map_err(|_| outside(target.at))?,
            target: u32::try_from(base.0).map_err(|_| outside(base))?,
            extra: vec![0],
        })
    });
    records.collect()
}

/// Other images find exports by number too, so both must be the same.
fn check_exports(base: &PeImage, fixed: &PeImage) -> Result<(), BuildError> {
    let all = |image: &PeImage| -> BTreeSet<String> {
        let exports = image.exports.iter().flat_map(|export| {
            let number = export.ordinal;
            let names = export
                .names
                .iter()
                .map(move |name| format!("{name} (#{number})"));
            let bare = export.names.is_empty().then(|| format!("#{number}"));
            names.chain(bare)
        });
        exports.collect()
    };
    let (base, fixed) = (all(base), all(fixed));
    let differ: Vec<String> = base.symmetric_difference(&fixed).cloned().collect();
    if differ.is_empty() {
        Ok(())
    } else {
        Err(BuildError::Exports(differ))
    }
}
