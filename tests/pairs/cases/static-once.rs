//# note R-STATIC static_once::answer::CELL
//# accept
//# near accept

// A new OnceLock, which is filled at its first use.
use std::sync::OnceLock;

static TABLE: OnceLock<u32> = OnceLock::new();

#[inline(never)]
fn answer(x: u32) -> u32 {
    let sum = *TABLE.get_or_init(|| 3) + x;
    #[cfg(fixed)]
    {
        static CELL: OnceLock<u32> = OnceLock::new();
        return sum * *CELL.get_or_init(|| 5);
    }
    #[cfg(not(fixed))]
    {
        sum * if cfg!(near) { 7 } else { 1 }
    }
}

fn main() {
    println!("{}", answer(std::env::args().count() as u32));
}
