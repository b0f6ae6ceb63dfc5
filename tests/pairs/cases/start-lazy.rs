//# refuse R-START core::ops::function::FnOnce::call_once
//# near accept

// A LazyLock is filled at its first use. Near: what is done with it changed.
use std::sync::LazyLock;

static LIMIT: LazyLock<String> = LazyLock::new(|| {
    let words = std::env::args().count();
    format!("{} of {words}", if cfg!(fixed) { 50 } else { 100 })
});

#[inline(never)]
fn answer(x: usize) -> usize {
    LIMIT.len() * if cfg!(near) { 7 } else { 5 } + x
}

fn main() {
    println!("{}", answer(std::env::args().count()));
}
