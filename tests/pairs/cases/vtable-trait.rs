//# refuse R-LAYOUT <vtable_trait::Flat as vtable_trait::Form>::{vtable_type}
//# near accept
//# near hot <vtable_trait::Flat as vtable_trait::Form>::size

// A trait got a method: tables of live objects do not have it.
trait Form {
    #[cfg(fixed)]
    fn depth(&self) -> u64;
    fn size(&self) -> u64;
}

struct Flat(u64);

impl Form for Flat {
    #[cfg(fixed)]
    #[inline(never)]
    fn depth(&self) -> u64 {
        self.0 + 3
    }
    #[inline(never)]
    fn size(&self) -> u64 {
        self.0 * if cfg!(near) { 5 } else { 7 }
    }
}

#[inline(never)]
fn describe(form: &dyn Form) -> u64 {
    #[cfg(fixed)]
    let more = form.depth();
    #[cfg(not(fixed))]
    let more = 1;
    form.size() + more
}

#[inline(never)]
fn make(number: u64) -> Box<dyn Form> {
    Box::new(Flat(number))
}

fn main() {
    let forms: Vec<_> = std::env::args().map(|a| make(a.len() as u64)).collect();
    println!("{}", forms.iter().map(|form| describe(form.as_ref())).sum::<u64>());
}
