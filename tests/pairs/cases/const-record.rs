//# refuse R-CONST const_record::report::SITE
//# lines 3
//# near accept
//# near lines 3
//# near hot const_record::said

// A record of a log call, as `tracing` has them: live data point to it. Lines above move its
// line, also in its name, and that is no change. Its level moves by as much, and is one.
use std::sync::atomic::{AtomicPtr, AtomicU32, Ordering};

pub struct Record {
    name: &'static str,
    level: u32,
    line: Option<u32>,
    file: Option<&'static str>,
}

static SAID: AtomicU32 = AtomicU32::new(0);

#[inline(never)]
fn said(last: &AtomicPtr<Record>) -> u32 {
    // SAFETY: it points to a static that nobody writes.
    let record = unsafe { &*last.load(Ordering::Relaxed) };
    let line = record.line.unwrap_or(0) + record.file.map_or(0, |file| file.len() as u32);
    println!("{} {}", record.name, record.level);
    SAID.fetch_add(if cfg!(near) { line * 5 } else { line }, Ordering::Relaxed)
}

#[inline(never)]
fn report(x: u32) -> u32 {
    static SITE: Record = Record {
        name: concat!("event ", file!(), ":", line!()),
        level: if cfg!(fixed) { 6 } else { 3 },
        line: Some(line!()),
        file: Some(file!()),
    };
    static LAST: AtomicPtr<Record> = AtomicPtr::new(&raw const SITE as *mut Record);
    x + said(std::hint::black_box(&LAST))
}

fn main() {
    println!("{}", report(std::env::args().count() as u32));
}
