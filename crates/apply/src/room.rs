//! Where a patch gets its memory, and how much of it.

use invivo_image::LiveAddr;
use invivo_patch::{Patch, Redirect, RelocationKind, SectionKind, SymbolPlace};

use crate::layout::Shape;
use crate::x86_64::Choice;
use crate::{ApplyError, Layout, Module, Record, Target, find};

/// True if the memory of a patch that was taken back still holds what `layout` would
/// put there; its variables may have changed since.
pub(crate) fn is_intact(target: &dyn Target, layout: &Layout) -> bool {
    let at = LiveAddr(layout.region.start.0 + layout.record);
    target.holds(at, &layout.contents).unwrap_or(false)
}

/// The patch at its place: where it is already, or where there is room for it.
pub(crate) fn lay_out(
    target: &dyn Target,
    patch: &Patch,
    (module, imported): (&Module, &[LiveAddr]),
    entered: &[(&Redirect, LiveAddr, Option<Choice>)],
    choices: &[Choice],
    kept: Option<&Record>,
) -> Result<Layout, ApplyError> {
    let shape = Shape::new(patch, choices, record_room(patch))?;
    let low = patch
        .contents
        .sections
        .iter()
        .flat_map(|section| &section.relocations)
        .any(|relocation| {
            matches!(
                relocation.kind,
                RelocationKind::Absolute32 | RelocationKind::Absolute32Signed
            )
        });
    let start = match kept {
        Some(record) => record.region.0,
        None => find::room(&target.regions()?, module, shape.region + shape.data, low)?.start,
    };
    let hooks: Vec<(u32, &Choice)> = entered
        .iter()
        .filter_map(|(redirect, _, choice)| Some((redirect.replacement, choice.as_ref()?)))
        .collect();
    Layout::new(patch, &shape, start, module.start, imported, &hooks)
}

/// Bytes that the record of `patch` may take, in whole pages.
fn record_room(patch: &Patch) -> u64 {
    let names: usize = patch
        .redirects
        .iter()
        .map(|redirect| redirect.function.len() * 2)
        .sum();
    let labels: usize = patch
        .identity
        .labels
        .iter()
        .map(|label| label.len() * 2 + 8)
        .sum();
    let variables: usize = patch
        .contents
        .sections
        .iter()
        .map(|section| section.name.len() * 2)
        .sum();
    let text = |section: u32| {
        let section = patch.contents.sections.get(section as usize);
        section.is_some_and(|section| section.kind == SectionKind::Text)
    };
    let own: usize = patch
        .contents
        .symbols
        .iter()
        .filter(|s| matches!(s.place, SymbolPlace::Patch { section, .. } if text(section)))
        .map(|symbol| symbol.name.len() * 2 + 80)
        .sum();
    // Each hook is two places with old and new bytes as text, and two ranges.
    let hooks = patch.redirects.len() * 400 + patch.checks.len() * 64;
    let imports = patch.imports();
    let imports: usize = imports
        .map(|(name, version)| {
            let version = version.map_or(0, |v| v.version.len() + v.library.len());
            (name.len() + version) * 2 + 100
        })
        .sum();
    let unshared = patch.order.unshared.iter();
    let unshared: usize = unshared.map(|name| name.len() * 2 + 8).sum();
    let callouts = patch.callouts.iter();
    let callouts: usize = callouts.map(|c| c.function.len() * 2 + 120).sum();
    let fixed = callouts + imports + unshared + 2048 + patch.identity.name.len() * 6;
    ((names + labels + variables + own + hooks + fixed) as u64).next_multiple_of(0x1000)
}
