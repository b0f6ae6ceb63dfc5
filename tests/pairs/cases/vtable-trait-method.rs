//# refuse R-VTABLE <vtable_trait_method::Plain as vtable_trait_method::Filter>
//# refuse R-VTABLE <vtable_trait_method::Other as vtable_trait_method::Filter>
//# near accept

// A method of a trait gave way to another one: new code calls it where live objects have the old one. Near: a method changed.
use std::hint::black_box;

trait Filter {
    #[cfg(not(fixed))]
    fn check(&self, text: &str) -> bool;
    #[cfg(fixed)]
    fn admit(&self, text: &str, most: usize) -> bool;
}

struct Plain(u64);

impl Filter for Plain {
    #[cfg(not(fixed))]
    #[inline(never)]
    fn check(&self, text: &str) -> bool {
        text.len() as u64 > self.0 + if cfg!(near) { 1 } else { 0 }
    }
    #[cfg(fixed)]
    #[inline(never)]
    fn admit(&self, text: &str, most: usize) -> bool {
        text.len() as u64 > self.0 && text.len() <= most
    }
}

struct Other(u64, u64);

impl Filter for Other {
    #[cfg(not(fixed))]
    #[inline(never)]
    fn check(&self, text: &str) -> bool {
        text.len() as u64 + self.1 > self.0
    }
    #[cfg(fixed)]
    #[inline(never)]
    fn admit(&self, text: &str, most: usize) -> bool {
        text.len() as u64 + self.1 > self.0 && text.len() <= most
    }
}

#[inline(never)]
fn make(number: u64) -> Box<dyn Filter> {
    if number > 3 { Box::new(Plain(number)) } else { Box::new(Other(number, 1)) }
}

#[inline(never)]
fn ask(filter: &dyn Filter, text: &str) -> bool {
    #[cfg(not(fixed))]
    return filter.check(text);
    #[cfg(fixed)]
    filter.admit(text, 8)
}

fn main() {
    let filter = make(black_box(std::env::args().count() as u64));
    println!("{}", ask(&*filter, black_box("0123456789")));
}
