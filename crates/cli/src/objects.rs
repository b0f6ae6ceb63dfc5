//! Object files that are not linked: one of each build, or a folder of each.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use invivo_image::{Image, ObjectFile};

use crate::arguments::Pair;
use crate::debug_files::Search;
use crate::failure::{Failure, USAGE};
use crate::images::read_file;

/// `e_type` of an object file, and where it is.
const RELOCATABLE: [u8; 2] = [1, 0];
const TYPE: std::ops::Range<usize> = 16..18;

/// True for a folder, and for a file that is an object file.
pub(crate) fn is_of_objects(path: &Path) -> bool {
    use std::io::Read;
    let mut head = [0; TYPE.end];
    let mut read = || std::fs::File::open(path)?.read_exact(&mut head);
    path.is_dir() || read().is_ok() && head.starts_with(b"\x7fELF") && head[TYPE] == RELOCATABLE
}

/// Reads the object files of both builds.
pub(crate) fn load_pair(pair: &Pair) -> Result<(Image, Image), Failure> {
    let (base, fixed) = (&pair.base, &pair.fixed);
    if base.is_dir() != fixed.is_dir() || !is_of_objects(base) || !is_of_objects(fixed) {
        let text = "object files cannot be compared with something else";
        return Err(Failure::new(USAGE, text).hint(
            "give two object files, or two folders with object files of the same names, or two \
             linked programs",
        ));
    }
    let (one, other) = if base.is_dir() {
        differing(folder(base)?, folder(fixed)?)
    } else {
        // They are the same file of two builds, whatever they are called.
        let label = base.file_name().unwrap_or(base.as_os_str());
        let file = |path: &Path| -> Result<Vec<ObjectFile>, Failure> {
            let (label, bytes) = (label.to_string_lossy().into_owned(), read_file(path)?);
            Ok(vec![ObjectFile { label, bytes }])
        };
        (file(base)?, file(fixed)?)
    };
    let (mut base, mut fixed) = Image::of_objects(&one, &other).map_err(|error| {
        Failure::new(USAGE, error.to_string())
            .hint("give the object files of one program, for x86-64, as the compiler writes them")
    })?;
    for (image, program, option) in [
        (&mut base, &pair.base, "--base-debug"),
        (&mut fixed, &pair.fixed, "--fixed-debug"),
    ] {
        let search = Search {
            program,
            given: None,
            option,
            folders: &pair.debug_directory,
        };
        search.complete(image)?;
    }
    Ok((base, fixed))
}

/// Without the files that are the same in both folders: nothing is to be found in them, and a
/// build tree holds much that is no part of the program. All of them if none differs.
fn differing(base: Vec<ObjectFile>, fixed: Vec<ObjectFile>) -> (Vec<ObjectFile>, Vec<ObjectFile>) {
    let without = |files: &[ObjectFile], others: &[ObjectFile]| -> Vec<ObjectFile> {
        let others: BTreeMap<&str, &[u8]> = others
            .iter()
            .map(|file| (&*file.label, &*file.bytes))
            .collect();
        let same = |file: &&ObjectFile| others.get(&*file.label) == Some(&&*file.bytes);
        files.iter().filter(|file| !same(file)).cloned().collect()
    };
    let (one, other) = (without(&base, &fixed), without(&fixed, &base));
    if one.is_empty() && other.is_empty() {
        return (base, fixed);
    }
    (one, other)
}

/// All object files below a folder, by their paths in it.
fn folder(root: &Path) -> Result<Vec<ObjectFile>, Failure> {
    let fail = |path: &Path, error: &dyn std::fmt::Display| {
        Failure::new(USAGE, format!("{}: {error}", path.display()))
    };
    let mut paths: Vec<PathBuf> = Vec::new();
    let mut waiting = vec![root.to_owned()];
    while let Some(folder) = waiting.pop() {
        for entry in std::fs::read_dir(&folder).map_err(|error| fail(&folder, &error))? {
            let entry = entry.map_err(|error| fail(&folder, &error))?;
            let (path, kind) = (entry.path(), entry.file_type());
            let kind = kind.map_err(|error| fail(&path, &error))?;
            if kind.is_dir() {
                waiting.push(path);
            } else if path.extension().is_some_and(|end| end == "o") {
                paths.push(path);
            }
        }
    }
    paths.sort();
    if paths.is_empty() {
        return Err(fail(root, &"no object files are in this folder (*.o)"));
    }
    let read = |path: &PathBuf| {
        let label = path.strip_prefix(root).unwrap_or(path);
        Ok(ObjectFile {
            label: label.to_string_lossy().into_owned(),
            bytes: read_file(path)?,
        })
    };
    paths.iter().map(read).collect()
}
