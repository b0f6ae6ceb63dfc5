//! Many rounds of apply and revert: nothing piles up, and in the end everything
//! is as it was.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;

use anyhow::{Context, Result, ensure};

use super::promise::{Amount, Promises};
use super::redis::Subject;
use crate::paint;

/// Memory that the program itself may take meanwhile, for its own purposes.
const RSS_SLACK: f64 = 256.0 * 1024.0;

/// Applies and reverts again and again.
pub(crate) fn run(subject: Subject, rounds: usize, promises: &mut Promises) -> Result<()> {
    let Subject {
        workspace,
        invivo,
        case,
        patch,
    } = subject;
    println!(
        "\n{}",
        paint::bold(format!("{rounds} rounds of apply and revert"))
    );
    let run = workspace.fresh_folder("bench/rounds")?;
    let base = workspace.corpus.join(case.name()).join("base");
    let mut server = case.start(&base, &run)?;
    let pid = server.pid();
    let round = || -> Result<()> {
        let applied = invivo.apply(patch, pid)?;
        ensure!(applied.state == "applied", "it says {}", applied.state);
        let reverted = invivo.revert(case.name(), pid)?;
        ensure!(reverted.state == "reverted", "it says {}", reverted.state);
        Ok(())
    };
    let start = Text::read(pid)?;
    round()?;
    let first = Size::read(pid)?;
    for number in 1..rounds {
        round().with_context(|| format!("round {} of {rounds}; {}", number + 1, server.fate()))?;
    }
    let last = Size::read(pid)?;
    let end = Text::read(pid)?;
    ensure!(server.alive(), server.fate());

    println!(
        "      after the first and the last round: {} and {} mappings, VmSize {} and {} KiB, RSS {} and {} KiB",
        first.mappings,
        last.mappings,
        first.virtual_kib,
        last.virtual_kib,
        first.resident_kib,
        last.resident_kib
    );
    promises.measured(
        "mappings that each round after the first leaves behind, in all",
        Amount::Count(0.0),
        Amount::Count(last.mappings.abs_diff(first.mappings) as f64),
    );
    promises.measured(
        "growth of VmSize after the first round",
        Amount::Bytes(0.0),
        Amount::Bytes(last.virtual_kib.abs_diff(first.virtual_kib) as f64 * 1024.0),
    );
    promises.measured(
        "growth of RSS after the first round",
        Amount::Bytes(RSS_SLACK),
        Amount::Bytes((last.resident_kib as f64 - first.resident_kib as f64) * 1024.0),
    );
    promises.measured(
        "bytes of text that are not as they were at the start",
        Amount::Count(0.0),
        Amount::Count(start.different_bytes(&end) as f64),
    );
    promises.measured(
        "text mappings whose place or protection changed",
        Amount::Count(0.0),
        Amount::Count(start.different_mappings(&end) as f64),
    );
    Ok(())
}

/// How large a process is.
#[derive(Debug)]
struct Size {
    mappings: u64,
    virtual_kib: u64,
    resident_kib: u64,
}

impl Size {
    fn read(pid: u32) -> Result<Self> {
        let maps = std::fs::read_to_string(format!("/proc/{pid}/maps"))?;
        let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|rest| rest.split_whitespace().next()?.parse().ok())
                .with_context(|| format!("the status of process {pid} has no {name}"))
        };
        Ok(Self {
            mappings: maps.lines().count() as u64,
            virtual_kib: field("VmSize:")?,
            resident_kib: field("VmRSS:")?,
        })
    }
}

/// The text of every file that a process has mapped: where it is, how it is
/// protected, and its bytes.
#[derive(Debug)]
struct Text(BTreeMap<String, Vec<u8>>);

impl Text {
    fn read(pid: u32) -> Result<Self> {
        let maps = std::fs::read_to_string(format!("/proc/{pid}/maps"))?;
        let memory = File::open(format!("/proc/{pid}/mem"))
            .with_context(|| format!("cannot read the memory of process {pid}"))?;
        let mut text = BTreeMap::new();
        for line in maps.lines() {
            let words: Vec<&str> = line.split_whitespace().collect();
            let [range, protection, .., path] = words.as_slice() else {
                continue;
            };
            if !protection.contains('x') || !path.starts_with('/') {
                continue;
            }
            let (start, end) = range.split_once('-').context("a mapping without an end")?;
            let start = u64::from_str_radix(start, 16)?;
            let end = u64::from_str_radix(end, 16)?;
            let mut bytes = vec![0; usize::try_from(end - start)?];
            memory.read_exact_at(&mut bytes, start)?;
            text.insert(line.to_owned(), bytes);
        }
        ensure!(!text.is_empty(), "process {pid} has no text");
        Ok(Self(text))
    }

    fn different_bytes(&self, other: &Self) -> usize {
        let pairs = self
            .0
            .iter()
            .map(|(line, bytes)| (bytes, other.0.get(line)));
        pairs
            .map(|(bytes, now)| match now {
                Some(now) => bytes.iter().zip(now).filter(|(a, b)| a != b).count(),
                None => bytes.len(),
            })
            .sum()
    }

    fn different_mappings(&self, other: &Self) -> usize {
        let missing =
            |a: &Self, b: &Self| a.0.keys().filter(|line| !b.0.contains_key(*line)).count();
        missing(self, other) + missing(other, self)
    }
}
