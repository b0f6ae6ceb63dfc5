//! `holds PID`: a tool that is at work in a process for long, and does nothing; it ends with its input.

#[cfg(not(windows))]
fn main() {}

#[cfg(windows)]
fn main() {
    use std::io::Read;

    use invivo_windows::{Access, Process};

    let pid = std::env::args().nth(1).expect("holds PID");
    let pid = pid.parse().expect("a number");
    let process = Process::open(pid, Access::Write { patience: 10_000 });
    let _process = process.expect("the process");
    println!("ready");
    let _ = std::io::stdin().read(&mut [0]);
}
