//! What Xen answers to a payload: its checks, one by one and in its order; and what it does not
//! check and should.
//!
//! ```text
//! file ─► place ─► resolve symbols ─► relocate ─► sections ─► functions ─► notes ─► names ─► apply
//! ```

use std::collections::HashSet;

use invivo_image::BuildId;

use super::file::{File, shown};
use super::hypervisor::Hypervisor;
use super::rules::Effect;
use super::version::XenVersion;
use super::{LivepatchError, Rule};
use memory::Memory;

mod apply;
mod functions;
mod harm;
mod memory;
mod names;
mod notes;
mod records;
mod relocations;
mod sections;

/// Something that breaks a rule.
pub type Finding = LivepatchError;

/// Findings that are told; a broken file could have millions.
const MOST_FINDINGS: usize = 100;

/// Which hypervisor, and what was done to it.
#[derive(Clone, Copy, Debug)]
pub struct Options<'o> {
    /// Its release.
    pub version: XenVersion,
    /// Its names and code; without them only the payload is looked at.
    pub xen: Option<&'o Hypervisor<'o>>,
    /// The build id that it runs under, if that is not the one of `xen`: that of `xen.efi`.
    pub running: Option<&'o BuildId>,
    /// The payloads that were uploaded and applied, in that order.
    pub loaded: &'o [Loaded],
}

/// A payload that the hypervisor has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// Its build id.
    pub id: BuildId,
    /// The names of it that later payloads find.
    pub names: HashSet<Vec<u8>>,
    /// The functions of Xen that nothing enters while it is live, and that have no jump:
    /// [`super::bypassed`].
    pub bypassed: HashSet<Vec<u8>>,
}

/// What Xen is expected to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prediction {
    /// The release that was asked about.
    pub version: XenVersion,
    /// What is wrong, in the order in which Xen looks; the first one is its answer. What it does
    /// not look at comes last.
    pub findings: Vec<Finding>,
    /// True if there are more findings, which are not told.
    pub more: bool,
    /// Rules that could not be looked at in full without the hypervisor's names and code.
    pub without_xen: Vec<Rule>,
    /// The rule for which a replace leaves nothing live at all: Xen takes all other payloads back, and
    /// only then holds what this one expects against memory. `None` too where it refuses the replace
    /// before that.
    pub unpatched: Option<Rule>,
    /// What the hypervisor then has, if it takes the payload.
    pub loaded: Option<Loaded>,
}

impl Prediction {
    /// What the upload ends with: an error, or harm; `None` if Xen takes the payload.
    #[must_use]
    pub fn upload(&self) -> Option<(Rule, Effect)> {
        self.first(|effect| matches!(effect, Effect::Upload(_) | Effect::Harm("upload")))
    }

    /// The same of the first apply, if the upload succeeds.
    #[must_use]
    pub fn apply(&self) -> Option<(Rule, Effect)> {
        self.first(|effect| matches!(effect, Effect::Apply(_) | Effect::Harm("apply")))
    }

    /// True if nothing forbids the payload; it may still have limits.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        let mut effects = self.findings.iter().map(|f| f.rule.effect(self.version));
        effects.all(Effect::is_limit)
    }

    fn first(&self, wanted: impl Fn(Effect) -> bool) -> Option<(Rule, Effect)> {
        let effects = self
            .findings
            .iter()
            .map(|f| (f.rule, f.rule.effect(self.version)));
        effects.into_iter().find(|(_, effect)| wanted(*effect))
    }
}

/// Tells what Xen answers to a file of these bytes.
#[must_use]
pub fn predict(bytes: &[u8], options: &Options<'_>) -> Prediction {
    let mut found = Findings::new(options.version);
    let file = match File::parse(bytes) {
        Ok(file) => file,
        Err(finding) => {
            found.findings.push(finding);
            return found.end(None);
        }
    };
    let mut loader = Loader {
        file: &file,
        options: *options,
        found,
        memory: Memory::default(),
        values: Vec::new(),
        functions: Vec::new(),
    };
    let own = loader.upload().map(|mut own| {
        own.bypassed = bypassed_by(bytes);
        own
    });
    loader.apply();
    loader.harm();
    loader.found.end(own)
}

/// The functions that a payload leads past, if it is one that can be read.
fn bypassed_by(file: &[u8]) -> HashSet<Vec<u8>> {
    let Ok(read) = super::read(file) else {
        return HashSet::new();
    };
    let names = super::bypassed(&read.payload);
    names
        .into_iter()
        .map(|name| name.as_bytes().to_vec())
        .collect()
}

/// What Xen's loader knows while it works.
struct Loader<'l> {
    file: &'l File<'l>,
    options: Options<'l>,
    found: Findings,
    memory: Memory,
    /// What each symbol is worth.
    values: Vec<Value>,
    functions: Vec<functions::Seen>,
}

/// An address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Value {
    Known(u64),
    /// One in Xen, without its names, or in an earlier payload.
    Unknown,
    /// A symbol whose section is not loaded.
    Ignored,
}

impl Loader<'_> {
    /// The checks of an upload; what the hypervisor has then.
    fn upload(&mut self) -> Option<Loaded> {
        let is_early = self.options.version >= XenVersion::EARLY_ID;
        if is_early {
            self.hypervisor_id();
        }
        if !self.place() {
            return None;
        }
        self.resolve();
        self.relocate();
        self.special_sections();
        self.patching_sections();
        self.look_at_functions();
        self.hook_sections();
        let id = self.own_notes();
        self.records();
        self.modinfo();
        if !is_early {
            self.hypervisor_id();
        }
        let names = self.own_names();
        Some(Loaded {
            id: id?,
            names,
            bypassed: HashSet::new(),
        })
    }

    /// Where Xen finds a name that is undefined.
    fn find(&mut self, name: &[u8], rule: Rule, what: &str) -> Value {
        if name.is_empty() {
            self.found.add(rule, format!("{what} has no name"));
            return Value::Unknown;
        }
        let below = self.options.loaded.iter();
        if below
            .into_iter()
            .any(|loaded| loaded.bypassed.contains(name))
        {
            let text = format!("{what} {} is led past by an earlier payload", shown(name));
            self.found.add(Rule::X68, text);
        }
        if let Some(known) = self.options.xen.and_then(|xen| xen.find(name)) {
            return Value::Known(known.address);
        }
        let is_loaded = self
            .options
            .loaded
            .iter()
            .any(|loaded| loaded.names.contains(name));
        if is_loaded {
            return Value::Unknown;
        }
        match self.options.xen {
            Some(_) => self
                .found
                .add(rule, format!("{what} {} is not known", shown(name))),
            None => self.found.without_xen(rule),
        }
        Value::Unknown
    }
}

struct Findings {
    version: XenVersion,
    findings: Vec<Finding>,
    more: bool,
    without_xen: Vec<Rule>,
    unpatched: Option<Rule>,
}

impl Findings {
    fn new(version: XenVersion) -> Findings {
        Findings {
            version,
            findings: Vec::new(),
            more: false,
            without_xen: Vec::new(),
            unpatched: None,
        }
    }

    fn add(&mut self, rule: Rule, text: String) {
        if self.findings.len() < MOST_FINDINGS {
            self.findings.push(Finding::new(rule, text));
        } else {
            self.more = true;
        }
    }

    fn without_xen(&mut self, rule: Rule) {
        if let Err(place) = self.without_xen.binary_search(&rule) {
            self.without_xen.insert(place, rule);
        }
    }

    fn end(self, loaded: Option<Loaded>) -> Prediction {
        let mut prediction = Prediction {
            version: self.version,
            findings: self.findings,
            more: self.more,
            without_xen: self.without_xen,
            unpatched: self.unpatched,
            loaded,
        };
        if prediction.upload().is_some() {
            prediction.unpatched = None;
            prediction.loaded = None;
        }
        prediction
    }
}
