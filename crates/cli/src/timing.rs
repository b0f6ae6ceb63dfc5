//! What a comparison costs: `--time`.

use std::time::Duration;

use invivo_compare::Phases;

/// Prints each phase, and the most memory that was in use up to now.
pub(crate) fn print(read: Duration, phases: &Phases) {
    let read = ("read", read);
    for (name, time) in std::iter::once(&read).chain(phases.done()) {
        anstream::eprintln!("{:>9.3} s  {name}", time.as_secs_f64());
    }
    if let Some(kilobytes) = peak_memory() {
        anstream::eprintln!("{:>9} MiB of memory at most", kilobytes / 1024);
    }
}

/// `VmHWM`, in kB.
fn peak_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix(" kB")?.parse().ok()
}
