//! Processes whose control group is frozen, as `docker pause` does it.

use std::path::PathBuf;

use crate::proc_file;

/// Where systems mount the hierarchy of version 2.
const UNIFIED: [&str; 2] = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"];
/// Where they mount that of version 1 which freezes.
const FREEZER: &str = "/sys/fs/cgroup/freezer";

/// The control group in which a process is frozen, if that can be seen. Its threads stop when they are asked
/// to, and freeze in the middle of the first call that they are to make.
pub(crate) fn frozen_in(pid: i32) -> Option<PathBuf> {
    let groups = proc_file::read_piece(&format!("/proc/{pid}/cgroup")).ok()?;
    groups.lines().find_map(|line| {
        let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
        // The root of a hierarchy is never frozen.
        let path = path.strip_prefix('/').filter(|path| !path.is_empty())?;
        let group = |mount: &str| PathBuf::from(mount).join(path);
        let says = |file: PathBuf, what: &str| {
            let text = proc_file::read_piece(file.to_str()?).ok()?;
            text.lines().any(|line| line == what).then_some(())
        };
        match controllers {
            "" => UNIFIED
                .iter()
                .map(|mount| group(mount))
                .find(|group| says(group.join("cgroup.events"), "frozen 1").is_some()),
            "freezer" => {
                let group = group(FREEZER);
                says(group.join("freezer.state"), "FROZEN").map(|()| group)
            }
            _ => None,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_asks_is_not_frozen() {
        assert_eq!(frozen_in(std::process::id().cast_signed()), None);
        assert_eq!(frozen_in(i32::MAX), None);
    }
}
