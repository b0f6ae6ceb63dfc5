//! Images and patches from files.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use invivo_image::{Image, ImageError};

use crate::arguments::Pair;
use crate::failure::{Failure, REFUSED, USAGE};

/// The largest image that is read, in bytes.
const LARGEST: u64 = 4 << 30;

/// Reads both images of a pair.
pub(crate) fn load_pair(pair: &Pair) -> Result<(Image, Image), Failure> {
    let base = load(&pair.base, pair.base_debug.as_deref(), "--base-debug")?;
    let fixed = load(&pair.fixed, pair.fixed_debug.as_deref(), "--fixed-debug")?;
    Ok((base, fixed))
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

fn load(path: &Path, debug: Option<&Path>, option: &str) -> Result<Image, Failure> {
    let fail = |error: ImageError| {
        let failure = Failure::new(USAGE, format!("{}: {error}", path.display()));
        match error {
            ImageError::ForeignDebugFile { .. } => failure.hint(format!(
                "give the debug file of this very build with {option} FILE"
            )),
            _ => failure.hint("give two linked 64-bit x86 ELF programs or libraries"),
        }
    };
    let file: Arc<[u8]> = read_file(path)?.into();
    let image = Image::parse(Arc::clone(&file), None).map_err(fail)?;
    if image.has_symbols && debug.is_none() {
        return Ok(image);
    }
    let found = match debug {
        Some(path) => Some(path.to_owned()),
        None => installed_debug_file(&image),
    };
    let Some(found) = found else {
        let id = image
            .build_id
            .as_ref()
            .map_or("none".to_owned(), ToString::to_string);
        return Err(Failure::new(
            REFUSED,
            format!(
                "{}: stripped, and its debug file was not found (build id {id})",
                path.display()
            ),
        )
        .hint(format!(
            "install its debug package, or give the file with {option} FILE"
        )));
    };
    let debug = read_file(&found)?;
    let image = Image::parse(file, Some(&debug)).map_err(fail)?;
    if !image.has_symbols {
        return Err(Failure::new(
            REFUSED,
            format!("{}: holds no symbol table", found.display()),
        )
        .hint(format!(
            "give the debug file of this very build with {option} FILE"
        )));
    }
    Ok(image)
}

/// Where distributions install the debug file of a build.
fn installed_debug_file(image: &Image) -> Option<PathBuf> {
    let id = image.build_id.as_ref()?.to_string();
    let (head, tail) = id.split_at_checked(2)?;
    let path = PathBuf::from(format!("/usr/lib/debug/.build-id/{head}/{tail}.debug"));
    path.is_file().then_some(path)
}
