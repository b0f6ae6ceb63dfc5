//# refuse R-SIZE size_array::SEEN
//# near accept

// An array of atomics that grew.
use std::sync::atomic::{AtomicU32, Ordering};

#[cfg(fixed)]
const ROOM: usize = 8;
#[cfg(not(fixed))]
const ROOM: usize = 4;
static SEEN: [AtomicU32; ROOM] = [const { AtomicU32::new(0) }; ROOM];

#[inline(never)]
fn note(index: usize) -> u32 {
    #[cfg(near)]
    let index = index / 2;
    SEEN[index % ROOM].fetch_add(1, Ordering::Relaxed)
}

fn main() {
    println!("{}", note(std::env::args().count()));
}
