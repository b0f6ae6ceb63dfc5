//! Control groups, which only root can make.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// A control group, removed at the end: its processes go to where they came from.
#[derive(Debug)]
pub struct Group(PathBuf);

impl Group {
    /// Makes one.
    ///
    /// # Errors
    ///
    /// When no control groups of version 2 are mounted, or this user may make none.
    pub fn new(name: &str) -> Result<Group> {
        let mounts = fs::read_to_string("/proc/mounts")?;
        let root = mounts.lines().find_map(|line| {
            let mut words = line.split(' ');
            let (at, kind) = (words.nth(1)?, words.next()?);
            (kind == "cgroup2").then(|| at.to_owned())
        });
        let path = Path::new(&root.context("no control groups are mounted")?).join(name);
        fs::create_dir(&path)?;
        Ok(Group(path))
    }

    /// Takes a process in.
    ///
    /// # Errors
    ///
    /// When the system refuses.
    pub fn take(&self, pid: u32) -> Result<()> {
        Ok(fs::write(self.0.join("cgroup.procs"), pid.to_string())?)
    }

    /// Freezes its processes, or thaws them.
    ///
    /// # Errors
    ///
    /// When the system refuses.
    pub fn freeze(&self, freeze: bool) -> Result<()> {
        let file = self.0.join("cgroup.freeze");
        Ok(fs::write(file, if freeze { "1" } else { "0" })?)
    }

    /// Whether all of them are frozen.
    ///
    /// # Errors
    ///
    /// When that cannot be read.
    pub fn is_frozen(&self) -> Result<bool> {
        let events = fs::read_to_string(self.0.join("cgroup.events"))?;
        Ok(events.contains("frozen 1"))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // What is frozen goes nowhere.
        let _ = self.freeze(false);
        let all = fs::read_to_string(self.0.join("cgroup.procs")).unwrap_or_default();
        let out = self.0.with_file_name("cgroup.procs");
        for pid in all.lines() {
            let _ = fs::write(&out, pid);
        }
        let _ = fs::remove_dir(&self.0);
    }
}
