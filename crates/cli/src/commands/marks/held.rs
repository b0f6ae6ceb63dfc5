//! What changed is held against what was compiled for hot patching, by whoever tells it.

use std::collections::BTreeSet;
use std::path::PathBuf;

use invivo_compare::Comparison;
use invivo_image::pe::HotPatchObject;
use invivo_image::{Link, demangle};
use invivo_patch::HotPatchMarks;

use super::{Absent, Marks, unread};
use crate::arguments::{Build, Format};
use crate::failure::{Failure, REFUSED};
use crate::images::read_file;
use crate::output::Output;

/// The object files of the fixed build that were given.
pub(crate) fn objects(build: &Build) -> Result<Vec<HotPatchObject>, Failure> {
    let read = |path: &PathBuf| {
        HotPatchObject::parse(&read_file(path)?).map_err(|error| unread(path, &error))
    };
    build.object.iter().map(read).collect()
}

/// The functions that the fixed build was compiled for, by all who tell: lists, object files, and
/// the PDB file. Where nobody tells there is nothing to hold.
fn marked(
    build: &Build,
    objects: &[HotPatchObject],
    c: &Comparison<'_>,
) -> Result<BTreeSet<String>, Failure> {
    let mut marked: BTreeSet<String> = build.functions_list.iter().cloned().collect();
    if let Some(path) = &build.functions_file {
        let text = String::from_utf8_lossy(&read_file(path)?).into_owned();
        // Compilers take each line as it is, and pass over names that they do not know.
        let lines = text.lines().filter(|line| !line.is_empty());
        marked.extend(lines.map(str::to_owned));
    }
    let told = objects.iter().flat_map(|object| object.functions.iter());
    marked.extend(told.cloned());
    let facts = c.fixed.pdb.iter();
    marked.extend(facts.flat_map(|facts| facts.hot_patch_functions.iter().cloned()));
    Ok(marked)
}

/// Says that what changed is held against nothing. Where code is led to the base place by place, nothing
/// has to be compiled for it.
fn tell_absent(c: &Comparison<'_>, output: &Output) {
    let absent = Marks::of_comparison(c).and_then(|marks| marks.absent);
    if let Some(Absent { why, remedy }) = absent {
        output.note(&format!("{why}\n{remedy}"));
    }
}

/// Refuses a fixed build that was compiled for other functions than those that changed.
pub(crate) fn hold_against_marks(
    build: &Build,
    objects: &[HotPatchObject],
    c: &Comparison<'_>,
    output: &Output,
) -> Result<(), Failure> {
    let marked = marked(build, objects, c)?;
    if marked.is_empty() {
        let counts =
            matches!(build.format, Format::Elf | Format::Final) || c.fixed.link != Link::Rebased;
        // Whoever has the list written is about to compile for it.
        if counts && build.emit_functions_file.is_none() {
            tell_absent(c, output);
        }
        return Ok(());
    }
    let marks = HotPatchMarks::new(c, &marked);
    if marks.agree() {
        return Ok(());
    }
    let mut text = "other functions were compiled for hot patching than changed:".to_owned();
    for (what, functions) in [("missing", &marks.missing), ("surplus", &marks.surplus)] {
        for one in functions {
            text.push_str(&format!("\n  {what}: {} {}", demangle(&one.name), one.why));
        }
    }
    Err(Failure::new(REFUSED, text).hint(
        "write the list with --emit-functions-file FILE, and build the fixed source again with \
         -fms-secure-hotpatch-functions-file=FILE",
    ))
}
