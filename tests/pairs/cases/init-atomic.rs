//# refuse R-INIT init_atomic::LIMIT
//# near accept

// An atomic that starts with another number.
use std::sync::atomic::{AtomicU32, Ordering};

#[cfg(fixed)]
static LIMIT: AtomicU32 = AtomicU32::new(10);
#[cfg(not(fixed))]
static LIMIT: AtomicU32 = AtomicU32::new(1000);

#[inline(never)]
fn check(size: u32) -> bool {
    #[cfg(near)]
    if size > 10 {
        return false;
    }
    size < LIMIT.fetch_add(1, Ordering::Relaxed)
}

fn main() {
    println!("{}", check(std::env::args().count() as u32));
}
