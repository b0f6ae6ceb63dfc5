//! How long it takes to make 500 functions of a Windows library live, and to take them back, in
//! this process and while a thread of it calls them. `cargo xtask bench windows` reads what it
//! prints: for each round the nanoseconds of both, and those for which all threads stood.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use invivo_apply::hpat::PatchedImage;
use windows_tests::native::{Enlisted, Here, Mapped};
use windows_tests::{Build, build, final_image};

/// As many functions as the library has.
const FUNCTIONS: usize = 500;

fn main() -> Result<()> {
    let mut words = std::env::args().skip(1);
    let folder = PathBuf::from(words.next().context("usage: speed FOLDER ROUNDS")?);
    let rounds: usize = words
        .next()
        .context("usage: speed FOLDER ROUNDS")?
        .parse()?;
    let base = build(&folder, "base", "many", &Build::base())?;
    let names: Vec<String> = (100..100 + FUNCTIONS).map(|n| format!("f_{n}")).collect();
    let fixed = build(&folder, "fixed", "many", &Build::fixed(&names.join(",")))?;
    let made = final_image(&base, &fixed, 1)?;
    let mut here = Here::new()?;
    let mapped = Mapped::new(&here, base.image()?)?;
    let before = mapped.fixed_bytes();
    let function = mapped.function("f_333")?;
    let end = AtomicBool::new(false);
    std::thread::scope(|scope| -> Result<()> {
        scope.spawn(|| {
            let enlisted = Enlisted::new();
            while !end.load(Ordering::Relaxed) {
                function(1);
            }
            drop(enlisted);
        });
        std::thread::sleep(Duration::from_millis(20));
        let done = (|| -> Result<()> {
            for _ in 0..rounds {
                // What was mapped once is led to the base already: a new one each time.
                let patch = Mapped::new(&here, made.clone())?;
                let mut state = PatchedImage::new(mapped.loaded.clone());
                let begin = Instant::now();
                let outcome = state.apply(&mut here, &patch.loaded)?;
                let apply = begin.elapsed().as_nanos();
                ensure!(outcome.fresh == FUNCTIONS, "{} functions", outcome.fresh);
                for name in &names {
                    ensure!(mapped.call(name, 0)? > 1000, "{name} is old");
                }
                let begin = Instant::now();
                let back = state.revert(&mut here)?;
                let revert = begin.elapsed().as_nanos();
                ensure!(
                    !back.left && mapped.fixed_bytes() == before,
                    "not as before"
                );
                let stood = [outcome.stopped, back.stopped].map(|stood| stood.as_nanos());
                println!("{apply} {} {revert} {}", stood[0], stood[1]);
            }
            Ok(())
        })();
        end.store(true, Ordering::Relaxed);
        done
    })
}
