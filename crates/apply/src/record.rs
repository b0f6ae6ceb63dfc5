//! What stands in the target about a patch: registry and journal in one.
//!
//! The record is the first thing in a patch's memory, so that whoever looks at the
//! process finds it, and it tells what is about to be written before it is
//! written. Fork copies it with the process and exec drops it; both are right.

use invivo_image::LiveAddr;
use invivo_patch::{Hex, ImportVersion};
use serde::{Deserialize, Serialize};

use crate::callouts::Callouts;
use crate::quiet::Aside;
use crate::{Target, TargetError};

/// First bytes of a record.
pub(crate) const MAGIC: [u8; 8] = *b"INVIVO\x1a\x01";
/// Bytes before the body: magic, state, size of the body.
pub(crate) const HEADER: usize = 24;
/// Bytes that the kernel writes in one piece, where they begin a page.
const PAGE: usize = 4096;
/// Where the state stands in the header.
const STATE: u64 = 8;

/// How far a patch has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// Its memory is being filled; nothing refers to it.
    Filling = 6,
    /// In memory, no hook written.
    Prepared = 1,
    /// Hooks are being written.
    Switching = 2,
    /// Live.
    Applied = 3,
    /// Hooks are being taken back.
    Reverting = 4,
    /// Taken back; the memory stays, because a thread may still be inside.
    Reverted = 5,
}

impl State {
    pub(crate) fn from_number(number: u32) -> Option<State> {
        use State::{Applied, Filling, Prepared, Reverted, Reverting, Switching};
        [Filling, Prepared, Switching, Applied, Reverting, Reverted]
            .into_iter()
            .find(|state| *state as u32 == number)
    }
}

/// One place that a patch changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HookRecord {
    /// Where.
    pub at: LiveAddr,
    /// What was there.
    pub old: Hex,
    /// What is there while the patch is live.
    pub new: Hex,
    /// True for the long jump in padding to which a short one leads: a thread may
    /// stand before it, on its way, when the short one is already taken back.
    pub pad: bool,
    /// True if several instructions give way to it, so that a thread may be between them.
    #[serde(default)]
    pub several: bool,
}

impl HookRecord {
    /// The bytes that it changes.
    pub(crate) fn range(&self) -> std::ops::Range<LiveAddr> {
        self.at..LiveAddr(self.at.0.saturating_add(self.new.0.len() as u64))
    }

    /// All of them but the first: where no instruction begins once it is written.
    pub(crate) fn inside(&self) -> std::ops::Range<LiveAddr> {
        LiveAddr(self.at.0.saturating_add(1))..self.range().end
    }
}

/// What a patch takes from another image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImportRecord {
    /// Its name.
    pub name: String,
    /// At which version.
    pub version: Option<ImportVersion>,
    /// Where it was found.
    pub at: LiveAddr,
}

/// A function of a patch, for those who name code: debuggers, profilers, stacks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct FunctionRecord {
    /// Its name, mangled.
    pub name: String,
    /// Where it is.
    #[schemars(with = "String")]
    pub at: LiveAddr,
    /// Bytes of code.
    pub size: u64,
}

/// A patch in a target.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The patch's digest.
    pub id: Hex,
    /// Where text pages are while they are changed, and how many bytes of them.
    #[serde(with = "crate::fixed::range")]
    pub scratch: (LiveAddr, u64),
    /// Which text they are, or are to take the place of. A record of an older program does not tell.
    #[serde(default = "nowhere", with = "crate::fixed::range")]
    pub text: (LiveAddr, u64),
    /// Where a clean copy of the image's code is kept, as far behind this as the code is behind the
    /// image's start; size 0 if none is. A record of an older program has none.
    #[serde(default = "nowhere", with = "crate::fixed::range")]
    pub spare: (LiveAddr, u64),
    /// True from just before its unwind data are registered on: its memory stays then.
    #[serde(with = "crate::fixed::flag")]
    pub registering: bool,
    /// True if its unwind data are registered with the language's runtime, which
    /// keeps pointers into its memory.
    #[serde(with = "crate::fixed::flag")]
    pub registered: bool,
    /// Its name.
    pub name: String,
    /// What it fixes.
    pub labels: Vec<String>,
    /// The program and version that applied it.
    pub applied_by: String,
    /// Its place in the order of patches.
    pub sequence: u32,
    /// The build id of its target image.
    pub build_id: Hex,
    /// Where that image is.
    pub module: LiveAddr,
    /// Functions that it replaces, mangled.
    pub functions: Vec<String>,
    /// Their code in the base.
    pub replaced: Vec<(LiveAddr, u64)>,
    /// Places that it changes.
    pub hooks: Vec<HookRecord>,
    /// Its code and constants; the record itself is at the start.
    pub region: (LiveAddr, u64),
    /// Bytes that the record may take there.
    pub room: u64,
    /// Its variables; size 0 if it has none.
    pub data: (LiveAddr, u64),
    /// Its own functions. A record of an older program has none.
    #[serde(default)]
    pub own: Vec<FunctionRecord>,
    /// Its unwind data, if it has any.
    #[serde(default)]
    pub unwind: Option<(LiveAddr, u64)>,
    /// Names of its variables.
    pub variables: Vec<String>,
    /// Functions of it that are called before and after.
    #[serde(default)]
    pub callouts: Option<Callouts>,
    /// The digest of the live patch that it replaces.
    pub replaces: Option<Hex>,
    /// True if it went live at a moment when no thread was inside what it replaces:
    /// it is taken back in the same way.
    pub quiescent: bool,
    /// SHA-256 of all that stands behind the record. A record of an older program has none.
    #[serde(default)]
    pub contents: Option<Hex>,
    /// SHA-256 of the base's code that it replaces, as it is without any patch.
    #[serde(default)]
    pub code: Option<Hex>,
    /// What it takes from other images.
    #[serde(default)]
    pub imports: Vec<ImportRecord>,
    /// Functions that no other image may import while it is live.
    #[serde(default)]
    pub unshared: Vec<String>,
    /// True if its code takes no address of anything of its own.
    #[serde(default)]
    pub alone: bool,
}

fn nowhere() -> (LiveAddr, u64) {
    (LiveAddr(0), 0)
}

impl Record {
    /// The record while text pages are elsewhere.
    pub(crate) fn moving(&self, aside: Aside) -> Record {
        Record {
            scratch: aside.scratch,
            text: aside.text,
            spare: aside.spare,
            ..self.clone()
        }
    }

    /// Padding in which a thread may stand while it is on its way to the patch.
    pub(crate) fn pads(&self) -> Vec<(String, std::ops::Range<LiveAddr>)> {
        let pads = self.hooks.iter().filter(|hook| hook.pad);
        let end = |hook: &HookRecord| LiveAddr(hook.at.0 + hook.new.0.len() as u64);
        pads.map(|hook| (self.name.clone(), hook.at..end(hook)))
            .collect()
    }

    /// The patch's own code, by its name.
    pub(crate) fn code(&self) -> (String, std::ops::Range<LiveAddr>) {
        let (start, size) = self.region;
        let end = LiveAddr(start.0.saturating_add(size));
        (self.name.clone(), start..end)
    }

    /// The record as it stands in memory, in `state`; `None` if it outgrew its room.
    pub(crate) fn to_bytes(&self, state: State) -> Option<Vec<u8>> {
        let room = usize::try_from(self.room).ok()?;
        let body = serde_json::to_vec(self).ok()?;
        let mut bytes = Vec::with_capacity(room);
        bytes.extend(MAGIC);
        bytes.extend((state as u32).to_le_bytes());
        bytes.extend([0; 4]);
        bytes.extend((body.len() as u64).to_le_bytes());
        bytes.extend(body);
        if bytes.len() > room {
            return None;
        }
        bytes.resize(room, 0);
        Some(bytes)
    }
}

/// Writes a record.
pub(crate) fn write_record(
    target: &mut dyn Target,
    record: &Record,
    state: State,
) -> Result<(), TargetError> {
    target.write(record.region.0, &to_bytes(record, state)?)
}

/// Changes the record of a patch that is live, in which nothing but its state and what `fixed`
/// tells of differs from what stands there: within one page.
pub(crate) fn rewrite(
    target: &mut dyn Target,
    record: &Record,
    state: State,
) -> Result<(), TargetError> {
    let mut bytes = to_bytes(record, state)?;
    let start = record.region.0;
    if let Some(behind) = bytes.get(PAGE..) {
        let mut there = vec![0; behind.len()];
        target.read(LiveAddr(start.0 + PAGE as u64), &mut there)?;
        // An older program may have written it in another way.
        if there == behind {
            bytes.truncate(PAGE);
        }
    }
    target.write(start, &bytes)
}

fn to_bytes(record: &Record, state: State) -> Result<Vec<u8>, TargetError> {
    record.to_bytes(state).ok_or_else(|| {
        TargetError::Unsupported(format!(
            "the record of {} does not fit its room",
            record.name
        ))
    })
}

/// Changes only the state of a record: one aligned word.
pub(crate) fn set_state(
    target: &mut dyn Target,
    record: &Record,
    state: State,
) -> Result<(), TargetError> {
    target.write(
        LiveAddr(record.region.0.0 + STATE),
        &(state as u32).to_le_bytes(),
    )
}

#[cfg(test)]
pub(crate) fn sample() -> Record {
    let at = LiveAddr(0x1000);
    Record {
        id: Hex(vec![7; 32]),
        name: "n".to_owned(),
        labels: vec!["CVE-2024-31228".to_owned()],
        applied_by: "invivo".to_owned(),
        sequence: 1,
        build_id: Hex(vec![1, 2]),
        module: LiveAddr(0x40_0000),
        functions: vec!["f".to_owned()],
        replaced: vec![(at, 4)],
        hooks: vec![HookRecord {
            at,
            old: Hex(vec![1]),
            new: Hex(vec![2]),
            pad: false,
            several: false,
        }],
        region: (LiveAddr(0x10_0000), 0x2000),
        room: 0x1000,
        data: (LiveAddr(0x10_2000), 0),
        own: Vec::new(),
        unwind: None,
        variables: Vec::new(),
        scratch: nowhere(),
        text: nowhere(),
        spare: nowhere(),
        callouts: None,
        replaces: None,
        registering: false,
        registered: false,
        quiescent: false,
        contents: None,
        code: None,
        imports: Vec::new(),
        unshared: Vec::new(),
        alone: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changes_while_it_is_live_is_on_one_page() {
        let mut record = sample();
        let of = |record: &Record, state| record.to_bytes(state).unwrap();
        record.room = 0x4000;
        record.functions = vec!["a_function_with_a_name".to_owned(); 400];
        let before = of(&record, State::Switching);
        assert!(before.len() > 2 * PAGE);
        for (scratch, flag) in [(0, false), (1, true), (u64::MAX, false)] {
            record.scratch = (LiveAddr(scratch), scratch);
            record.text = (LiveAddr(scratch / 3), scratch);
            record.spare = (LiveAddr(scratch / 2), scratch);
            (record.registering, record.registered) = (flag, flag);
            let now = of(&record, State::Applied);
            assert_eq!(now[PAGE..], before[PAGE..]);
            let end = now.iter().rposition(|byte| *byte != 0).unwrap();
            let read: Record = serde_json::from_slice(&now[HEADER..=end]).unwrap();
            assert_eq!(read, record);
        }
        // As older programs wrote it.
        let text = String::from_utf8(serde_json::to_vec(&sample()).unwrap()).unwrap();
        let older = text
            .replace("\"0000000000000000+0000000000000000\"", "[\"0x0\",0]")
            .replace("\"registered\":0", "\"registered\":false");
        assert_ne!(older, text);
        assert_eq!(serde_json::from_str::<Record>(&older).unwrap(), sample());
    }
}
