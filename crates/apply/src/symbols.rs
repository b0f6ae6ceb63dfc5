//! What the code of patches is called, read from the target itself; stops nothing.

use invivo_image::{LiveAddr, demangle};
use serde::Serialize;

use crate::found::read_all;
use crate::record::{FunctionRecord, Record, State};
use crate::{Target, TargetError};

/// A patch's code in a target.
#[derive(Clone, Debug, Serialize, schemars::JsonSchema)]
pub struct PatchSymbols {
    /// The patch's name.
    pub name: String,
    /// How far it has come. Threads may still be in code that was taken back.
    pub state: State,
    /// Its own functions, in order of address.
    pub functions: Vec<FunctionRecord>,
    /// Where its code and constants are, and how many bytes of them.
    #[schemars(with = "(String, u64)")]
    pub region: (LiveAddr, u64),
    /// Its unwind data, and where they are.
    #[serde(skip)]
    pub unwind: Option<(LiveAddr, Vec<u8>)>,
}

/// More unwind data than a patch has, in bytes.
const LARGEST: u64 = 64 << 20;

/// What the code of every patch in `target` is called.
///
/// # Errors
/// When the target is gone or may not be read.
pub fn symbols(target: &dyn Target) -> Result<Vec<PatchSymbols>, TargetError> {
    let records = read_all(target)?;
    let described = records
        .into_iter()
        .map(|(record, state)| describe(target, record, state));
    described.collect()
}

fn describe(
    target: &dyn Target,
    record: Record,
    state: State,
) -> Result<PatchSymbols, TargetError> {
    // The target could write anything there; what is outside is not the patch's.
    let (start, size) = record.region;
    let inside = |at: LiveAddr, length: u64| {
        let offset = at.checked_sub(start);
        let end = offset.and_then(|offset| offset.checked_add(length));
        end.is_some_and(|end| end <= size)
    };
    let sane = |(at, length): &(LiveAddr, u64)| *length <= LARGEST && inside(*at, *length);
    let unwind = record.unwind.filter(sane);
    let unwind = match unwind {
        Some((at, length)) => {
            let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
            target.read(at, &mut bytes)?;
            Some((at, bytes))
        }
        None => None,
    };
    let mut functions = record.own;
    functions.retain(|f| inside(f.at, f.size) && !f.name.contains('\0'));
    functions.sort_by_key(|function| function.at);
    Ok(PatchSymbols {
        name: record.name,
        state,
        functions,
        region: record.region,
        unwind,
    })
}

/// `dwell+0x1a in patch fix`, where `at` is in the code of a patch.
pub(crate) fn place_in(patches: &[PatchSymbols], at: LiveAddr) -> Option<String> {
    patches.iter().find_map(|patch| {
        let covers = |f: &&FunctionRecord| at.checked_sub(f.at).is_some_and(|n| n < f.size);
        let function = patch.functions.iter().find(covers)?;
        let offset = at.checked_sub(function.at)?;
        let name = demangle(&function.name);
        Some(format!("{name}+{offset:#x} in patch {}", patch.name))
    })
}
