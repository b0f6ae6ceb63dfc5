//# flags -Cdebuginfo=1
//# refuse R-LAYOUT add
//# near accept

// The debug data of debug=1 have functions and lines, and no types.
pub struct Session {
    #[cfg(fixed)]
    seen: u64,
    limit: u64,
}

#[inline(never)]
fn twice(x: u64) -> u64 {
    std::hint::black_box(x) * 2
}

#[inline(never)]
fn thrice(x: u64) -> u64 {
    std::hint::black_box(x) * 3
}

#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn add(session: *const Session, x: u64) -> u64 {
    let session = unsafe { &*session };
    let sum = session.limit + x;
    #[cfg(fixed)]
    let sum = sum + session.seen;
    if cfg!(near) { thrice(sum) + 1 } else { twice(sum) + 1 }
}

fn main() {
    let count = std::env::args().count() as u64;
    let live = std::hint::black_box(vec![count; 8]);
    println!("{}", add(live.as_ptr().cast(), count) + twice(count) + thrice(count));
}
