//! Stacks on which no thread runs: those of coroutines that wait for their turn.
//!
//! A thread's way back ends where its stack begins. One that runs a coroutine has another way
//! back besides, on its own stack; and a coroutine that waits is on no thread's way. Both may
//! return into a function, so whoever has to know that nobody is inside it must know of them.
//!
//! Nothing in a process tells that some memory is a stack. So a program counts as one that has
//! coroutines if one of its files names what switches between stacks, and then no writable word
//! of its memory may be a way back into the function. Where all of them are made by libc's
//! `makecontext`, as OpenSSL's are, there is none before one word in memory leads to where these end.

use std::ops::Range;

use invivo_apply::TargetError;
use invivo_image::LiveAddr;
use procfs::process::{MMPermissions, MemoryMap};

use crate::Process;
use crate::own_stack::{Live, is_left_over};
use crate::proc_file::Status;
use crate::search::too_large;
use crate::switches::Switch;

/// Bytes of memory that are searched, if nothing else was said: all threads stand meanwhile.
const MEMORY: u64 = 64 << 20;

/// Bytes that are looked at together.
const BLOCK: usize = 64;

/// What is known of a program before its threads stand.
#[derive(Clone, Debug)]
pub(crate) struct Coroutines {
    /// The file that makes it a program with coroutines.
    pub(crate) switcher: Option<String>,
    /// Where each of its coroutines returns to in the end; empty if that is not known.
    pub(crate) ends: Vec<u64>,
    /// That it has more memory than is searched for them, if it has.
    pub(crate) too_large: Option<String>,
}

impl Process {
    /// Whether this is a program with coroutines.
    pub(crate) fn find_coroutines(&self) -> Result<Coroutines, TargetError> {
        let (switch, switcher) = self.switches_stacks()?;
        let ends = match switch {
            Switch::Contexts => self.ends_of_contexts().unwrap_or_default(),
            Switch::No | Switch::Other => Vec::new(),
        };
        Ok(Coroutines {
            too_large: switcher.as_ref().and_then(|_| self.is_too_large()),
            switcher,
            ends,
        })
    }

    /// True if what stands before `at` may be a call. Behind a function's end another one may begin.
    fn is_behind_a_call(&self, at: u64) -> bool {
        const LONGEST: usize = 7;
        let bytes = self
            .memory
            .read_some(LiveAddr(at.wrapping_sub(LONGEST as u64)), LONGEST);
        may_end_in_a_call(&bytes)
    }

    /// That it has more memory of its own than is searched while its threads stand, as far as the
    /// kernel has counted it.
    fn is_too_large(&self) -> Option<String> {
        let status = Status::of_thread(self.pid, self.pid);
        let kb = |name| -> Option<u64> { status.field(name)?.split(' ').next()?.parse().ok() };
        let own = ["RssAnon:", "RssShmem:"].into_iter().filter_map(kb);
        let most = self.search.unwrap_or(MEMORY);
        (own.sum::<u64>() > most >> 10).then(|| too_large(most))
    }

    /// A place that may be a way back into one of `ranges` on a stack on which none of `threads`
    /// runs, or why that is not known, while they all stand; `None` if there is none. Where it is
    /// known where coroutines end, `ends` of one must be in memory, too.
    pub(crate) fn find_suspended(
        &self,
        threads: &[Live],
        ranges: &[(String, Range<LiveAddr>)],
        ends: &[u64],
    ) -> Result<Option<(Option<String>, String)>, TargetError> {
        self.forget_maps();
        let writable = |map: &MemoryMap| {
            let open = MMPermissions::READ | MMPermissions::WRITE;
            map.perms.contains(open)
        };
        let maps = self.maps()?;
        let (mut found, mut ended) = (None, ends.is_empty());
        // Nearly every word is outside of all of them.
        let lowest = ranges.iter().map(|(_, range)| range.start.0).min();
        let highest = ranges.iter().map(|(_, range)| range.end.0).max();
        let (Some(lowest), Some(highest)) = (lowest, highest) else {
            return Ok(None);
        };
        let most = self.search.unwrap_or(MEMORY);
        let text = self.look_through(most, &writable, &mut |from, to| {
            let size = usize::try_from(to - from).unwrap_or(0);
            let bytes = self.memory.read_some(LiveAddr(from), size);
            if bytes.len() < size {
                return Ok(Some(format!("the memory at {from:#x} cannot be read")));
            }
            // Branches only where there is anything: all threads stand meanwhile.
            let blocks = bytes.chunks(BLOCK).zip((from..).step_by(BLOCK));
            let blocks = blocks.filter(|(block, _)| {
                words(block).fold(false, |any, word| {
                    let inside = word.wrapping_sub(lowest) <= highest - lowest;
                    ends.iter()
                        .fold(any | inside, |any, end| any | (word == *end))
                })
            });
            for (word, at) in blocks.flat_map(|(block, at)| words(block).zip((at..).step_by(8))) {
                ended |= ends.contains(&word);
                if (lowest..=highest).contains(&word)
                    && found.is_none()
                    && let Some((name, range)) =
                        ranges.iter().find(|(_, range)| returns_to(range, word))
                    && (word < range.end.0 || self.is_behind_a_call(word))
                    && !is_left_over(&maps, threads, at)
                {
                    found = Some((name.clone(), at));
                }
                if ended && let Some((_, at)) = &found {
                    return Ok(Some(format!(
                        "the memory at {at:#x} may be its way back there"
                    )));
                }
            }
            Ok(None)
        })?;
        Ok(text.map(|text| (found.map(|(inside, _)| inside), text)))
    }
}

fn words(bytes: &[u8]) -> impl Iterator<Item = u64> {
    let (words, _) = bytes.as_chunks();
    words.iter().map(|word| u64::from_le_bytes(*word))
}

/// True if a call in `range` may return to `at`. The first byte is where it begins, to which
/// tables of functions lead; a call that never returns may be the last instruction.
fn returns_to(range: &Range<LiveAddr>, at: u64) -> bool {
    range.start.0 < at && at <= range.end.0
}

/// True if `call` with a distance, or through a register or a place in memory, may be the last of
/// these seven bytes' instructions.
fn may_end_in_a_call(bytes: &[u8]) -> bool {
    let [.., _, _, _, _, _] = bytes else {
        return true;
    };
    let through = |before: usize| {
        let at = bytes.len().checked_sub(before);
        at.and_then(|at| bytes.get(at..at + 2))
            .is_some_and(|code| code[0] == 0xff && code[1] >> 3 & 7 == 2)
    };
    bytes[bytes.len() - 5] == 0xe8 || [2, 3, 4, 6, 7].into_iter().any(through)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_way_back_is_behind_a_call() {
        let range = LiveAddr(0x100)..LiveAddr(0x200);
        let answers = [0xff, 0x100, 0x101, 0x200, 0x201].map(|at| returns_to(&range, at));
        assert_eq!(answers, [false, false, true, true, false]);
    }

    #[test]
    fn a_call_may_be_what_ends_a_function() {
        let ends = |bytes: &[u8]| may_end_in_a_call(bytes);
        assert!(
            ends(&[0x90, 0x90, 0xe8, 1, 2, 3, 4])
                && ends(&[0x90, 0x90, 0x90, 0x90, 0x90, 0xff, 0xd0])
        );
        assert!(ends(&[0x90, 0xff, 0x15, 1, 2, 3, 4]) && ends(&[0xff, 0x94, 0x24, 1, 2, 3, 4]));
        assert!(!ends(&[0x90, 0x90, 0x90, 0x90, 0x90, 0x90, 0xc3]));
        // What cannot be read may be anything.
        assert!(ends(&[]));
    }
}
