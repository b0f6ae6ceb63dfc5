//! An image on disk: a file is exchanged for its final image, and back.
//!
//! What runs goes on with the old file; what is started next gets the fixed one. The exchange
//! is one system call, so that at every instant, also of a power cut, the name leads to the
//! whole old file or to the whole new one. The old file stays beside it, under a hidden name
//! that tells whose base it is (see [`base_name`]), and comes back as it was: the very same
//! file, not a copy.
//!
//! | Windows, first generation | here |
//! |---|---|
//! | cold patch of a DLL | final image of a program or library |
//! | `NtSetSystemInformation` with `RENAME_FILES`: two renames in one call | `renameat2` with `RENAME_EXCHANGE` |
//! | `UPDATE_KNOWNDLL`: swap of the section object, so that what starts maps the new one | not needed: every new mapping is made from the name |

mod attributes;
mod error;
mod exchange;
mod install;
mod kept;
mod names;
mod on_disk;
mod place;
mod uninstall;

pub use error::FileError;
pub use install::{Installed, install};
pub use kept::{Kept, KeptError, kept_layout};
pub use names::{base_name, name_of_base};
pub use on_disk::{Disk, OnDisk, started_as};
pub use uninstall::{Uninstalled, uninstall};
