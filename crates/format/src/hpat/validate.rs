//! The rules A01–A31, held against an image.

mod header;
mod records;
mod sites;

use std::collections::BTreeMap;

use invivo_image::pe::PeImage;

use super::read::{Parsed, read};
use super::{HpatError, Judge, Rule, Weight};

/// Something that breaks a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The rule.
    pub rule: Rule,
    /// Who would refuse it.
    pub judge: Judge,
    /// How it counts.
    pub weight: Weight,
    /// What is wrong, and where.
    pub text: String,
}

/// What an image is held against.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options<'a> {
    /// The build that the patch is for. Without it, rules about the base's side are left out.
    pub base: Option<&'a PeImage>,
    /// Entries of the address table behind each image; the default of enrolled machines is
    /// 512 (`HotPatchTableSize` 0x1000).
    pub capacity: Option<u32>,
}

/// What came of it.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// What breaks rules, in order of the rules; at most [`MOST_FINDINGS`] of each.
    pub findings: Vec<Finding>,
    /// How many more there are of a rule.
    pub more: BTreeMap<Rule, u64>,
    /// Rules that were not held against the base's side, since no base was given.
    pub without_base: Vec<Rule>,
    /// The metadata, as far as they could be followed.
    pub parsed: Option<Parsed>,
}

/// Findings of one rule that are told in words.
pub const MOST_FINDINGS: usize = 20;

/// Entries of the address table on a machine that was enrolled and not changed.
const USUAL_CAPACITY: u32 = 512;

impl Report {
    /// True if nothing forbids the patch.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        let mut findings = self.findings.iter();
        findings.all(|finding| finding.weight == Weight::Warned)
    }

    fn add(&mut self, weight: Weight, judge: Judge, rule: Rule, text: String) {
        if let Some(more) = self.more.get_mut(&rule) {
            *more += 1;
            return;
        }
        let same = self.findings.iter().filter(|found| found.rule == rule);
        if same.count() >= MOST_FINDINGS {
            self.more.insert(rule, 1);
            return;
        }
        self.findings.push(Finding {
            rule,
            judge,
            weight,
            text,
        });
    }

    fn kernel(&mut self, rule: Rule, text: String) {
        self.add(Weight::Refused, Judge::Kernel, rule, text);
    }

    fn strict(&mut self, rule: Rule, text: String) {
        self.add(Weight::Refused, Judge::Strict, rule, text);
    }

    fn warn(&mut self, rule: Rule, text: String) {
        self.add(Weight::Warned, Judge::Strict, rule, text);
    }
}

impl From<HpatError> for Finding {
    fn from(error: HpatError) -> Finding {
        Finding {
            rule: error.rule,
            judge: error.judge,
            weight: Weight::Refused,
            text: error.text,
        }
    }
}

/// Holds the metadata of `image` against every rule.
#[must_use]
pub fn validate(image: &PeImage, options: &Options<'_>) -> Report {
    let mut report = Report::default();
    if image.load_config.is_some_and(|config| config.chpe != 0) {
        let text = "the load configuration names ARM64EC metadata";
        report.kernel(Rule::A09, text.to_owned());
    }
    let parsed = match read(image) {
        Ok(parsed) => parsed,
        Err(error) => {
            report.findings.push(error.into());
            return report;
        }
    };
    header::check(&mut report, image, &parsed, options);
    if parsed.patch.extra_words > header::MOST_WORDS {
        // Nothing sensible can be said about records of such a size.
        report.parsed = Some(parsed);
        return report;
    }
    for (number, base) in parsed.patch.bases.iter().enumerate() {
        // With several bases the image that was given is one of them, or none.
        let given = options.base.filter(|given| header::is_of(base, given));
        let given = given.or(options.base.filter(|_| parsed.patch.bases.len() == 1));
        let look = records::Look {
            patch: image,
            base: given,
            number,
            capacity: options.capacity.unwrap_or(USUAL_CAPACITY),
        };
        records::check(&mut report, &look, base);
        sites::check(&mut report, &look, base);
    }
    if options.base.is_none() {
        report.without_base = [
            Rule::A16,
            Rule::A17,
            Rule::A23,
            Rule::A24,
            Rule::A25,
            Rule::A28,
            Rule::A30,
        ]
        .to_vec();
    }
    report.findings.sort_by_key(|finding| finding.rule);
    report.parsed = Some(parsed);
    report
}
