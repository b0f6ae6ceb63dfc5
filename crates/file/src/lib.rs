//! An image on disk: a file is exchanged for its final image, and back.
//!
//! What runs goes on with the old file; what is started next gets the fixed one. The exchange
//! is one system call, so that at every instant, also of a power cut, the name leads to the
//! whole old file or to the whole new one. The old file stays beside it, under a hidden name
//! that tells whose base it is (see [`base_name`]), and comes back as it was: the very same
//! file, not a copy. Only its set-user-ID and set-group-ID bits and its capabilities are with the new
//! file meanwhile: it has the defect still, and anybody may start it by its hidden name.
//!
//! | Windows, first generation | here |
//! |---|---|
//! | cold patch of a DLL | final image of a program or library |
//! | `NtSetSystemInformation` with `RENAME_FILES`: two renames in one call | `renameat2` with `RENAME_EXCHANGE` |
//! | `UPDATE_KNOWNDLL`: the directory `\\KnownDlls` holds sections of system libraries that were made when the system started, and what starts maps those; two of them are swapped | nothing holds a library for those that start later: the loader opens it by its name, so that every new mapping is of the new file once the names are exchanged (a cache as `ld.so.cache` holds names) |
//! | `UPDATE_SYSDLL`: the mapping of `ntdll` that the kernel gives to each process | the kernel opens the loader by the name in the program (`PT_INTERP`); it is exchanged as any file |
//! | what runs goes on with the old section | what runs goes on with the old file; `invivo status` tells "applied" or "checked" of the process, and "on disk: fixed" |
//!
//! A cold patch of a Windows file ([`invivo_format::hotp1::cold`]) is exchanged in the same way, on whichever
//! file system of Linux it lies: a share, the disk of a virtual machine, a folder of Wine.

mod attributes;
mod error;
mod exchange;
mod flags;
mod install;
mod kept;
mod names;
mod on_disk;
mod place;
mod privileges;
mod uninstall;

pub use error::FileError;
pub use install::{Installed, install};
pub use kept::{Kept, KeptError, kept_layout};
pub use names::{base_name, name_of_base};
pub use on_disk::{Carried, Disk, FinalFile, OnDisk, started_as};
pub use uninstall::{Uninstalled, uninstall};
