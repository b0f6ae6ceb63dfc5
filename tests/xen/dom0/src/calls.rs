//! The calls to the hypervisor.

use core::arch::asm;
use core::sync::atomic::{AtomicBool, Ordering};
use core::time::Duration;

use invivo_xen::block::{Block, HYPERVISOR_SYSCTL, HYPERVISOR_XEN_VERSION};
use invivo_xen::{Buffer, Hypercall};

const CONSOLE_IO: u64 = 18;
const VCPU_OP: u64 = 24;
const SCHED_OP: u64 = 29;

const CONSOLE_WRITE: u64 = 0;
const SCHED_YIELD: u64 = 0;
const SCHED_SHUTDOWN: u64 = 2;
const SHUTDOWN_REBOOT: u32 = 1;
const VCPU_RUNSTATE: u64 = 4;

/// # Safety
///
/// Where an argument is an address, what is there is as the call wants it.
unsafe fn call(number: u64, arguments: [u64; 3]) -> i64 {
    let [first, second, third] = arguments;
    let returned: i64;
    // SAFETY: the caller vouches for the arguments; a paravirtual guest's `syscall` keeps all
    // registers but these.
    unsafe {
        asm!("syscall", inlateout("rax") number as i64 => returned,
            inlateout("rdi") first => _, inlateout("rsi") second => _,
            inlateout("rdx") third => _, inlateout("r10") 0u64 => _,
            inlateout("r8") 0u64 => _, out("rcx") _, out("r11") _);
    }
    returned
}

/// Writes to the hypervisor's console.
pub fn write(text: &[u8]) {
    // SAFETY: the text is readable for its length.
    unsafe {
        call(
            CONSOLE_IO,
            [CONSOLE_WRITE, text.len() as u64, text.as_ptr() as u64],
        )
    };
}

/// Ends the machine: the emulator takes a reboot for its end.
pub fn power_off() -> ! {
    let reason = SHUTDOWN_REBOOT;
    loop {
        // SAFETY: the argument is the address of a reason.
        unsafe { call(SCHED_OP, [SCHED_SHUTDOWN, &raw const reason as u64, 0]) };
    }
}

/// Presses a debug key of the hypervisor.
pub fn debug_key(interface: u32, key: u8) -> i64 {
    const DEBUG_KEYS: u32 = 7;
    let mut bytes = [0; invivo_xen::block::SIZE];
    bytes[..4].copy_from_slice(&DEBUG_KEYS.to_le_bytes());
    bytes[4..8].copy_from_slice(&interface.to_le_bytes());
    bytes[16..20].copy_from_slice(&1u32.to_le_bytes());
    let keys = Buffer::In {
        handle: 8,
        bytes: &[key],
    };
    Direct.sysctl(&mut Block::raw(bytes), &mut [keys])
}

/// True if the machine has one processor: nobody has to be waited for.
static IS_ALONE: AtomicBool = AtomicBool::new(false);

/// Has the short pauses between actions left out, which are there for other processors.
pub fn be_alone() {
    IS_ALONE.store(true, Ordering::Relaxed);
}

/// Lets the hypervisor and its tasks run for that time.
pub fn wait(time: Duration) {
    let end = Direct.now() + time;
    while Direct.now() < end {
        let_run();
    }
}

fn let_run() {
    // SAFETY: the call has no argument.
    unsafe { call(SCHED_OP, [SCHED_YIELD, 0, 0]) };
}

/// The longest pause that is made for other processors.
const FOR_OTHERS: Duration = Duration::from_millis(5);

/// The hypervisor reads and writes this kernel's memory where it is.
pub struct Direct;

impl Hypercall for Direct {
    fn sysctl(&mut self, block: &mut Block, buffers: &mut [Buffer<'_>]) -> i64 {
        for buffer in buffers {
            let (handle, address) = match buffer {
                Buffer::In { handle, bytes } => (*handle, bytes.as_ptr() as u64),
                Buffer::Out { handle, bytes } => (*handle, bytes.as_mut_ptr() as u64),
            };
            block.put_u64(handle, address);
        }
        let argument = block.bytes_mut().as_mut_ptr() as u64;
        // SAFETY: the argument is a whole structure, and the buffers that it leads to are
        // borrowed for as long as the call takes.
        unsafe { call(HYPERVISOR_SYSCTL, [argument, 0, 0]) }
    }

    fn version(&mut self, what: u32, answer: Option<&mut [u8]>) -> i64 {
        let address = answer.map_or(0, |bytes| bytes.as_mut_ptr() as u64);
        // SAFETY: the answer is as large as the question wants it.
        unsafe { call(HYPERVISOR_XEN_VERSION, [u64::from(what), address, 0]) }
    }

    /// The time that the only processor of this kernel has been in its four states.
    fn now(&mut self) -> Duration {
        let mut state = [0u64; 6];
        let address = &raw mut state as u64;
        // SAFETY: `struct vcpu_runstate_info` has 48 bytes: a state, a time, and four more.
        unsafe { call(VCPU_OP, [VCPU_RUNSTATE, 0, address]) };
        Duration::from_nanos(state[2..].iter().sum())
    }

    fn pause(&mut self, time: Duration) {
        if time <= FOR_OTHERS && IS_ALONE.load(Ordering::Relaxed) {
            return let_run();
        }
        wait(time);
    }
}
