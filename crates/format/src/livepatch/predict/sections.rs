//! Sections: where they are placed (X15, X16), which must be there (X25, X26), hooks (X35).

use super::super::file::SHT_NOBITS;
use super::super::hypervisor::XEN_ROOM;
use super::super::model::Moment;
use super::super::version::XenVersion;
use super::super::{DEPENDS, FUNCTIONS, MODINFO, OWN_ID, Rule, XEN_DEPENDS};
use super::Loader;
use super::memory::Kept;
use super::records::{ALTERNATIVES, CALL_SITES};

const PAGE: u64 = 4096;

/// Sections whose contents Xen reads.
fn is_read(name: &[u8]) -> bool {
    let single = [
        FUNCTIONS,
        DEPENDS,
        XEN_DEPENDS,
        OWN_ID,
        MODINFO,
        ALTERNATIVES,
        CALL_SITES,
    ];
    let hooks = Moment::ALL.iter().map(|moment| moment.section());
    single
        .into_iter()
        .chain(hooks)
        .any(|own| own.as_bytes() == name)
}

impl Loader<'_> {
    /// Gives each section its place; false if there is none, so that nothing more can be told.
    pub(super) fn place(&mut self) -> bool {
        // Code, data, constants: each begins at a page.
        let mut sizes = [0_u128; 3];
        let mut offsets = vec![None];
        let mut is_sound = true;
        for section in self.file.sections.iter().skip(1) {
            let region = match (section.is_code(), section.is_writable()) {
                _ if !section.is_loaded() => {
                    offsets.push(None);
                    continue;
                }
                (true, true) => {
                    let text = format!("{} is writable and executable", section.shown());
                    self.found.add(Rule::X15, text);
                    is_sound = false;
                    continue;
                }
                (true, false) => 0,
                (false, true) => 1,
                (false, false) => 2,
            };
            // Without an alignment Xen's sum is 0, whatever is there already.
            let align = u128::from(section.align);
            let offset = match align {
                0 => 0,
                align => sizes[region].next_multiple_of(align),
            };
            sizes[region] = offset + u128::from(section.size);
            offsets.push(Some((region, offset)));
        }
        let page = u128::from(PAGE);
        let starts = [
            0,
            sizes[0].next_multiple_of(page),
            sizes[0].next_multiple_of(page) + sizes[1].next_multiple_of(page),
        ];
        let whole = starts[2] + sizes[2];
        if whole > u128::from(XEN_ROOM) {
            let text =
                format!("the payload takes {whole:#x} bytes, Xen has {XEN_ROOM:#x} with itself");
            self.found.add(Rule::X16, text);
            is_sound = false;
        }
        if !is_sound {
            return false;
        }
        let base = self
            .options
            .xen
            .map_or_else(|| super::Hypervisor::default().end(), |xen| xen.end());
        // All is less than `XEN_ROOM`, but for a section behind which one without an alignment
        // takes Xen's sum back to 0 (X54): that one may have been aligned to any number (X64).
        let at = |offset: u128| base.saturating_add(u64::try_from(offset).unwrap_or(u64::MAX));
        let places = offsets
            .iter()
            .map(|place| place.map(|(region, offset)| at(starts[region] + offset)));
        self.memory.places = places.collect();
        self.memory.text = at(0)..at(sizes[0]);
        self.keep();
        true
    }

    /// Holds what is in the sections that Xen reads.
    fn keep(&mut self) {
        for (number, section) in self.file.sections.iter().enumerate().skip(1) {
            let first = std::str::from_utf8(section.name)
                .ok()
                .and_then(|name| self.file.section(name));
            let is_first = first.is_some_and(|(first, _)| first == number);
            if !section.is_loaded() || !is_first || !is_read(section.name) {
                continue;
            }
            let bytes = match section.kind {
                SHT_NOBITS => vec![0; usize::try_from(section.size).unwrap_or(0)],
                _ => self.file.contents(section).to_vec(),
            };
            self.memory.kept.insert(number, Kept::new(bytes));
        }
    }

    /// X25, and X14 where it comes here.
    pub(super) fn special_sections(&mut self) {
        let is_early = self.options.version >= XenVersion::EARLY_ID;
        let wanted = [
            (DEPENDS, Rule::X25),
            (XEN_DEPENDS, Rule::X14),
            (OWN_ID, Rule::X25),
        ];
        for (name, rule) in wanted {
            if name == XEN_DEPENDS && is_early {
                continue;
            }
            match self.file.section(name) {
                None => self.found.add(rule, format!("{name} is missing")),
                Some((_, section)) if section.size == 0 => {
                    self.found.add(rule, format!("{name} is empty"));
                }
                Some(_) => {}
            }
        }
    }

    /// X26.
    pub(super) fn patching_sections(&mut self) {
        let names = [FUNCTIONS]
            .into_iter()
            .chain(Moment::ALL.map(Moment::section));
        let mut is_there = false;
        for name in names {
            let Some((_, section)) = self.file.section(name) else {
                continue;
            };
            is_there = true;
            if section.size == 0 {
                self.found.add(Rule::X26, format!("{name} is empty"));
            }
        }
        if !is_there {
            self.found
                .add(Rule::X26, "there are no functions and no hooks".to_owned());
        }
    }

    /// X35.
    pub(super) fn hook_sections(&mut self) {
        for moment in Moment::ALL {
            let Some((_, section)) = self.file.section(moment.section()) else {
                continue;
            };
            let size = section.size;
            self.loaded(moment.section());
            let is_right = match moment.is_list() {
                true => size.is_multiple_of(8),
                false => size == 8,
            };
            // An empty one was found before.
            if !is_right && size != 0 {
                self.found
                    .add(Rule::X35, format!("{} has {size} bytes", moment.section()));
            }
        }
    }

    /// A section that Xen reads; X62 where it is not loaded.
    pub(super) fn loaded(&mut self, name: &str) -> Option<usize> {
        let (number, section) = self.file.section(name)?;
        if section.is_loaded() {
            return Some(number);
        }
        self.found.add(Rule::X62, format!("{name} is not loaded"));
        None
    }
}
