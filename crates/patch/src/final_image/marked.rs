//! The functions that were compiled for hot patching, held against those whose code in the fixed
//! image runs: who says the first is a list or the compiler's own records (`S_HOTPATCHFUNC`).

use std::cell::OnceCell;
use std::collections::{BTreeSet, HashMap};

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
        let sources: BTreeSet<String> = marked.iter().map(|name| source(name)).collect();
        let missing = c.hot.iter().filter(|hot| !is_marked(hot.fixed.main));
        let missing = missing.map(|hot| Unmatched {
            name: c
                .fixed
                .compiled_name(c.fixed.entity(hot.fixed.main).symbol())
                .to_owned(),
            why: why_missing(c, hot, &sources),
        });
        let mut missing: Vec<Unmatched> = missing.collect();
        missing.sort();
        let names = Names::of(c);
        let surplus = marked.iter().filter_map(|name| {
            // Of private ones of one name any may be meant.
            let found = names.called(name).max_by_key(|id| running.contains(id));
            let why = match found {
                Some(id) if running.contains(&id) => return None,
                Some(_) => "is the same in both builds".to_owned(),
                None => names.why_absent(c, name),
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

/// `sources` are the names that the source has for what is marked.
fn why_missing(c: &Comparison<'_>, hot: &Hot, sources: &BTreeSet<String>) -> String {
    // The usual surprise: what is marked is inlined here, and the mark does not come with it.
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

/// Everything that has a name in the fixed image, by its names: a list may be as long as they are many.
struct Names<'c> {
    /// By the names of linkers and compilers.
    all: HashMap<&'c str, Vec<EntityId>>,
    /// Private ones, by what debug data call them.
    private: HashMap<&'c str, Vec<EntityId>>,
    /// Functions by the source's name of what was inlined in them, with each chain; made when first asked.
    inlined: OnceCell<HashMap<String, BTreeSet<String>>>,
}

impl<'c> Names<'c> {
    fn of(c: &'c Comparison<'_>) -> Names<'c> {
        let (mut all, mut private) = (HashMap::new(), HashMap::new());
        let put = |into: &mut HashMap<&'c str, Vec<EntityId>>, name, id| {
            let ids = into.entry(name).or_default();
            if ids.last() != Some(&id) {
                ids.push(id);
            }
        };
        for id in ids(c) {
            for symbol in &c.fixed.entity(id).names {
                put(&mut all, &*symbol.name, id);
                put(&mut all, c.fixed.compiled_name(symbol), id);
                if symbol.binding == Binding::Local {
                    put(&mut private, &*symbol.name, id);
                }
            }
        }
        Names {
            all,
            private,
            inlined: OnceCell::new(),
        }
    }

    /// What a list or a record may mean by `name`.
    fn called(&self, name: &str) -> impl Iterator<Item = EntityId> {
        let all = self.all.get(name);
        let private = private(name).and_then(|name| self.private.get(&*name));
        let both: Vec<EntityId> = all.into_iter().chain(private).flatten().copied().collect();
        both.into_iter()
    }

    /// Why a marked function is none of the fixed image: it was inlined everywhere, or never was.
    fn why_absent(&self, c: &Comparison<'_>, name: &str) -> String {
        let inlined = self.inlined.get_or_init(|| {
            let mut inlined: HashMap<String, BTreeSet<String>> = HashMap::new();
            for id in ids(c) {
                for chain in chains(c, id) {
                    if let Some(last) = chain.last() {
                        let function = demangle(c.fixed.entity(id).name());
                        let told = format!("{function} → {}", chain.join(" → "));
                        inlined.entry(source(last)).or_default().insert(told);
                    }
                }
            }
            inlined
        });
        let callers = inlined.get(&source(name)).into_iter().flatten();
        let told: Vec<&str> = callers.take(MOST_CHAINS).map(String::as_str).collect();
        match told.is_empty() {
            true => "is no function of the fixed build".to_owned(),
            false => format!(
                "was inlined wherever it is called, and the mark does not go with it: {}",
                told.join(", ")
            ),
        }
    }
}
