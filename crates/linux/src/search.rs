//! All memory and registers of a process that stands are searched for addresses.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use invivo_apply::{TargetError, address_in};
use invivo_image::LiveAddr;
use procfs::process::MemoryMap;

use crate::Process;
use crate::error::system;
use crate::ptrace::Standing;

const PAGE: u64 = 0x1000;
/// Bytes of address space, and of memory if nothing else was said, that are searched at most:
/// threads stand meanwhile.
const SPACE: u64 = 64 << 30;
const MEMORY: u64 = 256 << 20;
/// Bytes that are read at a time.
const PIECE: u64 = 1 << 20;
/// A page that is in memory, or was moved out of it (`Documentation/admin-guide/mm/pagemap.rst`).
const THERE: u64 = 3 << 62;

/// That it has more memory than the bytes that may be searched.
pub(crate) fn too_large(most: u64) -> String {
    let mib = most >> 20;
    format!("it has more memory than is searched, {mib} MiB; allow more with --search MIB")
}

impl Process {
    /// A place that holds an address in `range`, or why that is not known, while `threads`, which
    /// are all, stand. What lies in `range` itself is left out.
    pub(crate) fn find_address(
        &self,
        threads: &[Standing],
        range: &Range<LiveAddr>,
    ) -> Result<Option<String>, TargetError> {
        for thread in threads {
            let (r, tid) = (thread.registers()?, thread.tid());
            let words = [
                r.rax, r.rbx, r.rcx, r.rdx, r.rsi, r.rdi, r.rbp, r.rsp, r.r8, r.r9, r.r10, r.r11,
                r.r12, r.r13, r.r14, r.r15, r.rip, r.fs_base, r.gs_base,
            ];
            let mut bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
            bytes.extend(thread.extended_state()?);
            if address_in(&bytes, range).is_some() {
                return Ok(Some(format!(
                    "a register of thread {tid} holds an address of it"
                )));
            }
        }
        // As they are now, while nobody changes them.
        self.forget_maps();
        let most = self.search.unwrap_or(MEMORY);
        self.look_through(most, &|_| true, &mut |from, to| {
            // What lies in the range itself is left out.
            for (from, to) in [(from, to.min(range.start.0)), (from.max(range.end.0), to)] {
                if from < to
                    && let Some(found) = self.search_pages(from, to, range)?
                {
                    return Ok(Some(found));
                }
            }
            Ok(None)
        })
    }

    /// What `look` first finds in the pages of mappings that are `wanted` and hold anything, or
    /// why that is not known. `most` are bytes of memory.
    pub(crate) fn look_through(
        &self,
        most: u64,
        wanted: &dyn Fn(&MemoryMap) -> bool,
        look: &mut dyn FnMut(u64, u64) -> Result<Option<String>, TargetError>,
    ) -> Result<Option<String>, TargetError> {
        let file = format!("/proc/{}/pagemap", self.first);
        let file = File::open(&file).map_err(|error| system(format!("open {file}"), error))?;
        let (mut space, mut memory) = (0, 0);
        for map in self.maps()?.iter().filter(|map| wanted(map)) {
            let (start, end) = map.address;
            // Pages of the kernel's own, above the addresses of programs.
            if start >= 1 << 47 {
                continue;
            }
            space += end - start;
            if space > SPACE {
                return Ok(Some(
                    "it has more address space than is searched".to_owned(),
                ));
            }
            for from in (start..end).step_by(usize::try_from(PIECE).unwrap_or(usize::MAX)) {
                let to = end.min(from + PIECE);
                for (from, to) in pages(&file, from, to)? {
                    memory += to - from;
                    if memory > most {
                        return Ok(Some(too_large(most)));
                    }
                    if let Some(found) = look(from, to)? {
                        return Ok(Some(found));
                    }
                }
            }
        }
        Ok(None)
    }

    fn search_pages(
        &self,
        from: u64,
        to: u64,
        range: &Range<LiveAddr>,
    ) -> Result<Option<String>, TargetError> {
        // An address may go on behind the border.
        let size = usize::try_from(to - from + 7).unwrap_or(0);
        let bytes = self.memory.read_some(LiveAddr(from), size);
        // Memory of a file that became shorter cannot be read, and who tries it is ended.
        if (bytes.len() as u64) < to - from {
            return Ok(Some(format!("the memory at {from:#x} cannot be read")));
        }
        Ok(address_in(&bytes, range).map(|at| {
            let place = LiveAddr(from + at as u64);
            format!("the memory at {place} holds an address of it")
        }))
    }
}

/// The pages between `from` and `to` that hold anything, joined.
fn pages(pagemap: &File, from: u64, to: u64) -> Result<Vec<(u64, u64)>, TargetError> {
    let count = usize::try_from((to - from) / PAGE).unwrap_or(0);
    let mut bytes = vec![0; count * 8];
    pagemap
        .read_exact_at(&mut bytes, from / PAGE * 8)
        .map_err(|error| system("see which memory is in use", error))?;
    let mut found: Vec<(u64, u64)> = Vec::new();
    for (entry, at) in bytes.chunks_exact(8).zip((from..to).step_by(4096)) {
        let entry = u64::from_le_bytes(entry.try_into().expect("eight bytes"));
        if entry & THERE == 0 {
            continue;
        }
        match found.last_mut() {
            Some(last) if last.1 == at => last.1 = at + PAGE,
            _ => found.push((at, at + PAGE)),
        }
    }
    Ok(found)
}
