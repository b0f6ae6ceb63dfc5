//# refuse R-ALLOC alloc_box::make
//# near accept

// A boxed array that grew.
#[cfg(fixed)]
const ROOM: usize = 96;
#[cfg(not(fixed))]
const ROOM: usize = 64;

#[inline(never)]
fn make(x: u8) -> Box<[u8]> {
    let mut made = vec![0u8; ROOM].into_boxed_slice();
    made[0] = if cfg!(near) { x + 1 } else { x };
    made
}

fn main() {
    println!("{}", make(std::env::args().count() as u8)[0]);
}
