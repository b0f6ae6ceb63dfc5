//! Names in which a number is all that tells two things of one function apart.
//!
//! Compilers count lambdas, closures, unnamed types and variables of one name from the beginning
//! of the function that has them: `_ZZ1fvE1c` and `_ZZ1fvE1c_0` are the first and the second `c`
//! of `f`. A fix that puts one in front moves all the numbers, so the name of one build is that of
//! its neighbour in the other. What such a name says without its numbers is its family.

use std::hash::{DefaultHasher, Hash, Hasher};

use foldhash::{HashMap, HashMapExt, HashSet};
use invivo_image::{
    EntityId, EntityKind, Image, Symbol, is_rust, source_name, stem, without_discriminator,
};

use crate::renumbered::{renumbered, renumbered_family};

/// One that a number tells from others of its family.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Member {
    /// A hash of the name without numbers, of the kind and of the file.
    pub(crate) family: u64,
    /// What was left out, in the order of the name; none in Rust's earlier names, which hide
    /// theirs in a hash.
    pub(crate) numbers: Vec<u64>,
    /// True if the numbers count from the beginning of a function.
    pub(crate) counted: bool,
}

/// Those of both images whose families have more than one name.
#[derive(Debug, Default)]
pub(crate) struct Families {
    pub(crate) base: HashMap<EntityId, Member>,
    pub(crate) fixed: HashMap<EntityId, Member>,
}

impl Families {
    pub(crate) fn of(base: &Image, fixed: &Image) -> Families {
        let (one, other) = rayon::join(|| renumbered(base), || renumbered(fixed));
        let words: HashSet<&str> = one.into_iter().chain(other).collect();
        let (mut one, mut other) = rayon::join(|| members(base, &words), || members(fixed, &words));
        let names = |image: &Image, members: &HashMap<EntityId, Member>| {
            let mut names: HashMap<u64, HashSet<u64>> = HashMap::new();
            for (id, member) in members {
                let name = hash(image.entity(*id).name());
                names.entry(member.family).or_default().insert(name);
            }
            names
        };
        let (in_base, in_fixed) = (names(base, &one), names(fixed, &other));
        // A variable that is the only one of its name on both sides has nothing to be taken for;
        // a function that is may have another number all the same.
        let is_shared = |kind: EntityKind, family: u64| {
            let (one, other) = (in_base.get(&family), in_fixed.get(&family));
            let several = |names: Option<&HashSet<u64>>| names.is_some_and(|n| n.len() > 1);
            several(one) || several(other) || kind != EntityKind::Object && one != other
        };
        one.retain(|id, member| is_shared(base.entity(*id).kind, member.family));
        other.retain(|id, member| is_shared(fixed.entity(*id).kind, member.family));
        Families {
            base: one,
            fixed: other,
        }
    }
}

fn members(image: &Image, words: &HashSet<&str>) -> HashMap<EntityId, Member> {
    let numbered = image.entity_ids().filter_map(|(id, entity)| {
        if entity.size == 0 {
            return None;
        }
        let symbol = entity.symbol();
        let (name, numbers, counted) = match family(&symbol.name, entity.kind) {
            Some((name, numbers)) => (name, numbers, true),
            None => {
                let (name, numbers) = renumbered_family(symbol, words)?;
                (name, numbers, false)
            }
        };
        let family = hash((name, entity.kind, file(symbol)));
        Some((
            id,
            Member {
                family,
                numbers,
                counted,
            },
        ))
    });
    numbered.collect()
}

fn file(symbol: &Symbol) -> Option<&str> {
    symbol.file.as_deref().filter(|_| !is_rust(&symbol.name))
}

fn hash(what: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    what.hash(&mut hasher);
    hasher.finish()
}

/// A name without its numbers, and those; none for names that have no such numbers.
fn family(name: &str, kind: EntityKind) -> Option<(String, Vec<u64>)> {
    if is_rust(name) {
        return rust(name, kind);
    }
    let (mangled, ending) = name.split_at(name.find('.').unwrap_or(name.len()));
    let rest = mangled.strip_prefix("_Z")?;
    let local = ["", "GV", "GR"].iter().any(|of| {
        let rest = rest.strip_prefix(of);
        rest.is_some_and(|rest| rest.starts_with('Z'))
    });
    let counts = ["Ul", "Ut", "$_"].iter().any(|word| rest.contains(word));
    if !local && !counts {
        return None;
    }
    let (mut text, mut numbers) = without_numbers(mangled);
    if kind == EntityKind::Object && local {
        let (head, number) = without_discriminator(&text);
        let head = head.len();
        numbers.push(number);
        text.truncate(head);
    }
    text.extend(ending.chars().filter(|c| !c.is_ascii_digit()));
    Some((text, numbers))
}

fn rust(name: &str, kind: EntityKind) -> Option<(String, Vec<u64>)> {
    let is_closure = match name.strip_prefix("_R") {
        Some(rest) => rest.contains('C'),
        // Earlier names do not say whose closure it is that a table leads to.
        None => ["$u7b$closure", "$u7b$vtable.shim", "6FnOnce", "5FnMut"]
            .iter()
            .any(|word| name.contains(word)),
    };
    if kind != EntityKind::Object && !is_closure {
        return None;
    }
    // What is behind the hash tells parts of one variable apart, and clones.
    let ending = match name.strip_prefix("_R") {
        Some(rest) => rest.find('.').map_or("", |dot| &rest[dot..]),
        None => name.get(stem(name).len() + 20..).unwrap_or_default(),
    };
    let ending = ending.split(".llvm.").next().unwrap_or_default();
    let spoken = source_name(name);
    let mut parts = spoken.split("{closure#");
    let mut text = parts.next().unwrap_or_default().to_owned();
    let mut numbers = Vec::new();
    for part in parts {
        let (number, rest) = part.split_once('}').unwrap_or((part, ""));
        numbers.push(number.parse().unwrap_or_default());
        text.push_str("{closure}");
        text.push_str(rest);
    }
    if kind != EntityKind::Object && name.starts_with("_R") && !text.contains("{closure}") {
        return None;
    }
    text.push_str(ending);
    Some((text, numbers))
}

/// Leaves the numbers out that C++ gives lambdas (`UlvE0_`, by clang also `3$_0`), unnamed types
/// (`Ut0_`) and the members of local classes of one name (`E_0`). Where a word of the source
/// looks like one of them two families become one, which says less and nothing wrong.
fn without_numbers(mangled: &str) -> (String, Vec<u64>) {
    let (mut text, mut numbers) = (String::with_capacity(mangled.len()), Vec::new());
    let (mut rest, mut lambdas) = (mangled, 0usize);
    while let Some(first) = rest.chars().next() {
        let unnamed = rest.strip_prefix("Ut").and_then(|rest| counted(rest, "_"));
        let lambda = rest.strip_prefix('E').and_then(|rest| counted(rest, "_"));
        let lambda = lambda.filter(|_| lambdas > 0);
        let clang = rest
            .trim_start_matches(|c: char| c.is_ascii_digit())
            .strip_prefix("$_")
            .and_then(|rest| counted(rest, ""));
        let member = rest.strip_prefix("E_").filter(|_| lambda.is_none());
        let member = member.and_then(|rest| {
            let digit = rest.chars().next()?.to_digit(10)?;
            Some((u64::from(digit) + 1, &rest[1..]))
        });
        let found = [
            (unnamed, "Ut_"),
            (lambda, "E_"),
            (clang, "$_"),
            (member, "E"),
        ];
        let found = found
            .into_iter()
            .find_map(|(found, put)| Some((found?, put)));
        if let Some(((number, behind), put)) = found {
            lambdas -= usize::from(put == "E_");
            numbers.push(number);
            text.push_str(put);
            rest = behind;
            continue;
        }
        lambdas += usize::from(rest.starts_with("Ul"));
        text.push(first);
        rest = &rest[first.len_utf8()..];
    }
    (text, numbers)
}

/// Digits and what ends them: no digits are the first, `0` is the second.
fn counted<'a>(text: &'a str, end: &str) -> Option<(u64, &'a str)> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, rest) = text.split_at(digits);
    let rest = rest.strip_prefix(end)?;
    let number = match number {
        "" => 0,
        number => number.parse::<u64>().ok()?.checked_add(1)?,
    };
    Some((number, rest))
}

#[cfg(test)]
mod tests {
    use invivo_image::EntityKind::{Function, Object};

    use super::family;

    fn numbers(name: &str, kind: invivo_image::EntityKind) -> Vec<u64> {
        family(name, kind).unwrap_or_default().1
    }

    #[test]
    fn what_differs_in_a_number_alone_is_of_one_family() {
        let families = [
            (
                Object,
                &["_ZZ1fvE1c", "_ZZ1fvE1c_0", "_ZZ1fvE1c_8", "_ZZ1fvE1c__12_"][..],
            ),
            (Object, &["_ZGVZ1fvE1c", "_ZGVZ1fvE1c_0"]),
            (
                Function,
                &["_ZZ5setupiENKUlvE_clEv", "_ZZ5setupiENKUlvE0_clEv"],
            ),
            (
                Function,
                &[
                    "_ZNSt17_Function_handlerIFvvEZ5setupiEUlvE_E9_M_invokeERKSt9_Any_data",
                    "_ZNSt17_Function_handlerIFvvEZ5setupiEUlvE11_E9_M_invokeERKSt9_Any_data",
                ],
            ),
            (
                Function,
                &["_ZZ5setupiENK3$_0clEv", "_ZZ5setupiENK4$_12clEv"],
            ),
            (Function, &["_ZN3fooUt_3barEv", "_ZN3fooUt0_3barEv"]),
            (Function, &["_ZZ1fvEN1L1gEv", "_ZZ1fvEN1L1gE_0v"]),
            (
                Function,
                &[
                    "_RNCNvCs6xxl1lAjzDf_1a5setup0B3_",
                    "_RNCNvCs6xxl1lAjzDf_1a5setups_0B3_",
                ],
            ),
            (
                Object,
                &[
                    "_RNvNvCs6xxl1lAjzDf_1a1f1C",
                    "_RNvNvCs6xxl1lAjzDf_1a1fs0_1C",
                ],
            ),
            (
                Function,
                &[
                    "_ZN1a5setup28_$u7b$$u7b$closure$u7d$$u7d$17h51019040cf7dfb54E",
                    "_ZN1a5setup28_$u7b$$u7b$closure$u7d$$u7d$17hec939c7c82ec7fa5E",
                ],
            ),
        ];
        for (kind, names) in families {
            let of = |name: &str| family(name, kind).expect(name).0;
            for name in names {
                assert_eq!(of(name), of(names[0]), "{name}");
            }
        }
        assert_eq!(numbers("_ZZ1fvE1c", Object), [0]);
        assert_eq!(numbers("_ZZ1fvE1c__12_", Object), [13]);
        assert_eq!(numbers("_ZZ5setupiENKUlvE_clEv", Function), [0]);
        assert_eq!(numbers("_ZZ5setupiENKUlvE0_clEv", Function), [1]);
    }

    #[test]
    fn a_number_of_the_source_stays() {
        let apart = [
            (Object, "_ZZ1fvE3x_0", "_ZZ1fvE3x_1"),
            (Object, "_ZZ1fvE1c", "_ZZ1fvE1d"),
            (Function, "_ZZ1fvENKUlvE_clEv", "_ZZ1gvENKUlvE_clEv"),
            (
                Object,
                "_ZN3std11THREAD_INFO17h0123456789abcdefE.0",
                "_ZN3std11THREAD_INFO17h0123456789abcdefE.1",
            ),
        ];
        for (kind, one, other) in apart {
            let of = |name| family(name, kind).map(|found| found.0);
            assert_ne!(of(one), of(other), "{one}");
        }
        for (kind, name) in [
            (Function, "_Z1fv"),
            (Function, "main"),
            (Object, "counter.3"),
        ] {
            assert_eq!(family(name, kind), None, "{name}");
        }
    }
}
