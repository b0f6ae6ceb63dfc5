//! What Xen takes and does harm with (X54–X64).

use super::super::function::{JUMP, has_endbr, kept};
use super::super::model::Moment;
use super::super::model_check::PAGE;
use super::super::version::XenVersion;
use super::super::{FUNCTIONS, Rule};
use super::Loader;
use super::functions::Seen;
use super::memory::Word;

impl Loader<'_> {
    pub(super) fn harm(&mut self) {
        if self.memory.places.is_empty() {
            // Nothing is loaded.
            return;
        }
        self.alignments();
        let functions = std::mem::take(&mut self.functions);
        for seen in &functions {
            self.nops(seen);
            if !seen.is_nop() {
                self.is_code(seen.new, &seen.name);
            }
        }
        self.written_once(&functions);
        self.functions = functions;
        self.hooks();
        if self.options.version <= XenVersion::LAST_WITH_STATE
            && let Some((_, section)) = self.file.section(FUNCTIONS)
            && section.is_loaded()
            && !section.is_writable()
        {
            self.found
                .add(Rule::X60, format!("{FUNCTIONS} is not writable"));
        }
    }

    /// X59: Xen keeps what is there before it writes, and puts it back in the order in which it
    /// wrote. Where two write over each other, what the first wrote comes back last.
    fn written_once(&mut self, functions: &[Seen]) {
        let is_kept = self.options.version >= XenVersion::KEEPS_ENDBR;
        let places = functions.iter().filter_map(|seen| {
            let Word::Known(old) = seen.old else {
                return None;
            };
            let kept = seen.old_bytes(self.options.xen).map_or(0, kept);
            let size = if seen.is_nop() {
                seen.new_size.saturating_sub(kept)
            } else {
                JUMP
            };
            // Two that only look at one place are in each other's way, too.
            let size = u64::from(size.max(1));
            let start = old.saturating_add(kept.into());
            let end = start.saturating_add(size);
            // Where nobody knows both places may be written.
            Some((if is_kept { start } else { old }, end, &seen.name))
        });
        let mut places: Vec<_> = places.collect();
        places.sort_by_key(|(start, ..)| *start);
        let mut last: Option<(u64, &String)> = None;
        for (start, end, name) in places {
            if let Some((before, other)) = last
                && start < before
            {
                let text = format!("{name} and {other} are both written at {start:#x}");
                self.found.add(Rule::X59, text);
            }
            if last.is_none_or(|(before, _)| before < end) {
                last = Some((end, name));
            }
        }
    }

    /// X54 and X64.
    fn alignments(&mut self) {
        for section in self.file.sections.iter().skip(1).filter(|s| s.is_loaded()) {
            let rule = match section.align {
                0 => Rule::X54,
                align if align > PAGE => Rule::X64,
                _ => continue,
            };
            let text = format!("{} has the alignment {}", section.shown(), section.align);
            self.found.add(rule, text);
        }
    }

    /// X55 and X61.
    fn nops(&mut self, seen: &Seen) {
        if !seen.is_nop() {
            return;
        }
        let (name, size) = (&seen.name, seen.new_size);
        let Some(code) = seen.old_bytes(self.options.xen) else {
            self.found.without_xen(Rule::X55);
            return self.found.without_xen(Rule::X61);
        };
        // Without one, 0 bytes are none.
        if has_endbr(code) && size <= kept(code) {
            self.found.add(
                Rule::X55,
                format!("{size} NOPs in {name}, which begins with ENDBR64"),
            );
        }
        let code = code.get(..seen.old_size as usize).unwrap_or(code);
        // A build with return thunks ends with a jump of five bytes instead of `ret`.
        let tail = code.len().saturating_sub(JUMP as usize);
        let last = match code.get(tail) {
            Some(0xe9) => JUMP,
            _ => 1,
        };
        if size > seen.old_size.saturating_sub(last) {
            self.found.add(
                Rule::X61,
                format!("{size} NOPs in {name} reach its last instruction"),
            );
        }
    }

    /// X56, X57 and X58.
    fn hooks(&mut self) {
        for moment in Moment::ALL {
            let pointers = self.pointers(moment);
            for pointer in &pointers {
                match pointer {
                    Word::Known(0) if moment.is_list() => {
                        self.found
                            .add(Rule::X56, format!("a pointer of {} is 0", moment.section()));
                    }
                    Word::Known(0) => {}
                    pointer => self.is_code(*pointer, moment.section()),
                }
            }
            let replaces = matches!(moment, Moment::Apply | Moment::Revert);
            let is_there = pointers.iter().any(|pointer| *pointer != Word::Known(0));
            if replaces && is_there && !self.functions.is_empty() {
                self.found
                    .add(Rule::X58, format!("{} beside functions", moment.section()));
            }
        }
    }

    /// X57: code is in the payload's code or, where names are known, somewhere in Xen.
    fn is_code(&mut self, place: Word, whose: &str) {
        let Word::Known(place) = place else { return };
        let in_xen = self
            .options
            .xen
            .is_some_and(|xen| xen.is_start(place) && !xen.is_for_boot(place));
        if !self.memory.text.contains(&place) && !in_xen {
            self.found.add(
                Rule::X57,
                format!("{whose} leads to {place:#x}, where no code of the payload is"),
            );
        }
    }
}
