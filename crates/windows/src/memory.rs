//! Memory of the target.

use std::ffi::c_void;
use std::mem::size_of;
use std::ops::Range;
use std::ptr::null;

use invivo_apply::{TargetError, places_near};
use invivo_image::LiveAddr;
use windows_sys::Win32::System::Diagnostics::Debug::{
    FlushInstructionCache, ReadProcessMemory, WriteProcessMemory,
};
use windows_sys::Win32::System::Memory::{
    MEM_COMMIT, MEM_FREE, MEM_PRIVATE, MEM_RELEASE, MEM_RESERVE, MEMORY_BASIC_INFORMATION,
    PAGE_EXECUTE, PAGE_EXECUTE_READ, PAGE_EXECUTE_READWRITE, PAGE_EXECUTE_WRITECOPY, PAGE_GUARD,
    PAGE_NOACCESS, PAGE_PROTECTION_FLAGS, PAGE_READWRITE, PAGE_WRITECOPY, VirtualAllocEx,
    VirtualFreeEx, VirtualProtectEx, VirtualQueryEx,
};

use crate::error::{last, memory};
use crate::handle::Handle;

/// Bytes of a page.
pub(crate) const PAGE: u64 = 0x1000;

/// The first address behind what a process can use.
const TOP: u64 = 0x7fff_ffff_0000;

/// Part of the address space.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Piece {
    pub(crate) start: u64,
    pub(crate) end: u64,
    pub(crate) free: bool,
    pub(crate) committed: bool,
    /// True if it shows no file.
    pub(crate) private: bool,
    /// Where the memory begins that was reserved with it.
    pub(crate) reserved_at: u64,
    pub(crate) protection: PAGE_PROTECTION_FLAGS,
}

impl Piece {
    pub(crate) fn is_executable(&self) -> bool {
        const EXECUTABLE: u32 =
            PAGE_EXECUTE | PAGE_EXECUTE_READ | PAGE_EXECUTE_READWRITE | PAGE_EXECUTE_WRITECOPY;
        self.committed && self.protection & EXECUTABLE != 0
    }

    pub(crate) fn is_writable(&self) -> bool {
        const WRITABLE: u32 =
            PAGE_READWRITE | PAGE_WRITECOPY | PAGE_EXECUTE_READWRITE | PAGE_EXECUTE_WRITECOPY;
        self.committed && self.protection & WRITABLE != 0
    }

    pub(crate) fn is_readable(&self) -> bool {
        let closed = PAGE_GUARD | PAGE_NOACCESS | PAGE_EXECUTE;
        self.committed && self.protection & closed == 0
    }
}

fn pointer(at: u64) -> *const c_void {
    at as *const c_void
}

/// What is at an address, up to where it changes.
pub(crate) fn piece(process: &Handle, at: u64) -> Option<Piece> {
    let mut info = MEMORY_BASIC_INFORMATION::default();
    let size = size_of::<MEMORY_BASIC_INFORMATION>();
    // SAFETY: the structure is as large as is said.
    let known = unsafe { VirtualQueryEx(process.get(), pointer(at), &raw mut info, size) };
    if known == 0 {
        return None;
    }
    let start = info.BaseAddress as u64;
    Some(Piece {
        start,
        end: start.saturating_add(info.RegionSize as u64),
        free: info.State == MEM_FREE,
        committed: info.State == MEM_COMMIT,
        private: info.Type == MEM_PRIVATE,
        reserved_at: info.AllocationBase as u64,
        protection: info.Protect,
    })
}

/// The whole address space.
pub(crate) fn pieces(process: &Handle) -> impl Iterator<Item = Piece> + '_ {
    pieces_without(process, Vec::new())
}

/// The whole address space without some ranges, in order of place. Each question costs a turn of the
/// target where Windows is not the kernel's own, and images are cut in many pieces.
pub(crate) fn pieces_without(
    process: &Handle,
    without: Vec<Range<LiveAddr>>,
) -> impl Iterator<Item = Piece> + '_ {
    let (mut next, mut without) = (0, without.into_iter().peekable());
    std::iter::from_fn(move || {
        while let Some(range) = without.next_if(|range| range.start.0 <= next) {
            next = next.max(range.end.0);
        }
        let piece = (next < TOP).then(|| piece(process, next)).flatten()?;
        // It always goes on.
        next = piece.end.max(next + PAGE);
        Some(piece)
    })
}

pub(crate) fn read(process: &Handle, at: LiveAddr, bytes: &mut [u8]) -> Result<(), TargetError> {
    let (into, size) = (bytes.as_mut_ptr().cast(), bytes.len());
    let mut done = 0;
    // SAFETY: as many bytes are filled as there are.
    let ok = unsafe { ReadProcessMemory(process.get(), pointer(at.0), into, size, &raw mut done) };
    if ok == 0 || done != size {
        return Err(memory("read", at, size));
    }
    Ok(())
}

/// Lets `during` write to pages, whatever may be done with them; it may be done again afterwards.
pub(crate) fn opened<R>(
    process: &Handle,
    range: Range<LiveAddr>,
    during: impl FnOnce() -> Result<R, TargetError>,
) -> Result<R, TargetError> {
    let mut closed = Vec::new();
    let mut next = range.start.0 & !(PAGE - 1);
    let mut result = Ok(());
    while next < range.end.0 {
        let size = usize::try_from(range.end.0 - range.start.0).unwrap_or(usize::MAX);
        let Some(piece) = piece(process, next).filter(|piece| piece.committed) else {
            result = Err(memory("write", range.start, size));
            break;
        };
        let end = piece.end.min((range.end.0 + PAGE - 1) & !(PAGE - 1));
        if !piece.is_writable() {
            let open = if piece.is_executable() {
                PAGE_EXECUTE_READWRITE
            } else {
                PAGE_READWRITE
            };
            match set(process, next..end, open) {
                Ok(before) => closed.push((next..end, before)),
                Err(error) => {
                    result = Err(error);
                    break;
                }
            }
        }
        next = end;
    }
    let result = result.and_then(|()| during());
    if let Err(TargetError::Unfinished(_)) = result {
        // Whoever comes late writes there.
        return result;
    }
    for (range, before) in closed {
        set(process, range, before)?;
    }
    result
}

/// Changes what may be done with pages; returns what could be done before.
pub(crate) fn set(
    process: &Handle,
    range: Range<u64>,
    protection: PAGE_PROTECTION_FLAGS,
) -> Result<PAGE_PROTECTION_FLAGS, TargetError> {
    let mut before = 0;
    let size = (range.end - range.start) as usize;
    let at = pointer(range.start);
    // SAFETY: it concerns the target's memory, not ours.
    let ok = unsafe { VirtualProtectEx(process.get(), at, size, protection, &raw mut before) };
    if ok == 0 {
        return Err(last("change the protection of memory"));
    }
    Ok(before)
}

pub(crate) fn write(process: &Handle, at: LiveAddr, bytes: &[u8]) -> Result<(), TargetError> {
    let end = at.checked_add(bytes.len() as u64);
    let end = end.ok_or_else(|| memory("write", at, bytes.len()))?;
    opened(process, at..end, || put(process, at, bytes))
}

fn put(process: &Handle, at: LiveAddr, bytes: &[u8]) -> Result<(), TargetError> {
    let (from, size) = (bytes.as_ptr().cast(), bytes.len());
    let mut done = 0;
    // SAFETY: as many bytes are read as there are; what is written is the target's memory.
    let ok = unsafe {
        let ok = WriteProcessMemory(process.get(), pointer(at.0), from, size, &raw mut done);
        FlushInstructionCache(process.get(), pointer(at.0), size);
        ok
    };
    if ok == 0 || done != size {
        return Err(memory("write", at, size));
    }
    Ok(())
}

/// Makes memory that may be read and written: where it is wanted, or anywhere (`None`).
pub(crate) fn make(process: &Handle, at: Option<u64>, size: u64) -> Option<LiveAddr> {
    let place = at.map_or(null(), pointer);
    let (size, kind) = (usize::try_from(size).ok()?, MEM_RESERVE | MEM_COMMIT);
    // SAFETY: it makes memory in the target, where there is none.
    let made = unsafe { VirtualAllocEx(process.get(), place, size, kind, PAGE_READWRITE) };
    (!made.is_null()).then_some(LiveAddr(made as u64))
}

pub(crate) fn free(process: &Handle, at: LiveAddr) -> Result<(), TargetError> {
    // SAFETY: it concerns memory of the target that was made for it by `make`.
    let ok = unsafe { VirtualFreeEx(process.get(), pointer(at.0).cast_mut(), 0, MEM_RELEASE) };
    if ok == 0 {
        return Err(last("give memory back"));
    }
    Ok(())
}

/// Makes memory so near to `image` that jumps of 32 bits lead from all of one to all of the other.
pub(crate) fn near(
    process: &Handle,
    image: &Range<LiveAddr>,
    size: u64,
) -> Result<LiveAddr, TargetError> {
    let free = pieces(process).filter(|piece| piece.free);
    let free = free.map(|piece| piece.start..piece.end);
    let places = places_near(free, image, size);
    let made = places
        .into_iter()
        .find_map(|place| make(process, Some(place), size));
    made.ok_or_else(|| TargetError::NotNow(format!("no memory is free near {}", image.start)))
}
