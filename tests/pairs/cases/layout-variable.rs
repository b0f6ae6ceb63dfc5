//# refuse R-LAYOUT layout_variable::LIVE
//# near accept

// A static holds elements of another type: its own layout, and that of all that it is made of, is the same.
use std::sync::Mutex;

#[derive(Default)]
pub struct First(u64, u64);
#[derive(Default)]
pub struct Second(u64, f64);

#[cfg(fixed)]
type Element = Second;
#[cfg(not(fixed))]
type Element = First;

static LIVE: Mutex<Vec<Element>> = Mutex::new(Vec::new());

#[inline(never)]
fn add(x: u64) -> u64 {
    let mut live = LIVE.lock().unwrap();
    let sum: u64 = live.iter().map(|one| one.0 as u64 + one.1 as u64).sum();
    live.push(Element::default());
    sum + x * if cfg!(near) { 3 } else { 2 }
}

fn main() {
    println!("{}", add(std::env::args().count() as u64));
}
