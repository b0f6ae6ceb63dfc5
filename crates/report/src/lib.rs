//! What does a comparison look like to a person? One HTML file that explains itself.
//!
//! The file holds all it needs and asks nobody for anything. Names in it come from images
//! that nobody vouches for: the templates escape them, and the file's own policy lets a
//! browser run no script but the one that is named there by its hash.

mod alignment;
mod graph;
mod listing;
mod names;
mod page;
mod policy;
mod rows;
mod subjects;
mod types;

use invivo_compare::Comparison;

/// What the two builds are called.
#[derive(Clone, Copy, Debug)]
pub struct Titles<'t> {
    /// The build that runs.
    pub base: &'t str,
    /// The build with the fix.
    pub fixed: &'t str,
}

/// What shows which functions of a Windows build were compiled for hot patching.
#[derive(Clone, Copy, Debug)]
pub struct Marks<'m> {
    /// It, line by line.
    pub lines: &'m [String],
    /// True if other functions were compiled for it than changed, which forbids a patch.
    pub forbid: bool,
}

/// The report of a comparison, as one HTML file.
///
/// # Panics
/// Never: text is written to a `String`, and the templates call nothing that fails.
#[must_use]
pub fn html(comparison: &Comparison<'_>, titles: Titles<'_>, marks: Marks<'_>) -> String {
    use askama::Template;
    page::Page::new(comparison, titles, marks)
        .render()
        .expect("writing to a String does not fail, and the templates call nothing that does")
}
