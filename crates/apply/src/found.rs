//! Records that stand in a target, and how far it bears them out.
//!
//! A record says where its image was. Libraries are closed, and another one is loaded where they
//! were: nothing that a record tells of such a place may be believed or touched any more.

use std::collections::BTreeMap;

use invivo_image::LiveAddr;
use invivo_patch::Hex;

use crate::pages::Pages;
use crate::record::{HEADER, MAGIC};
use crate::sane::{cleaned, is_sane};
use crate::{HookRecord, Record, Region, State, Target, TargetError};

/// The largest record that is believed, in bytes.
const LARGEST: u64 = 64 << 20;
/// Bytes of a jump that leads into a patch: nobody else has the same ones by chance.
const LONG_JUMP: usize = 5;

/// A record, and how it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) record: Record,
    /// How far the patch has come, as far as the target bears that out.
    pub(crate) state: State,
    /// How far it has come by what is written.
    pub(crate) noted: State,
    /// True if its image is no longer where it was.
    pub(crate) gone: bool,
}

/// All records in the target, with their states.
pub(crate) fn read_all(target: &dyn Target) -> Result<Vec<(Record, State)>, TargetError> {
    let all = find_all(target)?.into_iter();
    Ok(all.map(|found| (found.record, found.state)).collect())
}

/// All records in the target.
pub(crate) fn find_all(target: &dyn Target) -> Result<Vec<Found>, TargetError> {
    let regions = target.regions()?;
    let candidates = regions
        .iter()
        .filter(|r| r.executable && !r.writable && r.file.is_none());
    let mut images = Images::default();
    candidates
        .filter_map(|region| read_one(target, region))
        .map(|(record, noted)| {
            let gone = !is_moved_aside(&regions, &record, noted)
                && !leads_there(target, record.hooks.iter().take(1))
                && !images.has(target, &record)?
                && !leads_there(target, record.hooks.iter());
            let is_lost = noted == State::Applied && (gone || is_as_before(target, &record));
            let state = if is_lost { State::Reverted } else { noted };
            Ok(Found {
                record,
                state,
                noted,
                gone,
            })
        })
        .collect()
}

/// True if a tool died while text of the image was elsewhere and nothing took its place: what tells
/// images apart may be on those pages.
fn is_moved_aside(regions: &[Region], record: &Record, noted: State) -> bool {
    let works = matches!(noted, State::Switching | State::Reverting) && record.scratch.1 > 0;
    let shows = |hook: &HookRecord| regions.iter().any(|r| r.range.contains(&hook.at));
    works && !record.hooks.first().is_some_and(shows)
}

/// Which images are where records say that they are.
#[derive(Default)]
struct Images(BTreeMap<(LiveAddr, Vec<u8>), bool>);

impl Images {
    fn has(&mut self, target: &dyn Target, record: &Record) -> Result<bool, TargetError> {
        let Hex(id) = &record.build_id;
        let key = (record.module, id.clone());
        if let Some(known) = self.0.get(&key) {
            return Ok(*known);
        }
        let has = target.has_loaded(record.module, id)?;
        self.0.insert(key, has);
        Ok(has)
    }
}

/// True if some of these hooks lead into their patch. A program may have made the head of its image
/// unreadable since; then its hooks tell that it is still there.
fn leads_there<'r>(target: &dyn Target, mut hooks: impl Iterator<Item = &'r HookRecord>) -> bool {
    hooks.any(|hook| {
        let Hex(new) = &hook.new;
        new.len() >= LONG_JUMP && target.holds(hook.at, new).unwrap_or(false)
    })
}

/// True if the base's bytes are at all hooks: a library that was closed took its hooks along, and
/// left the record. Nothing is there, or the library again as its file has it.
fn is_as_before(target: &dyn Target, record: &Record) -> bool {
    let as_before = |hook: &HookRecord| target.holds(hook.at, &hook.old.0).unwrap_or(true);
    record.hooks.iter().all(as_before)
}

impl Record {
    /// Hooks that are not in place. A program that gives pages of its own text back (`madvise`)
    /// loses those on them alone.
    pub(crate) fn missing(&self, target: &dyn Target) -> Vec<&HookRecord> {
        let mut pages = Pages::of(target);
        let hooks = self.hooks.iter();
        hooks
            .filter(|hook| !pages.holds(hook.at, &hook.new.0).unwrap_or(false))
            .collect()
    }

    /// What is to be said of a live patch of which only some hooks are in place.
    pub(crate) fn told_missing(&self, missing: &[&HookRecord]) -> Option<String> {
        let first = missing.first()?;
        Some(format!(
            "{} of {} places that {} changes are not as it left them, the first of them at {}: another \
             program has changed them, or the target gave pages of its code back; take it back \
             with invivo revert, and apply it again",
            missing.len(),
            self.hooks.len(),
            self.name,
            first.at
        ))
    }
}

/// The record at the start of `region`, if there is one that makes sense.
fn read_one(target: &dyn Target, region: &Region) -> Option<(Record, State)> {
    let start = region.range.start;
    let room = region.range.end.checked_sub(start)?;
    let mut header = [0; HEADER];
    target.read(start, &mut header).ok()?;
    if header[..8] != MAGIC {
        return None;
    }
    let state = State::from_number(u32::from_le_bytes(header[8..12].try_into().ok()?))?;
    let size = u64::from_le_bytes(header[16..24].try_into().ok()?);
    if size > LARGEST || size.checked_add(HEADER as u64)? > room {
        return None;
    }
    let mut body = vec![0; usize::try_from(size).ok()?];
    target
        .read(start.checked_add(HEADER as u64)?, &mut body)
        .ok()?;
    let record: Record = serde_json::from_slice(&body).ok()?;
    // The target could write anything there; what does not fit the place is not ours.
    if record.region.0 != start || record.region.1 > room || !is_sane(&record) {
        return None;
    }
    if record
        .callouts
        .as_ref()
        .is_some_and(|c| !c.lie_in(record.region, record.data))
    {
        return None;
    }
    Some((cleaned(record), state))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{sample, write_record};
    use crate::{MemoryTarget, Protection};

    #[test]
    fn a_record_is_found_and_read_back() {
        let record = sample();
        let mut target = MemoryTarget::default();
        target.add(
            record.region.0..LiveAddr(0x10_2000),
            Protection::ReadExecute,
        );
        let image = record.module;
        target.load(&record.build_id.0, image, &[0; 0x1000]);
        target.add(LiveAddr(0x1000)..LiveAddr(0x2000), Protection::ReadExecute);
        target.write(LiveAddr(0x1000), &[2]).unwrap();
        write_record(&mut target, &record, State::Applied).unwrap();
        let state = |target: &MemoryTarget| read_all(target).unwrap()[0].1;
        assert_eq!(
            read_all(&target).unwrap(),
            vec![(record.clone(), State::Applied)]
        );
        // Somebody else's bytes are not the base's.
        target.write(LiveAddr(0x1000), &[3]).unwrap();
        assert_eq!(state(&target), State::Applied);
        target.write(LiveAddr(0x1000), &[1]).unwrap();
        assert_eq!(state(&target), State::Reverted, "its library came back");
    }

    #[test]
    fn a_record_of_an_image_that_is_gone_is_not_live_but_for_hooks_that_lead_there() {
        let mut record = sample();
        record.hooks[0].old = Hex(vec![1; 5]);
        record.hooks[0].new = Hex(vec![0xe9, 1, 2, 3, 4]);
        let mut target = MemoryTarget::default();
        target.add(
            record.region.0..LiveAddr(0x10_2000),
            Protection::ReadExecute,
        );
        // Another image is where its own was.
        target.load(&[9, 9], record.module, &[0; 0x1000]);
        target.add(LiveAddr(0x1000)..LiveAddr(0x2000), Protection::ReadExecute);
        write_record(&mut target, &record, State::Applied).unwrap();
        let found = find_all(&target).unwrap().remove(0);
        assert_eq!(
            (found.state, found.noted, found.gone),
            (State::Reverted, State::Applied, true)
        );
        let hook = &record.hooks[0];
        target.write(hook.at, &hook.new.0).unwrap();
        let found = find_all(&target).unwrap().remove(0);
        assert_eq!((found.state, found.gone), (State::Applied, false));
    }

    #[test]
    fn hooks_that_are_not_in_place_are_told() {
        let mut record = sample();
        let hook = |at: u64| HookRecord {
            at: LiveAddr(at),
            ..record.hooks[0].clone()
        };
        record.hooks = vec![hook(0x1000), hook(0x1800), hook(0x2fff)];
        let mut target = MemoryTarget::default();
        target.add(LiveAddr(0x1000)..LiveAddr(0x2000), Protection::ReadExecute);
        for at in [0x1000, 0x1800] {
            target.write(LiveAddr(at), &[2]).unwrap();
        }
        let missing = record.missing(&target);
        assert_eq!(missing, [&record.hooks[2]]);
        let told = record.told_missing(&missing).unwrap();
        assert!(told.starts_with("1 of 3 places that n changes"), "{told}");
        assert_eq!(record.told_missing(&[]), None);
    }

    #[test]
    fn a_record_that_claims_another_place_is_not_believed() {
        let record = sample();
        let mut target = MemoryTarget::default();
        target.add(
            LiveAddr(0x20_0000)..LiveAddr(0x20_2000),
            Protection::ReadExecute,
        );
        let bytes = record.to_bytes(State::Applied).unwrap();
        target.write(LiveAddr(0x20_0000), &bytes).unwrap();
        assert_eq!(read_all(&target).unwrap(), vec![]);
    }

    #[test]
    fn callouts_that_lie_elsewhere_are_not_believed() {
        use crate::callouts::{Callouts, Placed};
        let region = LiveAddr(0x10_0000);
        let read_with = |words: u64, stub: u64| {
            let mut record = sample();
            record.data.1 = 0x1000;
            record.callouts = Some(Callouts {
                words: LiveAddr(words),
                all: vec![Placed {
                    moment: invivo_patch::Moment::AfterApply,
                    function: "f".to_owned(),
                    stub: LiveAddr(stub),
                }],
            });
            let mut target = MemoryTarget::default();
            target.add(region..LiveAddr(0x10_2000), Protection::ReadExecute);
            write_record(&mut target, &record, State::Applied).unwrap();
            read_all(&target).unwrap().len()
        };
        assert_eq!(read_with(0x10_2000, 0x10_1000), 1);
        assert_eq!(read_with(u64::MAX, 0x10_1000), 0);
        assert_eq!(read_with(0x10_2ff0, 0x10_1000), 0);
        assert_eq!(read_with(0x10_2000, 0x10_1fff), 0);
        assert_eq!(read_with(0x10_2000, u64::MAX), 0);
    }

    #[test]
    fn a_size_that_is_too_large_is_not_believed() {
        let record = sample();
        let mut target = MemoryTarget::default();
        target.add(
            record.region.0..LiveAddr(0x10_2000),
            Protection::ReadExecute,
        );
        let mut bytes = record.to_bytes(State::Applied).unwrap();
        bytes[16..24].copy_from_slice(&u64::MAX.to_le_bytes());
        target.write(record.region.0, &bytes).unwrap();
        assert_eq!(read_all(&target).unwrap(), vec![]);
    }
}
