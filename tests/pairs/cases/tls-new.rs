//# refuse R-TLS tls_new::DEPTH::{{constant}}::{{closure}}::__RUST_STD_INTERNAL_VAL
//# refuse R-TLS tls_new::LEVEL::{{constant}}::{{closure}}::__RUST_STD_INTERNAL_VAL
//# near accept

// A new thread_local!.
use std::cell::Cell;

thread_local! {
    static LEVEL: Cell<u32> = const { Cell::new(0) };
}
#[cfg(fixed)]
thread_local! {
    static DEPTH: Cell<u32> = const { Cell::new(0) };
}

#[inline(never)]
fn enter(by: u32) -> u32 {
    #[cfg(fixed)]
    DEPTH.set(DEPTH.get() + 1);
    #[cfg(near)]
    let by = by / 2;
    LEVEL.set(LEVEL.get() + by);
    LEVEL.get()
}

fn main() {
    println!("{}", enter(std::env::args().count() as u32));
}
