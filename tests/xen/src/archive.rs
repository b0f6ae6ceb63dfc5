//! An archive that Linux unpacks into its first file system, in the form `newc` of cpio
//! (Documentation/driver-api/early-userspace/buffer-format.rst).

use std::collections::BTreeSet;

use anyhow::{Context, Result};

const FOLDER: u32 = 0o040_755;
const PROGRAM: u32 = 0o100_755;

/// An archive that is being written.
#[derive(Default)]
pub(crate) struct Archive {
    bytes: Vec<u8>,
    names: BTreeSet<String>,
}

impl Archive {
    /// Adds a file, and the folders above it. One that is there already is left as it is.
    pub(crate) fn file(&mut self, path: &str, bytes: &[u8]) -> Result<()> {
        let path = path.trim_start_matches('/');
        for (end, _) in path.match_indices('/') {
            self.entry(&path[..end], FOLDER, &[])?;
        }
        self.entry(path, PROGRAM, bytes)
    }

    /// The archive.
    pub(crate) fn end(mut self) -> Result<Vec<u8>> {
        self.entry("TRAILER!!!", 0, &[])?;
        Ok(self.bytes)
    }

    fn entry(&mut self, name: &str, mode: u32, bytes: &[u8]) -> Result<()> {
        if !self.names.insert(name.to_owned()) {
            return Ok(());
        }
        let size = u32::try_from(bytes.len()).context("a file is too large")?;
        let length = u32::try_from(name.len() + 1)?;
        let number = u32::try_from(self.names.len())?;
        // inode, mode, owner, group, links, time, size, two devices, length of the name, sum
        let fields = [number, mode, 0, 0, 1, 0, size, 0, 0, 0, 0, length, 0];
        self.bytes.extend_from_slice(b"070701");
        for field in fields {
            self.bytes
                .extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.align();
        self.bytes.extend_from_slice(bytes);
        self.align();
        Ok(())
    }

    fn align(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}
