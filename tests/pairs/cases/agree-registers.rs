//# accept
//# unhooked put
//# near accept
//# near hooked tell
// The base never looks at the length of the slice, so that its callers do not pass it, and the index is where the length
// would be. The fix looks at it: a frame inside the old `serve` must go on with the old `put`.
use std::hint::black_box;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

static BAD: AtomicU32 = AtomicU32::new(0);

#[inline(never)]
fn put(buffer: &mut [u8], at: usize, value: u8) {
    #[cfg(not(fixed))]
    unsafe {
        *buffer.get_unchecked_mut(at) = value
    }
    #[cfg(fixed)]
    if at < buffer.len() {
        buffer[at] = value
    } else {
        BAD.fetch_add(1, Relaxed);
    }
}

#[inline(never)]
fn tell(buffer: &[u8], at: usize) {
    let shown = if cfg!(near) { at + 1 } else { at };
    println!("{shown}: {buffer:?} {}", BAD.load(Relaxed));
}

#[inline(never)]
fn serve(one: &mut [u8], other: &mut [u8]) {
    for n in 0..black_box(9) {
        put(one, black_box(n & 7), 1);
        put(other, black_box(n & 3), if cfg!(near) { 3 } else { 2 });
        tell(one, n);
    }
}

fn main() {
    let (mut one, mut other) = (vec![0u8; black_box(8)], vec![0u8; black_box(4)]);
    serve(&mut one, &mut other)
}
