//! Images and patches from files.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use invivo_image::Image;

use crate::arguments::Pair;
use crate::debug_files::Search;
use crate::failure::{Failure, USAGE};

/// The largest image that is read, in bytes.
const LARGEST: u64 = 4 << 30;

/// Reads both images of a pair.
pub(crate) fn load_pair(pair: &Pair) -> Result<(Image, Image), Failure> {
    let load = |program: &Path, given: &Option<PathBuf>, option| {
        load(&Search {
            program,
            given: given.as_deref(),
            option,
            folders: &pair.debug_directory,
        })
    };
    let base = load(&pair.base, &pair.base_debug, "--base-debug")?;
    let fixed = load(&pair.fixed, &pair.fixed_debug, "--fixed-debug")?;
    Ok((base, fixed))
}

/// Reads an image and the debug files that belong to it.
pub(crate) fn load(search: &Search<'_>) -> Result<Image, Failure> {
    let program = search.program;
    let file: Arc<[u8]> = read_file(program)?.into();
    let mut image = Image::parse(file, None).map_err(|error| {
        Failure::new(USAGE, format!("{}: {error}", program.display()))
            .hint("give a linked 64-bit x86 ELF program or library")
    })?;
    search.complete(&mut image)?;
    Ok(image)
}

pub(crate) fn read_file(path: &Path) -> Result<Vec<u8>, Failure> {
    let fail = |error: std::io::Error| Failure::new(USAGE, format!("{}: {error}", path.display()));
    let size = std::fs::metadata(path).map_err(fail)?.len();
    if size > LARGEST {
        return Err(Failure::new(
            USAGE,
            format!("{}: larger than 4 GiB", path.display()),
        ));
    }
    std::fs::read(path).map_err(fail)
}
