//! The functions that were compiled for hot patching, held against those whose code in the fixed
//! image runs: who says the first is a list or the compiler's own records (`S_HOTPATCHFUNC`).

use std::collections::BTreeSet;

use invivo_compare::{Comparison, Hot};
use invivo_image::{Binding, EntityId, demangle, is_rust};

/// A function of which the two differ, and why as far as it is known.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Unmatched {
    /// As compilers know it.
    pub name: String,
    /// What is inlined where, or what became of it.
    pub why: String,
}

/// What the two differ in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HotPatchMarks {
    /// Functions that changed or are new, and were not compiled for hot patching.
    pub missing: Vec<Unmatched>,
    /// Functions that were compiled for it and did not change.
    pub surplus: Vec<Unmatched>,
}

/// Chains of inlining that are told of one function.
const MOST_CHAINS: usize = 3;

impl HotPatchMarks {
    /// Holds `marked` (linkage names) against a comparison.
    #[must_use]
    pub fn new(c: &Comparison<'_>, marked: &BTreeSet<String>) -> HotPatchMarks {
        let hot = c.hot.iter().map(|hot| hot.fixed.main);
        let running: BTreeSet<EntityId> = hot.chain(c.added.iter().copied()).collect();
        let privates: BTreeSet<String> = marked.iter().filter_map(|name| private(name)).collect();
        let is_marked = |id: EntityId| {
            let mut names = c.fixed.entity(id).names.iter();
            names.any(|symbol| {
                let name = c.fixed.compiled_name(symbol);
                marked.contains(name)
                    || marked.contains(&*symbol.name)
                    || symbol.binding == Binding::Local && privates.contains(&*symbol.name)
            })
        };
        // What is new and uses none of the base's variables may be compiled in any way; what uses
        // one is refused when it is bound.
        let missing = c.hot.iter().filter(|hot| !is_marked(hot.fixed.main));
        let missing = missing.map(|hot| Unmatched {
            name: c
                .fixed
                .compiled_name(c.fixed.entity(hot.fixed.main).symbol())
                .to_owned(),
            why: why_missing(c, hot, marked),
        });
        let mut missing: Vec<Unmatched> = missing.collect();
        missing.sort();
        let surplus = marked.iter().filter_map(|name| {
            let private = private(name);
            let of_name = ids(c).filter(|id| {
                let mut names = c.fixed.entity(*id).names.iter();
                names.any(|symbol| {
                    let known = private.as_deref() == Some(&*symbol.name);
                    *symbol.name == **name
                        || c.fixed.compiled_name(symbol) == name.as_str()
                        || symbol.binding == Binding::Local && known
                })
            });
            // Of private ones of one name any may be meant.
            let found = of_name.max_by_key(|id| running.contains(id));
            let why = match found {
                Some(id) if running.contains(&id) => return None,
                Some(_) => "is the same in both builds".to_owned(),
                None => why_absent(c, name),
            };
            Some(Unmatched {
                name: name.clone(),
                why,
            })
        });
        HotPatchMarks {
            surplus: surplus.collect(),
            missing,
        }
    }

    /// True if there is no difference.
    #[must_use]
    pub fn agree(&self) -> bool {
        self.missing.is_empty() && self.surplus.is_empty()
    }
}

/// What a PDB file calls a private function of Rust or C++ that compilers know by `name`.
fn private(name: &str) -> Option<String> {
    if is_rust(name) {
        // Debug data write `f<T>`.
        return Some(demangle(name).replace("::<", "<"));
    }
    // `?twice@inner@@YAHH@Z`, and `?A0x1B2C3D4E` for a namespace without a name.
    let (path, _) = name.strip_prefix('?')?.split_once("@@")?;
    let part = |part: &str| match part.strip_prefix("?A0x") {
        Some(_) => Some("`anonymous namespace'".to_owned()),
        None => (!part.contains(['?', '$'])).then(|| part.to_owned()),
    };
    let parts: Option<Vec<String>> = path.rsplit('@').map(part).collect();
    Some(parts?.join("::"))
}

/// Everything that has a name in the fixed image.
fn ids(c: &Comparison<'_>) -> impl Iterator<Item = EntityId> {
    let count = u32::try_from(c.fixed.entities.len()).unwrap_or(u32::MAX);
    (0..count).map(EntityId)
}

/// What is inlined in a function, each chain from the outermost on.
fn chains<'c>(c: &'c Comparison<'_>, id: EntityId) -> Vec<Vec<&'c str>> {
    let facts = c.fixed.pdb.as_ref();
    facts.map_or_else(Vec::new, |facts| facts.inlined(c.fixed.entity(id).addr))
}

/// The name that a source has for a function.
fn source(name: &str) -> String {
    let name = demangle(name);
    let name = name.split('(').next().unwrap_or(&name);
    name.rsplit([' ', ':']).next().unwrap_or(name).to_owned()
}

fn why_missing(c: &Comparison<'_>, hot: &Hot, marked: &BTreeSet<String>) -> String {
    // The usual surprise: what is marked is inlined here, and the mark does not come with it.
    let sources: BTreeSet<String> = marked.iter().map(|name| source(name)).collect();
    let all = chains(c, hot.fixed.main);
    let of_marked = all.iter().filter(|chain| {
        let last = chain.last();
        last.is_some_and(|last| sources.contains(&source(last)))
    });
    let told: BTreeSet<String> = of_marked.map(|chain| chain.join(" → ")).collect();
    if !told.is_empty() {
        let told: Vec<String> = told.into_iter().take(MOST_CHAINS).collect();
        return format!(
            "changed, since what is compiled for hot patching was inlined in it: {} → {}",
            hot.name,
            told.join(", ")
        );
    }
    let reasons: Vec<&str> = hot.reasons.iter().map(|reason| &*reason.text).collect();
    let mut text = match reasons.first() {
        Some(reason) => format!("changed: {reason}"),
        None => "changed".to_owned(),
    };
    let told: BTreeSet<String> = all.iter().map(|chain| chain.join(" → ")).collect();
    if !told.is_empty() {
        let told: Vec<String> = told.into_iter().take(MOST_CHAINS).collect();
        text.push_str(&format!("; inlined in it: {}", told.join(", ")));
    }
    text
}

/// A marked function that the fixed image does not have: it was inlined everywhere, or never was.
fn why_absent(c: &Comparison<'_>, name: &str) -> String {
    let wanted = source(name);
    let mut callers = BTreeSet::new();
    for id in ids(c) {
        for chain in chains(c, id) {
            if chain.last().is_some_and(|last| source(last) == wanted) {
                let function = demangle(c.fixed.entity(id).name());
                callers.insert(format!("{function} → {}", chain.join(" → ")));
            }
        }
    }
    let told: Vec<String> = callers.into_iter().take(MOST_CHAINS).collect();
    match told.is_empty() {
        true => "is no function of the fixed build".to_owned(),
        false => format!(
            "was inlined wherever it is called, and the mark does not go with it: {}",
            told.join(", ")
        ),
    }
}
