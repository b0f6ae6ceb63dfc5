//! Programs that were compiled before: the same sources, flags and compiler give the same program, and most of a run
//! would be spent on making it again.

use std::collections::BTreeSet;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::SystemTime;

use anyhow::Result;

use crate::compile::tool;
use crate::fixture;

/// Names the folder that they are kept in, where it is not `target/live-programs`.
const VARIABLE: &str = "INVIVO_LIVE_PROGRAMS";
/// When there are so many most of them are of sources that have changed since.
const MOST: usize = 2000;
/// What programs are linked with, beside what the compiler brings.
const LINKED_WITH: [&str; 3] = [
    "/usr/lib/x86_64-linux-gnu/crt1.o",
    "/usr/lib/x86_64-linux-gnu/libc.a",
    "/usr/lib/x86_64-linux-musl/libc.a",
];

/// Lets a compiler make `out`, or takes what it made of the same before.
///
/// # Errors
///
/// As [`tool`].
pub(crate) fn make(mut command: Command, out: &Path) -> Result<()> {
    let known = key(&command, out).map(|key| folder().join(format!("{key:016x}")));
    // Another process copies it: were this one to write it, what another test starts meanwhile
    // would have it open for a moment, and who is written is not executed (ETXTBSY).
    if let Some(known) = known.as_ref().filter(|known| known.is_file())
        && Command::new("cp").arg(known).arg(out).status()?.success()
    {
        return Ok(());
    }
    command.arg("-o").arg(out);
    tool(command)?;
    if let Some(known) = known {
        // Where it cannot be kept it is made again.
        let _ = keep(out, &known);
    }
    Ok(())
}

fn folder() -> PathBuf {
    std::env::var_os(VARIABLE).map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/live-programs"),
        PathBuf::from,
    )
}

/// Whole or not at all: other tests look at the same time.
fn keep(made: &Path, known: &Path) -> std::io::Result<()> {
    let folder = folder();
    fs::create_dir_all(&folder)?;
    if fs::read_dir(&folder)?.count() > MOST {
        fs::remove_dir_all(&folder)?;
        fs::create_dir_all(&folder)?;
    }
    let number = format!("{}-{:?}", std::process::id(), std::thread::current().id());
    let unfinished = folder.join(number);
    fs::copy(made, &unfinished)?;
    fs::rename(unfinished, known)
}

/// All that the result depends on; `None` where that cannot be told.
fn key(command: &Command, out: &Path) -> Option<u64> {
    let mut hasher = DefaultHasher::new();
    let compiler = on_path(command.get_program().to_str()?)?;
    let tools = LINKED_WITH.iter().map(PathBuf::from).chain([compiler]);
    for tool in tools {
        let data = tool.metadata().ok();
        let changed = data.as_ref().and_then(|data| data.modified().ok());
        let changed = changed.and_then(|time| time.duration_since(SystemTime::UNIX_EPOCH).ok());
        (tool, data.map(|data| data.len()), changed).hash(&mut hasher);
    }
    let fixtures = fixture::folder();
    let place = out.parent()?.parent()?;
    let mut sources = BTreeSet::new();
    for word in command.get_args() {
        let word = word.to_str()?;
        if word.starts_with("-ffile-prefix-map=") {
            continue;
        }
        // What is made for one scenario is another one the next time.
        if word.contains(place.to_str()?) || word.starts_with('/') {
            return None;
        }
        word.hash(&mut hasher);
        if fixtures.join(word).is_file() {
            sources.insert(fixtures.join(word));
        }
    }
    // Any of them may be included.
    for part in fs::read_dir(fixtures.join("parts")).ok()? {
        sources.insert(part.ok()?.path());
    }
    for source in sources {
        source.strip_prefix(&fixtures).ok()?.hash(&mut hasher);
        fs::read(&source).ok()?.hash(&mut hasher);
    }
    Some(hasher.finish())
}

fn on_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let mut folders = std::env::split_paths(&path);
    let found = folders.find(|folder| folder.join(name).is_file())?;
    found.join(name).canonicalize().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compiler(words: &[&str]) -> Option<u64> {
        let mut command = Command::new("cc");
        command.args(words);
        key(&command, Path::new("/made/for/one"))
    }

    #[test]
    fn what_differs_has_another_key() {
        let one = compiler(&["-O2", "crowd.c"]).unwrap();
        assert_eq!(compiler(&["-O2", "crowd.c"]), Some(one));
        for other in [
            &["-O1", "crowd.c"][..],
            &["-O2", "served.c"],
            &["-O2", "-DFIXED", "crowd.c"],
        ] {
            assert_ne!(compiler(other), Some(one), "{other:?}");
        }
    }

    #[test]
    fn what_is_made_of_other_places_is_not_kept() {
        assert_eq!(compiler(&["-include", "/made/mark.h", "crowd.c"]), None);
        assert_eq!(compiler(&["-L/made/for", "-lone", "crowd.c"]), None);
    }
}
