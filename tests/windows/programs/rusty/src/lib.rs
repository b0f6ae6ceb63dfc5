//! The service of `programs/service`, in Rust: statics of modules, tables of trait objects, texts.
#![no_std]
#![allow(unexpected_cfgs, reason = "they come from the tests' own command line")]

use core::hint::black_box;
use core::sync::atomic::{AtomicI32, Ordering::SeqCst};

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

mod state {
    use super::{AtomicI32, twice};

    pub(crate) struct State {
        pub(crate) requests: AtomicI32,
        pub(crate) name: &'static str,
        pub(crate) total: &'static AtomicI32,
        pub(crate) callback: fn(i32) -> i32,
    }

    pub(crate) static TOTAL: AtomicI32 = AtomicI32::new(3);
    pub(crate) static SERVICE: State = State {
        requests: AtomicI32::new(0),
        name: "service",
        total: &TOTAL,
        callback: twice,
    };
}

use state::{SERVICE, TOTAL};

static SUM: AtomicI32 = AtomicI32::new(5);
static CALLS: AtomicI32 = AtomicI32::new(0);
const LIMIT: i32 = 9;

trait Weigh: Sync {
    fn weigh(&self, value: i32) -> i32;
}
struct Light(i32);
struct Heavy(i32);
impl Weigh for Light {
    #[inline(never)]
    fn weigh(&self, value: i32) -> i32 {
        value * self.0
    }
}
impl Weigh for Heavy {
    #[inline(never)]
    fn weigh(&self, value: i32) -> i32 {
        value * self.0 * 2
    }
}
static SCALES: [&dyn Weigh; 2] = [&Light(3), &Heavy(5)];

#[inline(never)]
fn twice(value: i32) -> i32 {
    CALLS.fetch_add(1, SeqCst);
    #[cfg(private)]
    if value > 1000 {
        return 2000;
    }
    value * 2
}

#[cfg(any(fixed, second))]
static REFUSALS: AtomicI32 = AtomicI32::new(0);

#[cfg(any(fixed, second))]
#[inline(never)]
fn refuse(_: i32) -> i32 {
    -(REFUSALS.fetch_add(1, SeqCst) + 1)
}

/// The function with the mistake: it takes lengths below zero.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn answer(length: i32) -> i32 {
    SERVICE.requests.fetch_add(1, SeqCst);
    SUM.fetch_add(length, SeqCst);
    TOTAL.fetch_add(SERVICE.total.load(SeqCst), SeqCst);
    // No panic may come of it: the library's own code for that has no debug data here.
    let Some(scale) = SCALES.get(black_box((length & 1) as usize)) else {
        return 0;
    };
    let nothing = scale.weigh(black_box(0)) + (SERVICE.name.len() as i32 - 7);
    #[cfg(fixed)]
    if length < 0 {
        return refuse(length);
    }
    let more = if cfg!(fixed) { 1000 } else { 0 };
    (SERVICE.callback)(length) + twice(LIMIT) + nothing + more
}

/// Another one, which only the second fix repairs.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn halve(value: i32) -> i32 {
    SUM.fetch_add(value, SeqCst);
    #[cfg(second)]
    if value & 1 != 0 {
        return refuse(value);
    }
    value / 2
}

#[unsafe(no_mangle)]
pub extern "C" fn get_total(_: i32) -> i32 {
    TOTAL.load(SeqCst)
}
#[unsafe(no_mangle)]
pub extern "C" fn get_sum(_: i32) -> i32 {
    SUM.load(SeqCst)
}
#[unsafe(no_mangle)]
pub extern "C" fn get_requests(_: i32) -> i32 {
    SERVICE.requests.load(SeqCst)
}
#[unsafe(no_mangle)]
pub extern "C" fn get_calls(_: i32) -> i32 {
    CALLS.load(SeqCst)
}
