//! What a process is, for those who look for it by that: read without touching it.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::incarnation::shown_by;

/// What tells a process from others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Traits {
    /// The program that it runs, by the name that it had at the start; none for a thread of the
    /// kernel, and where it may not be seen.
    pub exe: Option<PathBuf>,
    /// Its short name (`comm`).
    pub comm: String,
    /// Its control groups, outermost first: units of the service manager are among them.
    pub groups: Vec<String>,
    /// Device and number of the program's file.
    file: Option<(u64, u64)>,
}

impl Traits {
    /// Those of the process `pid`; empty where there is none.
    #[must_use]
    pub fn of(pid: i32) -> Traits {
        let read = |name: &str| std::fs::read_to_string(format!("/proc/{pid}/{name}"));
        let link = format!("/proc/{}/exe", shown_by(pid));
        let exe = std::fs::read_link(&link).ok();
        // A program that was replaced on disk still has its name.
        let named = |exe: PathBuf| {
            let text = exe.to_string_lossy().into_owned();
            PathBuf::from(text.trim_end_matches(" (deleted)"))
        };
        Traits {
            exe: exe.map(named),
            comm: read("comm").unwrap_or_default().trim_end().to_owned(),
            groups: groups(&read("cgroup").unwrap_or_default()),
            file: file(Path::new(&link)),
        }
    }

    /// True if it runs the program at `path`: by its name, or by the file itself.
    #[must_use]
    pub fn runs(&self, path: &Path) -> bool {
        let same_file = || self.file.is_some() && file(path) == self.file;
        self.exe.as_deref() == Some(path) || same_file()
    }
}

fn file(path: &Path) -> Option<(u64, u64)> {
    let data = std::fs::metadata(path).ok()?;
    Some((data.dev(), data.ino()))
}

/// The parts of all paths in a text such as `0::/system.slice/nginx.service`, each once.
fn groups(text: &str) -> Vec<String> {
    let paths = text.lines().filter_map(|line| line.splitn(3, ':').nth(2));
    let mut parts: Vec<String> = Vec::new();
    for part in paths.flat_map(|path| path.split('/')) {
        if !part.is_empty() && !parts.iter().any(|known| known == part) {
            parts.push(part.to_owned());
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_of_both_kinds_are_read() {
        let old =
            "12:pids:/system.slice/nginx.service\n1:name=systemd:/system.slice/nginx.service\n";
        assert_eq!(groups(old), ["system.slice", "nginx.service"]);
        assert_eq!(
            groups("0::/user.slice/a:b.scope\n"),
            ["user.slice", "a:b.scope"]
        );
        assert!(groups("0::/\n").is_empty() && groups("").is_empty());
    }

    #[test]
    fn this_process_runs_this_program() {
        let own = Traits::of(i32::try_from(std::process::id()).unwrap());
        let exe = std::env::current_exe().unwrap();
        assert!(own.runs(&exe) && !own.runs(Path::new("/bin/sh")));
        assert!(!own.comm.is_empty());
        assert_eq!(Traits::of(0), Traits::default());
    }
}
