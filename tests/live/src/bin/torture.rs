//! `torture kill COUNT` and `torture soak ROUNDS`, as `cargo xtask torture` runs them.

use anyhow::{Result, bail};
use live_tests::torture::{kill, soak};

/// The fixture that is tortured.
const SERVER: &str = "served.c";

fn main() -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["kill", count] => kill(SERVER, count.parse()?),
        ["soak", rounds] => soak(SERVER, rounds.parse()?),
        _ => bail!("usage: torture kill COUNT | torture soak ROUNDS"),
    }
}
