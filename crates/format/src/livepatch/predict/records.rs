//! Special sections: bug frames, exception tables (X39), alternatives and call sites (X40, X65, X66).

use std::ops::Range;

use super::super::Rule;
use super::super::file::half;
use super::super::hypervisor::ALTERNATIVE;
use super::super::version::XenVersion;
use super::Loader;
use super::memory::Word;

pub(super) const ALTERNATIVES: &str = ".altinstructions";
pub(super) const CALL_SITES: &str = ".alt_call_sites";

/// Processor features, at most; Xen 4.20 has 704.
const MOST_FEATURES: u16 = 1024;
/// Set where the feature must not be there.
const INVERTED: u16 = 0x8000;
/// The longest instructions that Xen changes.
const LONGEST: u16 = 254;

impl Loader<'_> {
    pub(super) fn records(&mut self) {
        for frame in 0..4 {
            self.whole_records(&format!(".bug_frames.{frame}"), 8, Rule::X39);
        }
        self.alternatives();
        if self.options.version >= XenVersion::CALL_SITES {
            self.call_sites();
        }
        self.whole_records(".ex_table", 8, Rule::X39);
    }

    /// The section's number, if it is loaded and has whole records of `size` bytes.
    fn whole_records(&mut self, name: &str, size: u64, rule: Rule) -> Option<usize> {
        let number = self.loaded(name)?;
        let bytes = self.file.sections[number].size;
        if bytes.is_multiple_of(size) {
            return Some(number);
        }
        let text = format!("{name} has {bytes} bytes, {size} for each record");
        self.found.add(rule, text);
        None
    }

    fn alternatives(&mut self) {
        let Some(number) = self.whole_records(ALTERNATIVES, ALTERNATIVE as u64, Rule::X40) else {
            return;
        };
        let text = self.memory.text.clone();
        let table = std::mem::take(self.memory.kept.entry(number).or_default());
        if table.bytes.is_empty() {
            return;
        }
        if text.is_empty() {
            return self
                .found
                .add(Rule::X40, format!("{ALTERNATIVES} without code"));
        }
        let Some((replacements, section)) = self.file.section(".altinstr_replacement") else {
            return self.found.add(
                Rule::X40,
                format!("{ALTERNATIVES} without .altinstr_replacement"),
            );
        };
        let start = self.memory.place(replacements).unwrap_or(0);
        let replacements = start..start.saturating_add(section.size);
        let own = self.memory.place(number).unwrap_or(0);
        for (record, at) in table
            .bytes
            .chunks_exact(ALTERNATIVE)
            .zip((0..).step_by(ALTERNATIVE))
        {
            let (original, replacement) = (table.leads_to(at, own), table.leads_to(at + 4, own));
            let [length, with] = [record[10], record[11]].map(u64::from);
            if !is_inside(original, length, &text) {
                self.found.add(
                    Rule::X40,
                    format!(
                        "{ALTERNATIVES}: record {} is not about the payload's code",
                        at / ALTERNATIVE
                    ),
                );
            }
            if !is_inside(replacement, with, &replacements) {
                self.found.add(
                    Rule::X40,
                    format!(
                        "{ALTERNATIVES}: the replacement of record {} is elsewhere",
                        at / ALTERNATIVE
                    ),
                );
            }
        }
        // Xen looks at these while it changes the code, so when all places were found good.
        for (number, record) in table.bytes.chunks_exact(ALTERNATIVE).enumerate() {
            let [length, with, padding] = [record[10], record[11], record[12]].map(u16::from);
            let feature = half(record, 8) & !INVERTED;
            if with > length + padding || length + padding > LONGEST {
                let text = format!("record {number} puts {with} bytes on {length} and {padding}");
                self.found.add(Rule::X65, format!("{ALTERNATIVES}: {text}"));
            }
            if feature >= MOST_FEATURES {
                let text = format!("{ALTERNATIVES}: record {number} is for feature {feature:#x}");
                self.found.add(Rule::X66, text);
            }
        }
    }

    fn call_sites(&mut self) {
        let Some(number) = self.whole_records(CALL_SITES, 4, Rule::X40) else {
            return;
        };
        let text = self.memory.text.clone();
        let own = self.memory.place(number).unwrap_or(0);
        let table = std::mem::take(self.memory.kept.entry(number).or_default());
        for at in (0..table.bytes.len()).step_by(4) {
            // `call *disp32(%rip)` has 6 bytes.
            if !is_inside(table.leads_to(at, own), 6, &text) {
                self.found.add(
                    Rule::X40,
                    format!(
                        "{CALL_SITES}: record {} is not about the payload's code",
                        at / 4
                    ),
                );
            }
        }
    }
}

/// True if so many bytes from there on are inside, or if that cannot be known.
fn is_inside(at: Word, size: u64, range: &Range<u64>) -> bool {
    match at {
        Word::Unknown => true,
        Word::Known(at) => {
            at >= range.start && at.checked_add(size).is_some_and(|end| end <= range.end)
        }
    }
}
