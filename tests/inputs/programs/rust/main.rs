//#changes program::describe|program::limit|<program::Round as program::Form>::size
//!
//! Rust: traits, closures, panics, formatting, matches with tables, thread-locals.

use std::cell::Cell;
use std::collections::BTreeMap;

thread_local! {
    static SEEN: Cell<u32> = const { Cell::new(3) };
}

trait Form {
    fn size(&self) -> u64;
    fn name(&self) -> &'static str;
}

struct Flat(u64);
struct Round(u64);

impl Form for Flat {
    #[inline(never)]
    fn size(&self) -> u64 {
        self.0 * self.0
    }
    #[inline(never)]
    fn name(&self) -> &'static str {
        "flat"
    }
}

impl Form for Round {
    #[inline(never)]
    fn size(&self) -> u64 {
        if cfg!(fixed) { self.0.saturating_mul(3) } else { self.0.wrapping_mul(3) }
    }
    #[inline(never)]
    fn name(&self) -> &'static str {
        "round"
    }
}

#[inline(never)]
fn describe(form: &dyn Form, count: u32) -> String {
    if cfg!(fixed) {
        format!("{} of size {} ({count})", form.name(), form.size())
    } else {
        format!("{} has size {} ({count})", form.name(), form.size())
    }
}

#[inline(never)]
fn limit(words: &[u64], at: usize) -> u64 {
    if cfg!(fixed) { words.get(at).copied().unwrap_or(0) } else { words[at] }
}

#[inline(never)]
fn choose(what: u32, x: u64) -> u64 {
    match what {
        0 => x.count_ones().into(),
        1 => x * 7,
        2 => x.rotate_left(5),
        3 => u64::from(SEEN.with(|seen| seen.replace(seen.get() + 1))),
        4 => x / 3,
        5 => x.pow(2),
        6 => x ^ 0x1234,
        _ => panic!("no choice {what}"),
    }
}

#[inline(never)]
fn count(texts: &[String]) -> BTreeMap<&str, usize> {
    let mut counts = BTreeMap::new();
    for text in texts {
        *counts.entry(text.as_str()).or_default() += 1;
    }
    counts
}

fn main() {
    let number = std::env::args().count();
    let forms: [Box<dyn Form>; 2] = [Box::new(Flat(number as u64)), Box::new(Round(9))];
    let texts: Vec<String> = forms.iter().map(|form| describe(form.as_ref(), 5)).collect();
    let words: Vec<u64> = (0..8).map(|n| choose(n as u32 % 7, number as u64)).collect();
    println!("{:?} {}", count(&texts), limit(&words, number));
}
