//! The memory of a patch that was taken back is given back, where it is proved that nobody needs it.
//!
//! Two things lead into it: a way back of some thread or coroutine, which is an address that lies
//! in memory or in a register as it is; and an address that new code took of itself or of its
//! constants, which may be anywhere and in any form, inside the kernel too. So memory is
//! given back only for code that takes none, and while all threads stand and no byte of the
//! process is such an address. From then on nobody can come by one.

use std::ops::Range;
use std::time::Duration;

use invivo_image::LiveAddr;
use invivo_patch::{Patch, RelocationKind, Section, SectionKind, SymbolPlace};
use serde::Serialize;

use crate::again::stop_once;
use crate::found::{Found, find_all};
use crate::going_live::release;
use crate::quiescence::blockers;
use crate::{ApplyError, Options, Record, State, Target};

/// What became of a patch's memory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, schemars::JsonSchema)]
pub struct Unloaded {
    /// The patch.
    pub patch: String,
    /// Bytes that were given back.
    pub freed: u64,
    /// Why its memory stays, if it does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kept: Option<String>,
    /// How long all threads stood.
    #[serde(skip)]
    pub stopped: Duration,
}

/// Gives the memory of patches back that were taken back: of the one called `name`, or of all.
///
/// # Errors
/// When a step fails; what was not given back stays, and is used by the next apply.
pub fn unload(
    target: &mut dyn Target,
    name: Option<&str>,
    options: &Options<'_>,
) -> Result<Vec<Unloaded>, ApplyError> {
    let mut all = Vec::new();
    for Found {
        mut record,
        state,
        gone,
        ..
    } in find_all(target)?
    {
        if gone {
            // Its hooks went with its image; what is there now is not its own.
            record.hooks.clear();
        }
        if state == State::Reverted && name.is_none_or(|name| record.name == name) {
            all.push(options.step("unload", || one(target, &record))?);
        }
    }
    Ok(all)
}

fn one(target: &mut dyn Target, record: &Record) -> Result<Unloaded, ApplyError> {
    let mut done = Unloaded {
        patch: record.name.clone(),
        freed: 0,
        kept: None,
        stopped: Duration::ZERO,
    };
    if record.registering || record.registered {
        done.kept = Some("the language's runtime knows its unwind data".to_owned());
        return Ok(done);
    }
    if !record.alone {
        done.kept = Some(
            "new code took addresses of its own functions or constants, which may be anywhere"
                .to_owned(),
        );
        return Ok(done);
    }
    // No hook may lead there any more, whoever wrote it.
    for hook in record.hooks.iter().filter(|hook| !hook.pad) {
        if target.holds(hook.at, &hook.new.0).unwrap_or(false) {
            done.kept = Some(format!("the hook at {} is still there", hook.at));
            return Ok(done);
        }
    }
    // A revert that could not see all stacks leaves long jumps in padding.
    let mut left = Vec::new();
    for hook in record.hooks.iter().filter(|hook| hook.pad) {
        if target.holds(hook.at, &hook.new.0)? {
            left.push(hook);
        }
    }
    let code = record.code();
    let ways: Vec<_> = record.pads().into_iter().chain([code.clone()]).collect();
    let memory = code.1.start..LiveAddr(code.1.end.0.saturating_add(record.data.1));
    let mut kept = None;
    done.stopped = stop_once(target, &mut |all| {
        let stacks = all.stacks()?;
        kept = match blockers(&stacks, &ways).first() {
            Some(thread) => Some(thread.reason()),
            None => all.finds(&memory)?,
        };
        if kept.is_none() {
            for hook in &left {
                all.write(hook.at, &hook.old.0)?;
            }
        }
        Ok(())
    })?;
    done.kept = kept;
    if done.kept.is_none() {
        release(target, record)?;
        done.freed = record.region.1.saturating_add(record.data.1);
    }
    Ok(done)
}

/// True if the code of `patch` takes no address of anything of its own: it only jumps, calls, reads
/// and writes there. What cannot be told counts as taken.
pub(crate) fn takes_no_address(patch: &Patch) -> bool {
    let own = |symbol: u32| {
        let symbol = patch.contents.symbols.get(symbol as usize);
        symbol.is_none_or(|symbol| matches!(symbol.place, SymbolPlace::Patch { .. }))
    };
    // These keep a place in code for later, and not always as an address.
    let returns_twice = |name: &str| name.contains("setjmp") || name.contains("context");
    let mut symbols = patch.contents.symbols.iter();
    !symbols.any(|symbol| returns_twice(&symbol.name))
        && patch.contents.sections.iter().all(|section| {
            let mut relocations = section.relocations.iter();
            match section.kind {
                // Distances to code, for whoever unwinds.
                SectionKind::Unwind => true,
                SectionKind::Text => {
                    let used = |at: u64| branches(section, at) || reads(section, at);
                    relocations.all(|relocation| {
                        !own(relocation.symbol)
                            || relocation.kind == RelocationKind::Relative32
                                && used(relocation.offset)
                    }) && !takes_its_own(section)
                }
                _ => !relocations.any(|relocation| own(relocation.symbol)),
            }
        })
}

/// The bytes of `section` from `behind` before `at` on.
fn before(section: &Section, at: u64, behind: u64) -> Option<&[u8]> {
    let (start, end) = (
        usize::try_from(at.checked_sub(behind)?).ok()?,
        usize::try_from(at).ok()?,
    );
    section.bytes.get(start..end)
}

/// True if the distance at `at` is that of a jump or a call.
fn branches(section: &Section, at: u64) -> bool {
    matches!(before(section, at, 1), Some([0xe8 | 0xe9]))
        || matches!(before(section, at, 2), Some([0x0f, 0x80..=0x8f]))
}

/// True if it is that of an operand in memory, and the instruction is not `lea`.
fn reads(section: &Section, at: u64) -> bool {
    matches!(before(section, at, 2), Some([opcode, modrm]) if *opcode != 0x8d && modrm & 0xc7 == 5)
}

/// True if anything in the code may be `lea` of a place in the same function, or a call of what
/// follows it, for which nothing has to be relocated.
fn takes_its_own(section: &Section) -> bool {
    let relocated = |at: usize| {
        let mut all = section.relocations.iter();
        all.any(|relocation| relocation.offset == at as u64)
    };
    let lea =
        |(at, pair): (usize, &[u8])| pair[0] == 0x8d && pair[1] & 0xc7 == 5 && !relocated(at + 2);
    let next = |(at, call): (usize, &[u8])| *call == [0xe8, 0, 0, 0, 0] && !relocated(at + 1);
    section.bytes.windows(2).enumerate().any(lea) || section.bytes.windows(5).enumerate().any(next)
}

/// The first place in `bytes` at which an address in `range` stands, at whatever alignment.
#[must_use]
pub fn address_in(bytes: &[u8], range: &Range<LiveAddr>) -> Option<usize> {
    // Addresses differ in their lowest two bytes, and in few others.
    let blocks = range.start.0 >> 16..=range.end.0.saturating_sub(1) >> 16;
    blocks
        .flat_map(|block| {
            let high = block.to_le_bytes();
            let found = memchr::memmem::find_iter(bytes, &high[..6]).map(|at| at.checked_sub(2));
            found
                .flatten()
                .filter(|at| {
                    let low = u16::from_le_bytes([bytes[*at], bytes[at + 1]]);
                    range.contains(&LiveAddr(block << 16 | u64::from(low)))
                })
                .collect::<Vec<_>>()
        })
        .min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_found_at_any_place() {
        let range = LiveAddr(0x5555_0001_fff0)..LiveAddr(0x5555_0002_0010);
        let at = |address: u64, place: usize| {
            let mut bytes = vec![0x55; 64];
            bytes[place..place + 8].copy_from_slice(&address.to_le_bytes());
            address_in(&bytes, &range)
        };
        assert_eq!(at(0x5555_0001_fff0, 3), Some(3));
        assert_eq!(at(0x5555_0002_000f, 56), Some(56));
        assert_eq!(at(0x5555_0002_0010, 8), None);
        assert_eq!(at(0x5555_0001_ffef, 0), None);
    }

    fn code(bytes: &[u8], relocated: &[u64]) -> Section {
        let relocation = |offset: &u64| invivo_patch::Relocation {
            offset: *offset,
            kind: RelocationKind::Relative32,
            symbol: 0,
            addend: -4,
        };
        Section {
            name: ".text.f".to_owned(),
            kind: SectionKind::Text,
            align: 1,
            bytes: bytes.to_vec(),
            relocations: relocated.iter().map(relocation).collect(),
        }
    }

    #[test]
    fn jumps_calls_and_reads_take_no_address() {
        // call, jmp, jne, mov eax, [rip+x], cmp dword ptr [rip+x], 1
        for (bytes, at) in [
            (&[0xe8, 0, 0, 0, 0][..], 1),
            (&[0xe9, 0, 0, 0, 0], 1),
            (&[0x0f, 0x85, 0, 0, 0, 0], 2),
            (&[0x8b, 0x05, 0, 0, 0, 0], 2),
            (&[0x83, 0x3d, 0, 0, 0, 0, 1], 2),
        ] {
            let section = code(bytes, &[at]);
            assert!(branches(&section, at) || reads(&section, at), "{bytes:x?}");
            assert!(!takes_its_own(&section), "{bytes:x?}");
        }
    }

    #[test]
    fn lea_and_numbers_take_an_address() {
        // lea rdi, [rip+x]; mov edi, x; and what cannot be told.
        for (bytes, at) in [
            (&[0x48, 0x8d, 0x3d, 0, 0, 0, 0][..], 3),
            (&[0xbf, 0, 0, 0, 0], 1),
            (&[0, 0, 0, 0], 0),
        ] {
            let section = code(bytes, &[at]);
            assert!(
                !branches(&section, at) && !reads(&section, at),
                "{bytes:x?}"
            );
        }
        // lea of a place in the same function, and a call of what follows.
        assert!(takes_its_own(&code(&[0x48, 0x8d, 0x05, 9, 0, 0, 0], &[])));
        assert!(takes_its_own(&code(&[0xe8, 0, 0, 0, 0, 0x58], &[])));
        assert!(!takes_its_own(&code(&[0xe8, 9, 0, 0, 0], &[])));
    }
}
