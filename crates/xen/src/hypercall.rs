//! What issues a call to the hypervisor.

use core::time::Duration;

use crate::block::Block;

/// Memory that a call's argument refers to.
#[derive(Debug)]
pub enum Buffer<'a> {
    /// The hypervisor reads it.
    In {
        /// Where in the argument its address belongs.
        handle: usize,
        /// What is there.
        bytes: &'a [u8],
    },
    /// The hypervisor writes it.
    Out {
        /// Where in the argument its address belongs.
        handle: usize,
        /// What is there afterwards.
        bytes: &'a mut [u8],
    },
}

/// Issues calls to the hypervisor that this program runs on, and waits.
pub trait Hypercall {
    /// `__HYPERVISOR_sysctl`: the argument is given, and holds the answer afterwards. Each
    /// buffer's address is written to where the argument wants it.
    ///
    /// Returns what the hypervisor returned: a value, or a negative error number.
    fn sysctl(&mut self, block: &mut Block, buffers: &mut [Buffer<'_>]) -> i64;

    /// `__HYPERVISOR_xen_version`: the answer to the question `what`, where it has one.
    ///
    /// Returns what the hypervisor returned: a value, or a negative error number.
    fn version(&mut self, what: u32, answer: Option<&mut [u8]>) -> i64;

    /// The time since some moment; it never goes back.
    fn now(&mut self) -> Duration;

    /// Waits at least that long, and lets the hypervisor and everybody else run meanwhile.
    fn pause(&mut self, time: Duration);
}
