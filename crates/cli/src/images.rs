//! Images and patches from files.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use invivo_image::Image;
use invivo_image::pe::{Pdb, PeError, PeImage};

use crate::arguments::Pair;
use crate::debug_files::Search;
use crate::failure::{Failure, REFUSED, USAGE};
use crate::objects;
use crate::unread::is_root;

/// The largest image that is read, in bytes.
const LARGEST: usize = 4 << 30;

/// Reads both images of a pair.
pub(crate) fn load_pair(pair: &Pair) -> Result<(Image, Image), Failure> {
    if objects::is_of_objects(&pair.base) || objects::is_of_objects(&pair.fixed) {
        return objects::load_pair(pair);
    }
    let load = |program: &Path, given: &Option<PathBuf>, option| {
        load(&Search {
            program,
            given: given.as_deref(),
            option,
            folders: &pair.debug_directory,
        })
    };
    let (base, fixed) = rayon::join(
        || load(&pair.base, &pair.base_debug, "--base-debug"),
        || load(&pair.fixed, &pair.fixed_debug, "--fixed-debug"),
    );
    let (base, fixed) = (base?, fixed?);
    if base.is_windows() != fixed.is_windows() {
        let text = "one of the two is a Windows image, the other is not";
        return Err(Failure::new(USAGE, text).hint("give two builds of one program"));
    }
    Ok((base, fixed))
}

/// Reads an image and the debug files that belong to it.
pub(crate) fn load(search: &Search<'_>) -> Result<Image, Failure> {
    let program = search.program;
    let bytes = read_file(program)?;
    if PeImage::is_pe(&bytes) {
        return load_windows(search, bytes);
    }
    let mut image = Image::parse(bytes, None).map_err(|error| {
        Failure::new(USAGE, format!("{}: {error}", program.display()))
            .hint("give a linked 64-bit x86 program or library: ELF, or a Windows image")
    })?;
    search.complete(&mut image)?;
    Ok(image)
}

/// Reads a Windows image with its PDB file: the one that was named, or the one beside it that
/// bears the name which the image gives.
fn load_windows(search: &Search<'_>, bytes: Arc<[u8]>) -> Result<Image, Failure> {
    let program = search.program;
    let image = parse_pe(program, bytes)?;
    let named = named_pdb(program, &image);
    let option = search.option;
    let Some(path) = search.given.map(Path::to_owned).or(named) else {
        let text = format!("{}: it names no PDB file", program.display());
        return Err(Failure::new(REFUSED, text).hint(format!(
            "link it with /debug, or name the file with {option} FILE"
        )));
    };
    let hint = format!("keep the PDB file beside the image, or name it with {option} FILE");
    let fail =
        |error: PeError| Failure::new(REFUSED, format!("{}: {error}", path.display())).hint(&hint);
    let pdb = read_pdb(&path, fail).map_err(|failure| failure.hint(&hint))?;
    pdb.check(&image).map_err(fail)?;
    Image::from_pe(&image, &pdb).map_err(|error| {
        Failure::new(REFUSED, format!("{}: {error}", program.display()))
            .hint("linked images with base relocations, for one machine, can be compared; others can be looked at with: invivo inspect")
    })
}

/// The file beside an image that bears the name of its PDB file.
pub(crate) fn named_pdb(program: &Path, image: &PeImage) -> Option<PathBuf> {
    let view = image.code_view()?;
    let name = view.path.rsplit(['/', '\\']).next().unwrap_or(&view.path);
    Some(program.with_file_name(name))
}

/// Reads a PDB file: what is needed of it, since the largest have hundreds of megabytes.
pub(crate) fn read_pdb(path: &Path, fail: impl Fn(PeError) -> Failure) -> Result<Pdb, Failure> {
    let unread = |error: std::io::Error| unreadable(path, &error);
    let file = File::open(path).map_err(unread)?;
    if file.metadata().map_err(unread)?.is_file() {
        return Pdb::open(file).map_err(fail);
    }
    // A pipe is read once, from its beginning.
    Pdb::parse(&read_file(path)?).map_err(fail)
}

/// Reads a Windows image.
pub(crate) fn load_pe(path: &Path) -> Result<PeImage, Failure> {
    parse_pe(path, read_file(path)?)
}

/// The Windows image that these bytes are; `path` is for messages.
pub(crate) fn parse_pe(path: &Path, bytes: Arc<[u8]>) -> Result<PeImage, Failure> {
    PeImage::parse(bytes).map_err(|error| {
        Failure::new(USAGE, format!("{}: {error}", path.display()))
            .hint("give a linked Windows program, library or driver for x86, x86-64 or ARM64")
    })
}

/// Why a file cannot be read, and what may help.
fn unreadable(path: &Path, error: &std::io::Error) -> Failure {
    let failure = Failure::new(USAGE, format!("{}: {error}", path.display()));
    // A file that is not there because its folder is not is the more telling mistake.
    let above = path.ancestors().skip(1);
    let missing = above.filter(|above| !above.as_os_str().is_empty() && !above.exists());
    let missing = missing.last();
    match (error.kind(), missing) {
        (ErrorKind::NotFound, Some(folder)) => {
            failure.hint(format!("there is no folder {}", folder.display()))
        }
        (ErrorKind::NotFound, None) => {
            let folder = path
                .parent()
                .filter(|folder| !folder.as_os_str().is_empty());
            let folder = folder.unwrap_or(Path::new("."));
            failure.hint(format!("see what is there with: ls {}", folder.display()))
        }
        (ErrorKind::PermissionDenied, _) if !is_root() => {
            failure.hint("run it as a user who may read it, or as root: sudo invivo …")
        }
        (ErrorKind::IsADirectory, _) => failure.hint("give a file, not a folder"),
        _ => failure,
    }
}

/// Reads a whole file, straight to where it stays: a second copy of the largest images
/// would be what takes most memory.
pub(crate) fn read_file(path: &Path) -> Result<Arc<[u8]>, Failure> {
    let fail = |error: std::io::Error| unreadable(path, &error);
    let mut file = File::open(path).map_err(fail)?;
    let data = file.metadata().map_err(fail)?;
    if !data.is_file() {
        // A pipe does not say how long it is.
        let mut bytes = Vec::new();
        let mut bounded = file.take(LARGEST as u64);
        bounded.read_to_end(&mut bytes).map_err(fail)?;
        return Ok(bytes.into());
    }
    let size = data.len();
    let size = usize::try_from(size).ok().filter(|size| *size <= LARGEST);
    let Some(size) = size else {
        let text = format!("{}: larger than 4 GiB", path.display());
        return Err(Failure::new(USAGE, text));
    };
    let mut bytes: Arc<[u8]> = std::iter::repeat_n(0, size).collect();
    let room = Arc::get_mut(&mut bytes).expect("nobody else has it yet");
    file.read_exact(room).map_err(fail)?;
    Ok(bytes)
}
