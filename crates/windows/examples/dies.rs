//! `dies PID`: a tool that dies, as if it were killed, while all threads of a process stand.

#[cfg(not(windows))]
fn main() {}

#[cfg(windows)]
fn main() {
    use invivo_apply::Target;
    use invivo_windows::{Access, Process};

    let pid = std::env::args().nth(1).expect("dies PID");
    let pid = pid.parse().expect("a number");
    let process = Process::open(pid, Access::Write { patience: 10_000 });
    let mut process = process.expect("the process");
    let stopped = process.stop(&[], &mut |_| {
        // Nothing is put in order.
        std::process::exit(3);
    });
    panic!("it stopped nothing: {stopped:?}");
}
