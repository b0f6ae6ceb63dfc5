//! Pieces of the target's own code with which it makes system calls for us.

use invivo_apply::TargetError;
use invivo_image::LiveAddr;
use memchr::memmem;
use procfs::process::{MMPermissions, MMapPath};

use crate::Process;

/// Pieces of the target's own code that are run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Gadgets {
    /// `syscall; ret`.
    pub(crate) syscall: u64,
    /// How a thread comes to call `rt_sigreturn`.
    pub(crate) way_back: WayBack,
}

/// Code that leads a thread to `rt_sigreturn`.
#[derive(Clone, Copy, Debug)]
pub(crate) enum WayBack {
    /// libc's own return from signal handlers: where it is, and the first byte behind it.
    Restorer(u64, u64),
    /// `pop rax; ret`, in a program without handlers that has none; then `syscall`.
    PopRax(u64),
}

impl Gadgets {
    /// What stands right before the state of a thread that is on its way.
    pub(crate) fn way_back(&self) -> u64 {
        match self.way_back {
            WayBack::Restorer(at, _) => at,
            WayBack::PopRax(_) => self.syscall,
        }
    }

    /// The first byte behind the instruction that calls `rt_sigreturn`.
    pub(crate) fn behind_the_return(&self) -> u64 {
        match self.way_back {
            WayBack::Restorer(_, end) => end,
            WayBack::PopRax(_) => self.behind_a_call(),
        }
    }

    /// The first byte behind the instruction that makes a call.
    pub(crate) fn behind_a_call(&self) -> u64 {
        self.syscall + 2
    }
}

impl Process {
    /// Finds the code to run, once; the target's libc has it, or the program itself.
    pub(crate) fn gadgets(&self) -> Result<Gadgets, TargetError> {
        let found = match self.gadgets.get() {
            Some(found) => *found,
            None => {
                let found = self.find_gadgets()?;
                *self.gadgets.get_or_init(|| found)
            }
        };
        found.ok_or_else(|| {
            TargetError::Unsupported(format!(
                "process {} has no code with which a system call could be made",
                self.pid
            ))
        })
    }

    fn find_gadgets(&self) -> Result<Option<Gadgets>, TargetError> {
        const SYSCALL_RET: &[u8] = &[0x0f, 0x05, 0xc3];
        // mov rax, 15; syscall — and the form with eax.
        const RESTORER: [&[u8]; 2] = [
            &[0x48, 0xc7, 0xc0, 15, 0, 0, 0, 0x0f, 0x05],
            &[0xb8, 15, 0, 0, 0, 0x0f, 0x05],
        ];
        const POP_RAX_RET: &[u8] = &[0x58, 0xc3];
        let (mut syscall, mut restorer, mut pop) = (None, None, None);
        let mut maps = self.maps()?;
        // libc first: it has both, and it is small.
        maps.sort_by_key(|map| match &map.pathname {
            MMapPath::Path(path) => !path.to_string_lossy().contains("libc"),
            _ => true,
        });
        for map in maps {
            let text = map
                .perms
                .contains(MMPermissions::READ | MMPermissions::EXECUTE);
            if !text || !matches!(map.pathname, MMapPath::Path(_)) {
                continue;
            }
            for (start, size) in pieces(map.address) {
                let bytes = self.memory.read_some(LiveAddr(start), size);
                let find = |code: &[u8]| memmem::find(&bytes, code).map(|at| start + at as u64);
                syscall = syscall.or_else(|| find(SYSCALL_RET));
                let restorers = || RESTORER.into_iter();
                restorer = restorer.or_else(|| {
                    restorers().find_map(|code| find(code).map(|at| (at, at + code.len() as u64)))
                });
                pop = pop.or_else(|| find(POP_RAX_RET));
                if let (Some(syscall), Some((restorer, end))) = (syscall, restorer) {
                    return Ok(Some(Gadgets {
                        syscall,
                        way_back: WayBack::Restorer(restorer, end),
                    }));
                }
            }
        }
        let way_back = restorer
            .map(|(at, end)| WayBack::Restorer(at, end))
            .or(pop.map(WayBack::PopRax));
        Ok(syscall
            .zip(way_back)
            .map(|(syscall, way_back)| Gadgets { syscall, way_back }))
    }
}

/// Where pieces of text start, and how many bytes each has. What is looked for lies near
/// the start of a libc, so that most of it need not be read; each piece goes on a little
/// into the next one, or what lies across their border would be missed.
fn pieces((start, end): (u64, u64)) -> impl Iterator<Item = (u64, usize)> {
    const PIECE: usize = 64 << 10;
    const LONGEST: u64 = 16;
    const LARGEST: u64 = 64 << 20;
    let end = end.min(start.saturating_add(LARGEST));
    (start..end).step_by(PIECE).map(move |from| {
        let left = end - from;
        let size = left.min(PIECE as u64 + LONGEST);
        (from, usize::try_from(size).unwrap_or(0))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_leave_nothing_out_and_overlap() {
        let (start, end) = (0x1000, 0x1000 + (64 << 10) * 2 + 5);
        let all: Vec<(u64, u64)> = pieces((start, end))
            .map(|(from, size)| (from, from + size as u64))
            .collect();
        assert_eq!((all[0].0, all[2].1, all.len()), (start, end, 3));
        // The longest code has 9 bytes: at each border it lies whole in one piece.
        assert!(
            all.windows(2)
                .all(|pair| pair[0].1 >= pair[1].0 + 5 && pair[1].0 > pair[0].0)
        );
        assert!(all[0].1 >= all[1].0 + 9);
    }
}
