//! What Xen looks at when it applies (X44–X47), and what it will not do later (X43, X48).

use super::super::model::Moment;
use super::super::{FUNCTIONS, Hypervisor, Rule};
use super::Loader;
use super::functions::Seen;
use super::memory::Word;

impl Loader<'_> {
    pub(super) fn apply(&mut self) {
        self.order();
        let functions = std::mem::take(&mut self.functions);
        let before = self.found.findings.len();
        for seen in &functions {
            self.expectation(seen);
        }
        let unexpected = self.found.findings.get(before).map(|found| found.rule);
        self.functions = functions;
        let before = self.found.findings.len();
        self.limits();
        let mut limits = self.found.findings[before..].iter();
        let is_refused = limits.any(|found| found.rule == Rule::X48) || !self.is_on_xen();
        self.found.unpatched = unexpected.filter(|_| !is_refused);
    }

    /// Whether the payload is built on Xen itself, as far as that is known: Xen asks for it before a
    /// replace.
    fn is_on_xen(&self) -> bool {
        let xen = self.options.xen.and_then(|xen| xen.build_id());
        let xen = self.options.running.or(xen);
        self.depends()
            .zip(xen)
            .is_none_or(|(wanted, xen)| wanted == *xen)
    }

    /// X44.
    fn order(&mut self) {
        let Some(wanted) = self.depends() else { return };
        let xen = self.options.xen.and_then(|xen| xen.build_id());
        let last = self.options.loaded.last().map(|loaded| &loaded.id);
        match last.or(self.options.running).or(xen) {
            Some(last) if *last != wanted => {
                let text =
                    format!("the payload is built on {wanted}, what was applied last is {last}");
                self.found.add(Rule::X44, text);
            }
            Some(_) => {}
            None => self.found.without_xen(Rule::X44),
        }
    }

    /// X45 to X47.
    fn expectation(&mut self, seen: &Seen) {
        let header = seen.expectation[0];
        if header & 1 == 0 {
            return;
        }
        let length = usize::from(header >> 1 & 31);
        if header >> 6 != 0 {
            let text = format!("the expectation of {} begins with {header:#x}", seen.name);
            self.found.add(Rule::X45, text);
        }
        if length as u64 > u64::from(seen.old_size) {
            let text = format!(
                "{length} bytes are expected of {}, which has {}",
                seen.name, seen.old_size
            );
            self.found.add(Rule::X46, text);
        }
        let expected = &seen.expectation[1..1 + length];
        // `xen.efi` has the same names, and variables elsewhere: operands are other bytes there.
        let own = |xen: &&Hypervisor<'_>| {
            let ids = self.options.running.zip(xen.build_id());
            ids.is_none_or(|(running, own)| running == own)
        };
        let xen = self.options.xen.filter(own);
        let (Word::Known(address), Some(found)) = (seen.old, seen.old_bytes(xen)) else {
            return self.found.without_xen(Rule::X47);
        };
        let known = super::super::hypervisor::Known {
            address,
            size: length as u64,
        };
        let altered = xen.map(|xen| xen.altered(known)).unwrap_or_default();
        let differs = expected
            .iter()
            .zip(found)
            .zip(0..)
            .find(|((expected, found), at)| {
                expected != found && !altered.iter().any(|range| range.contains(at))
            });
        if let Some(((expected, found), at)) = differs {
            let text = format!(
                "{} has {found:#04x} at {at}, {expected:#04x} is expected",
                seen.name
            );
            self.found.add(Rule::X47, text);
        } else if let Some(range) = altered.first() {
            let text = format!(
                "{} changes at {} when Xen boots, which is expected not to",
                seen.name, range.start
            );
            self.found.add(Rule::X47, text);
        }
    }

    fn limits(&mut self) {
        let writable = self.file.sections.iter().skip(1);
        let mut writable = writable.filter(|s| s.is_loaded() && s.is_writable() && s.size > 0);
        if let Some(section) = writable.find(|section| section.name != FUNCTIONS.as_bytes()) {
            let text = format!(
                "{} is writable and has {} bytes",
                section.shown(),
                section.size
            );
            self.found.add(Rule::X43, text);
        }
        let around = [
            Moment::BeforeApply,
            Moment::AfterApply,
            Moment::BeforeRevert,
            Moment::AfterRevert,
        ];
        for moment in around {
            if self
                .pointers(moment)
                .iter()
                .any(|pointer| *pointer != Word::Known(0))
            {
                self.found
                    .add(Rule::X48, format!("there is {}", moment.section()));
            }
        }
    }

    /// The hooks of a moment.
    pub(super) fn pointers(&self, moment: Moment) -> Vec<Word> {
        let section = self.file.section(moment.section());
        let kept = section.and_then(|(number, _)| self.memory.kept.get(&number));
        let count = kept.map_or(0, |kept| kept.bytes.len() / 8);
        let words = kept.map(|kept| (0..count).map(|number| kept.long(number * 8)));
        words.into_iter().flatten().collect()
    }
}
