//! Memory: given out one piece behind the other, and had back when no piece is in use.

use core::alloc::{GlobalAlloc, Layout};
use core::cell::UnsafeCell;
use core::ptr::null_mut;
use core::sync::atomic::{AtomicUsize, Ordering};

const SIZE: usize = 16 << 20;

#[repr(C, align(4096))]
struct Heap {
    memory: UnsafeCell<[u8; SIZE]>,
    used: AtomicUsize,
    pieces: AtomicUsize,
}

#[global_allocator]
static HEAP: Heap = Heap {
    memory: UnsafeCell::new([0; SIZE]),
    used: AtomicUsize::new(0),
    pieces: AtomicUsize::new(0),
};

// SAFETY: the kernel has one processor and no interrupts.
unsafe impl Sync for Heap {}

// SAFETY: pieces lie inside of the memory and do not overlap; they are given out anew only when
// all of them were given back.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let begin = self
            .used
            .load(Ordering::Relaxed)
            .next_multiple_of(layout.align());
        let Some(end) = begin.checked_add(layout.size()).filter(|&end| end <= SIZE) else {
            return null_mut();
        };
        self.used.store(end, Ordering::Relaxed);
        self.pieces.fetch_add(1, Ordering::Relaxed);
        // SAFETY: `begin` lies inside of the memory.
        unsafe { self.memory.get().cast::<u8>().add(begin) }
    }

    unsafe fn dealloc(&self, _piece: *mut u8, _layout: Layout) {
        if self.pieces.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.used.store(0, Ordering::Relaxed);
        }
    }
}
