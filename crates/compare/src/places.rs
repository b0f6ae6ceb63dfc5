//! Where in the source the subject of a finding is declared.

use std::collections::{BTreeMap, BTreeSet};

use invivo_image::{DebugData, EntityKind, Image, LinkAddr, SourcePlace, Spoken, demangle};
use rayon::prelude::*;

use crate::Comparison;
use crate::rules::{Finding, Rule};

/// Adds the places, of the fixed image where it has the subject, else of the base. Findings
/// that tell of a place already are left as they are.
pub(crate) fn tell(
    c: &Comparison<'_>,
    base: Option<&DebugData<'_>>,
    fixed: Option<&DebugData<'_>>,
    findings: &mut [Finding],
) {
    let mut waiting: Vec<&mut Finding> = findings
        .iter_mut()
        .filter(|finding| !matches!(finding.rule, Rule::Layout | Rule::Signature))
        .collect();
    fill(c.fixed, fixed, &mut waiting);
    fill(c.base, base, &mut waiting);
}

/// Fills in the places that one image knows, and takes these findings from the list.
fn fill(image: &Image, debug: Option<&DebugData<'_>>, waiting: &mut Vec<&mut Finding>) {
    let Some(debug) = debug else { return };
    let subjects = waiting.iter().map(|finding| finding.subject.as_str());
    let found = declared(image, debug, &subjects.collect());
    for finding in &mut *waiting {
        finding.place = found.get(&finding.subject).map(SourcePlace::to_string);
    }
    waiting.retain(|finding| finding.place.is_none());
}

/// Where functions and variables of these names are declared. A name that several have
/// gets no place.
fn declared(
    image: &Image,
    debug: &DebugData<'_>,
    subjects: &BTreeSet<&str>,
) -> BTreeMap<String, SourcePlace> {
    let mut named: BTreeMap<String, Option<(LinkAddr, EntityKind)>> = BTreeMap::new();
    if subjects.is_empty() {
        return BTreeMap::new();
    }
    let spoken = Spoken::new(subjects.iter().copied());
    let entities = image.entities.par_iter();
    let entities = entities.filter(|entity| spoken.may_have(entity.name()));
    let entities = entities.filter_map(|entity| {
        let name = demangle(entity.name());
        let is_asked = subjects.contains(name.as_str());
        is_asked.then_some((name, (entity.addr, entity.kind)))
    });
    for (name, one) in entities.collect::<Vec<_>>() {
        let known = named.entry(name).or_insert(Some(one));
        *known = known.filter(|known| *known == one);
    }
    let one = |(name, found): (String, Option<_>)| Some((name, found?));
    let (functions, variables): (Vec<_>, Vec<_>) = named
        .into_iter()
        .filter_map(one)
        .partition(|(_, (_, kind))| *kind == EntityKind::Function);
    let at = variables.iter().map(|(_, (at, _))| *at).collect();
    let objects = debug.variables_declared(&at);
    let functions = functions
        .into_iter()
        .filter_map(|(name, (at, _))| Some((name, debug.function(at)?.declared?)));
    let variables = variables
        .into_iter()
        .filter_map(|(name, (at, _))| Some((name, objects.get(&at)?.place.clone())));
    functions.chain(variables).collect()
}
