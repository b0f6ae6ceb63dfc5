//! A kernel that Xen starts as its control domain. It does what a script says, which lies in its
//! initial RAM disk, with the crate `invivo-xen`; writes each answer as a line to the console, and
//! ends the machine. So a real hypervisor answers to the very code that the program `invivo` runs.
//!
//! Xen starts it as a paravirtual guest: in ring 3, with page tables, a stack and the RAM disk
//! mapped. It needs no interrupt, no timer and no second processor.

#![no_std]
#![no_main]

extern crate alloc;

mod calls;
mod console;
mod heap;
mod script;
mod start;

use core::panic::PanicInfo;

use crate::console::say;

/// What the entry calls, on the kernel's own stack.
///
/// # Safety
///
/// `info` is the address of Xen's `struct start_info`.
#[unsafe(no_mangle)]
unsafe extern "C" fn kernel(info: *const u64) -> ! {
    const MODULE: usize = 112 / 8;
    const MODULE_LENGTH: usize = 120 / 8;
    // SAFETY: Xen passes a whole page that begins with the structure, and the two fields tell
    // where the RAM disk is mapped; nobody else uses it.
    let script = unsafe {
        let length = *info.add(MODULE_LENGTH) as usize;
        match length {
            0 => &[][..],
            _ => core::slice::from_raw_parts(*info.add(MODULE) as *const u8, length),
        }
    };
    script::run(script);
    say!("R end");
    calls::power_off()
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    say!("R panic {info}");
    calls::power_off()
}
