//# refuse R-VTABLE <vtable_trait_order::Plain as vtable_trait_order::Filter>
//# refuse R-VTABLE <vtable_trait_order::Other as vtable_trait_order::Filter>
//# near accept

// Two methods of a trait changed places: new code calls the one where live objects have the other. Near: a method changed.
use std::hint::black_box;

trait Filter {
    #[cfg(not(fixed))]
    fn size(&self) -> usize;
    fn name(&self) -> String;
    #[cfg(fixed)]
    fn size(&self) -> usize;
}

struct Plain(u64);

impl Filter for Plain {
    #[inline(never)]
    fn size(&self) -> usize {
        self.0 as usize + if cfg!(near) { 2 } else { 1 }
    }
    #[inline(never)]
    fn name(&self) -> String {
        format!("plain {}", self.0)
    }
}

struct Other(u64, u64);

impl Filter for Other {
    #[inline(never)]
    fn size(&self) -> usize {
        (self.0 * self.1) as usize
    }
    #[inline(never)]
    fn name(&self) -> String {
        format!("other {}", self.1)
    }
}

#[inline(never)]
fn make(number: u64) -> Box<dyn Filter> {
    if number > 3 { Box::new(Plain(number)) } else { Box::new(Other(number, 1)) }
}

#[inline(never)]
fn ask(filter: &dyn Filter) -> String {
    format!("{} {}", filter.name(), filter.size())
}

fn main() {
    let filter = make(black_box(std::env::args().count() as u64));
    println!("{}", ask(&*filter));
}
