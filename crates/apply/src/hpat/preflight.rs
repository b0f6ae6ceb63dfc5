//! What a patch would change, found and checked before anything is written.

use std::collections::BTreeSet;

use invivo_format::hpat::{self, Chunk, ChunkKind, Record, Weight};
use invivo_image::LiveAddr;
use invivo_image::pe::PeImage;

use super::entries::{check_known, fresh, restoring};
use super::table::{self, ENTRY, Slot, pointer};
use super::{Entry, PatchedImage};
use crate::pe::Word;
use crate::{ApplyError, Loaded, Target, refused};

/// What would be done.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    pub(super) sequence: u32,
    /// Places of the patch, and the address tables: no thread comes by yet.
    pub(super) reverse: Vec<(LiveAddr, Vec<u8>)>,
    /// The same in the base: for each function its pointer, its slot, and the jump before it.
    pub(super) forward: Vec<(LiveAddr, Vec<u8>)>,
    /// Everything that becomes live, in order.
    pub(super) words: Vec<Word>,
    /// The base's entries as they will be.
    pub(super) entries: Vec<(u32, Entry)>,
    /// Functions of the base that lead to the patch now and did not before.
    pub fresh: usize,
    /// Functions that lead to an earlier patch.
    pub replaced: usize,
    /// Functions that will be their own again.
    pub restored: usize,
}

impl Plan {
    /// True if all threads must stand: a function begins one byte before an 8-byte boundary, so
    /// that no single store changes its two bytes.
    #[must_use]
    pub fn stops(&self) -> bool {
        self.words.iter().any(Word::straddles)
    }
}

pub(super) fn plan(
    state: &PatchedImage,
    target: &dyn Target,
    patch: &Loaded,
) -> Result<Plan, ApplyError> {
    let base = &state.base;
    if patch.image.machine != base.image.machine {
        let (of, is) = (patch.image.machine.name(), base.image.machine.name());
        return refused(format!("a patch for {of}, and a base for {is}"));
    }
    base.check_identity(target)?;
    patch.check_identity(target)?;
    let metadata = rules(base, patch)?;
    let [of] = &metadata.bases[..] else {
        return refused("A06: the patch is not for exactly one base");
    };
    if metadata.sequence <= state.sequence {
        return refused(format!(
            "sequence {} is live, the patch has {}",
            state.sequence, metadata.sequence
        ));
    }
    if metadata.min_sequence > state.sequence {
        return refused(format!(
            "the patch goes over sequence {} or later, {} is live",
            metadata.min_sequence, state.sequence
        ));
    }
    let mut plan = Plan {
        sequence: metadata.sequence,
        ..Plan::default()
    };
    if !state.led.iter().any(|led| led.at == patch.at) {
        reverse(&mut plan, target, base, patch, &of.chunks)?;
    }
    forward(&mut plan, state, target, patch, &of.chunks)?;
    Ok(plan)
}

/// The metadata, which break no rule.
fn rules(base: &Loaded, patch: &Loaded) -> Result<hpat::HotPatch, ApplyError> {
    let capacity = table::capacity(base).min(table::capacity(patch));
    let options = hpat::Options {
        base: Some(&base.image),
        capacity: Some(capacity),
    };
    let report = hpat::validate(&patch.image, &options);
    let mut wrong: Vec<_> = report.findings.iter().collect();
    wrong.retain(|finding| finding.weight == Weight::Refused);
    // For another build nothing else fits either.
    wrong.sort_by_key(|finding| finding.rule != hpat::Rule::A28);
    if let Some(first) = wrong.first() {
        return refused(match wrong.len() - 1 {
            0 => format!("{}: {}", first.rule, first.text),
            more => format!("{}: {} (and {more} more)", first.rule, first.text),
        });
    }
    const CF_INSTRUMENTED: u32 = 0x100;
    let guarded = |image: &PeImage| {
        let config = image.load_config;
        config.is_some_and(|config| config.guard_flags & CF_INSTRUMENTED != 0)
    };
    if guarded(&base.image) || guarded(&patch.image) {
        return refused(
            "the images are built with control-flow guard: which calls through pointers are allowed in a \
             process only Windows itself changes, so let it apply the patch",
        );
    }
    match report.parsed {
        Some(parsed) => Ok(parsed.patch),
        None => refused("the patch has no metadata"),
    }
}

/// What the rules say that does not stand in the way.
pub(super) fn warnings(base: &PeImage, patch: &PeImage) -> Vec<String> {
    let options = hpat::Options {
        base: Some(base),
        ..hpat::Options::default()
    };
    let report = hpat::validate(patch, &options);
    // What stops threads (A26) is told as a stop.
    let told = report
        .findings
        .iter()
        .filter(|finding| finding.weight == Weight::Warned && finding.rule == hpat::Rule::A28);
    told.map(|finding| format!("{}: {}", finding.rule, finding.text))
        .collect()
}

fn records(chunks: &[Chunk], inverse: bool) -> impl Iterator<Item = (ChunkKind, &Record)> {
    let chunks = chunks.iter().filter(move |chunk| chunk.inverse == inverse);
    chunks.flat_map(|chunk| chunk.records.iter().map(|record| (chunk.kind, record)))
}

/// What leads the patch back to the base.
fn reverse(
    plan: &mut Plan,
    target: &dyn Target,
    base: &Loaded,
    patch: &Loaded,
    chunks: &[Chunk],
) -> Result<(), ApplyError> {
    let functions = records(chunks, true).filter(|(kind, _)| *kind == ChunkKind::Function);
    let count = functions.count();
    let count = u32::try_from(count).unwrap_or(u32::MAX);
    table::check_room(target, patch, 0, count)?;
    let mut used = 0;
    for (kind, record) in records(chunks, true) {
        let source = patch.address(record.source)?;
        match kind {
            ChunkKind::Function => {
                let slot = Slot::of(patch, used);
                let to = base.address(record.target)?;
                fresh(target, patch, record)?;
                plan.reverse.push((slot.pointer, pointer(patch, to.0)?));
                plan.reverse.push((slot.code, slot.jump(patch)?.to_vec()));
                let before = LiveAddr(source.0 - 5);
                plan.reverse.push((before, slot.approach(source)?.to_vec()));
                plan.reverse.push((source, ENTRY.to_vec()));
                used += 1;
            }
            ChunkKind::Absolute => {
                let to = base.address(record.target)?;
                plan.reverse.push((source, pointer(patch, to.0)?));
            }
            ChunkKind::Indirect => {
                let mut value = vec![0; patch.image.machine.pointer_size() as usize];
                target.read(base.address(record.target)?, &mut value)?;
                plan.reverse.push((source, value));
            }
            // Without control-flow guard every place may be called, and nothing has to be told.
            ChunkKind::CallTarget | ChunkKind::NoCallTarget | ChunkKind::None => {}
            other => {
                let name = other.name();
                return refused(format!(
                    "what a kernel does for {name} records is not known"
                ));
            }
        }
    }
    Ok(())
}

/// What leads the base to the patch, and what is its own again.
fn forward(
    plan: &mut Plan,
    state: &PatchedImage,
    target: &dyn Target,
    patch: &Loaded,
    chunks: &[Chunk],
) -> Result<(), ApplyError> {
    let base = &state.base;
    let used = state
        .entries
        .values()
        .map(|entry| entry.index + 1)
        .max()
        .unwrap_or(0);
    let mut next = used;
    let mut named = BTreeSet::new();
    for (_, record) in records(chunks, false) {
        let at = record.source;
        named.insert(at);
        let function = base.address(at)?;
        let to = patch.address(record.target)?;
        let enter = |original: &[u8; 7]| Word {
            at: function,
            old: original[5..].to_vec(),
            new: ENTRY.to_vec(),
        };
        let entry = match state.entries.get(&at) {
            Some(known) => {
                check_known(target, base, at, known)?;
                let slot = Slot::of(base, known.index);
                let pointer = Word {
                    at: slot.pointer,
                    old: pointer(base, known.to)?,
                    new: pointer(base, to.0)?,
                };
                // A thread may be on its way through an entry that is left, to where it led; old
                // and new are both code of a patch that is there.
                plan.words.push(pointer);
                if known.live {
                    plan.replaced += 1;
                } else {
                    plan.fresh += 1;
                    plan.words.push(enter(&known.original));
                }
                Entry {
                    to: to.0,
                    live: true,
                    ..known.clone()
                }
            }
            None => {
                let original = fresh(target, base, record)?;
                let slot = Slot::of(base, next);
                let before = LiveAddr(function.0 - 5);
                plan.forward.push((slot.pointer, pointer(base, to.0)?));
                plan.forward.push((slot.code, slot.jump(base)?.to_vec()));
                plan.forward
                    .push((before, slot.approach(function)?.to_vec()));
                plan.words.push(enter(&original));
                plan.fresh += 1;
                next += 1;
                Entry {
                    index: next - 1,
                    to: to.0,
                    original,
                    live: true,
                }
            }
        };
        plan.entries.push((at, entry));
    }
    table::check_room(target, base, used, next - used)?;
    let words = restoring(state, target, |at| !named.contains(&at))?;
    plan.restored = words.len();
    plan.words.extend(words);
    for (at, entry) in &state.entries {
        if !named.contains(at) {
            let entry = Entry {
                live: false,
                ..entry.clone()
            };
            plan.entries.push((*at, entry));
        }
    }
    Ok(())
}
