//! Looking at a process from outside: its mappings, the bytes of its code, its size.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;

use anyhow::{Context, Result, ensure};

/// One line of `/proc/PID/maps`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mapping {
    /// First address.
    pub start: u64,
    /// First address after it.
    pub end: u64,
    /// For example `r-xp`.
    pub protection: String,
    /// Offset in the file, in bytes.
    pub offset: u64,
    /// The file, a name in brackets, or nothing.
    pub path: String,
}

/// The mappings of a process.
///
/// # Errors
///
/// When the process is gone or may not be looked at.
pub fn mappings(pid: u32) -> Result<Vec<Mapping>> {
    let text =
        fs::read_to_string(format!("/proc/{pid}/maps")).context("cannot read the mappings")?;
    text.lines()
        .map(|line| parse(line).with_context(|| format!("strange mapping: {line}")))
        .collect()
}

fn parse(line: &str) -> Option<Mapping> {
    let mut words = line.splitn(6, ' ');
    let (start, end) = words.next()?.split_once('-')?;
    let protection = words.next()?.to_owned();
    let offset = u64::from_str_radix(words.next()?, 16).ok()?;
    let (_device, _inode) = (words.next()?, words.next()?);
    let path = words.next().unwrap_or_default().trim().to_owned();
    let [start, end] = [start, end].map(|word| u64::from_str_radix(word, 16).ok());
    Some(Mapping {
        start: start?,
        end: end?,
        protection,
        offset,
        path,
    })
}

/// Nothing may be writable and executable at once.
///
/// # Errors
///
/// When something is.
pub fn expect_no_writable_code(pid: u32) -> Result<()> {
    for mapping in mappings(pid)? {
        let both = mapping.protection.contains('w') && mapping.protection.contains('x');
        ensure!(!both, "writable and executable at once: {mapping:x?}");
    }
    Ok(())
}

/// Memory in use, in kB, as the kernel counts it.
///
/// # Errors
///
/// When the process is gone.
pub fn resident_kb(pid: u32) -> Result<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .context("no VmRSS: is it a zombie?")?;
    line.trim()
        .trim_end_matches(" kB")
        .parse()
        .with_context(|| format!("strange VmRSS: {line}"))
}

/// Every mapping of a file, and the bytes of those that the program cannot write itself.
#[derive(Debug, Clone)]
pub struct Snapshot {
    pid: u32,
    files: Vec<(Mapping, Vec<u8>)>,
}

impl Snapshot {
    /// Takes it, now.
    ///
    /// # Errors
    ///
    /// When the process is gone or may not be looked at.
    pub fn of(pid: u32) -> Result<Self> {
        let memory = File::open(format!("/proc/{pid}/mem")).context("cannot open the memory")?;
        let mut files = Vec::new();
        for mapping in mappings(pid)? {
            if !mapping.path.starts_with('/') {
                continue;
            }
            let mut bytes = Vec::new();
            if mapping.protection.starts_with("r-") {
                bytes = vec![0; usize::try_from(mapping.end - mapping.start)?];
                memory
                    .read_exact_at(&mut bytes, mapping.start)
                    .with_context(|| format!("cannot read {mapping:x?}"))?;
            }
            files.push((mapping, bytes));
        }
        ensure!(
            files
                .iter()
                .any(|(mapping, _)| mapping.protection.contains('x')),
            "the process has no code"
        );
        Ok(Self { pid, files })
    }

    /// The process must look exactly as it did: same places, same protections, same bytes.
    ///
    /// # Errors
    ///
    /// At the first difference, saying where it is.
    pub fn expect_same(&self) -> Result<()> {
        let now = Self::of(self.pid)?;
        let lines = |all: &Self| {
            all.files
                .iter()
                .map(|(mapping, _)| mapping.clone())
                .collect::<Vec<_>>()
        };
        let (before, after) = (lines(self), lines(&now));
        for mapping in &before {
            ensure!(
                after.contains(mapping),
                "this mapping is not as before: {mapping:x?}\nnow: {after:x?}"
            );
        }
        ensure!(
            before == after,
            "mappings were added or reordered\nbefore: {before:x?}\nnow: {after:x?}"
        );
        for ((mapping, old), (_, new)) in self.files.iter().zip(&now.files) {
            if let Some(at) = old.iter().zip(new).position(|(old, new)| old != new) {
                let place = mapping.start + at as u64;
                anyhow::bail!(
                    "{place:#x} in {} was {:#04x}, is {:#04x}",
                    mapping.path,
                    old[at],
                    new[at]
                );
            }
        }
        Ok(())
    }
}
