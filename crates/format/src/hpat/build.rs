//! A plan → metadata.

use std::collections::BTreeSet;

use invivo_image::Rva;
use invivo_image::pe::PeImage;
use invivo_patch::{FinalPlan, Link};

use super::model::base_flags;
use super::{Base, Chunk, ChunkKind, HotPatch, Integrity, Record};

/// Why a plan cannot be written as metadata.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// The two builds do not export the same.
    #[error("{} exported by one of the builds only: a patch cannot change what others import", .0.join(", "))]
    Exports(Vec<String>),
    /// The image checks indirect calls.
    #[error(
        "the images are built with control-flow guard, whose call targets are not told yet; build both without /guard:cf"
    )]
    ControlFlowGuard,
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
    const CF_INSTRUMENTED: u32 = 0x100;
    let guarded = |image: &PeImage| {
        let config = image.load_config;
        config.is_some_and(|config| config.guard_flags & CF_INSTRUMENTED != 0)
    };
    if guarded(base) || guarded(fixed) {
        return Err(BuildError::ControlFlowGuard);
    }
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
        Ok(records)
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
            flags: base_flags::AMD64,
            time_stamp: base.time_stamp,
            checksum: base.checksum,
            integrity: Integrity::None,
            buffer_offset: 0,
            chunks: chunks.collect(),
        }],
        ..HotPatch::default()
    })
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
