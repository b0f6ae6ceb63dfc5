//! The two layouts of a type that changed, beside each other.

use std::collections::BTreeSet;

use invivo_compare::{Comparison, Finding, Rule, Source};
use invivo_image::TypeLayout;
use similar::{Algorithm, capture_diff_slices};

use crate::names::visible;

/// Members of a type that are shown.
const MOST: usize = 400;

/// A member before and after.
pub(crate) struct Member {
    pub(crate) base: Option<String>,
    pub(crate) fixed: Option<String>,
    pub(crate) same: bool,
}

/// The members of the type that a finding is about; empty if it is about no type.
pub(crate) fn members(c: &Comparison<'_>, finding: &Finding) -> Vec<Member> {
    let (Rule::Layout, Ok(base), Ok(fixed)) = (finding.rule, &c.base_source, &c.fixed_source)
    else {
        return Vec::new();
    };
    let used = |source: &Source| {
        source
            .types
            .get(&finding.subject)
            .map(|t| t.layouts.clone())
    };
    let only = |one: &BTreeSet<TypeLayout>, other: &BTreeSet<TypeLayout>| {
        one.difference(other).next().map(lines)
    };
    let layouts = used(base).zip(used(fixed));
    let Some((old, new)) = layouts.and_then(|(a, b)| only(&a, &b).zip(only(&b, &a))) else {
        return Vec::new();
    };
    let mut members = Vec::new();
    for op in capture_diff_slices(Algorithm::Patience, &old, &new) {
        let (one, other) = (&old[op.old_range()], &new[op.new_range()]);
        for index in 0..one.len().max(other.len()) {
            let (base, fixed) = (one.get(index).cloned(), other.get(index).cloned());
            members.push(Member {
                same: base == fixed,
                base,
                fixed,
            });
        }
    }
    members.truncate(MOST);
    members
}

/// A layout as text: what the type is and its size, then its members.
fn lines(layout: &TypeLayout) -> Vec<String> {
    let head = format!("{}, {} bytes", layout.kind, layout.size);
    let members = layout.members.iter().map(|member| {
        let (at, name, text) = (member.at, &member.name, &member.text);
        match (layout.kind, member.bits) {
            ("enum", _) => format!("{name} = {at}"),
            (_, Some(bits)) => format!("{at:>5} {name}: {text}, {bits} bits"),
            (_, None) => format!("{at:>5} {name}: {text}"),
        }
    });
    let lines = std::iter::once(head).chain(members);
    lines.map(|line| visible(&line)).collect()
}
