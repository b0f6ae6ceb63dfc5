//# note R-STATIC static_atomic::answer::ATTEMPTS
//# accept
//# near accept

// A new atomic in a function.
use std::sync::atomic::{AtomicU32, Ordering};

#[cfg(fixed)]
#[inline(never)]
fn answer(x: u32) -> u32 {
    static ATTEMPTS: AtomicU32 = AtomicU32::new(5);
    if ATTEMPTS.fetch_add(1, Ordering::Relaxed) < 7 { x } else { 0 }
}
#[cfg(not(fixed))]
#[inline(never)]
fn answer(x: u32) -> u32 {
    if cfg!(near) { x ^ 3 } else { x ^ 2 }
}

fn main() {
    println!("{}", answer(std::env::args().count() as u32));
}
