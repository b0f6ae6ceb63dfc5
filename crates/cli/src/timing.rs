//! What a comparison costs: `--time`.

use std::time::Duration;

use invivo_compare::{Phase, Phases};

/// Prints each phase with the time and the processor time that it took, and the most memory
/// that was in use up to now.
pub(crate) fn print(read: &Phases, compared: &Phases) {
    for phase in read.done().iter().chain(compared.done()) {
        let Phase {
            name,
            time,
            processor,
        } = phase;
        let processor = processor.map_or_else(String::new, |used| {
            format!("{:>9.2} s of processors", used.as_secs_f64())
        });
        anstream::eprintln!("{:>9.3} s{processor}  {name}", time.as_secs_f64());
    }
    if let Some(kilobytes) = peak_memory() {
        anstream::eprintln!("{:>9} MiB of memory at most", kilobytes / 1024);
    }
}

/// What all threads have used so far, in steps of ten milliseconds: `utime` and `stime`.
pub(crate) fn processor_time() -> Option<Duration> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The name of the program before them may hold anything.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse::<u64>().ok();
    Some(Duration::from_millis(10 * ticks()?.checked_add(ticks()?)?))
}

/// `VmHWM`, in kB.
fn peak_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix(" kB")?.parse().ok()
}
