//! Build ids (X14, X36–X38), and `.modinfo` (X41, X49).

use invivo_image::BuildId;

use super::super::build_id::{Problem, parse};
use super::super::version::XenVersion;
use super::super::{DEPENDS, MODINFO, OWN_ID, Rule, XEN_DEPENDS};
use super::Loader;

impl Loader<'_> {
    /// X14. A missing or empty section was found before where Xen looks twice.
    pub(super) fn hypervisor_id(&mut self) {
        let is_early = self.options.version >= XenVersion::EARLY_ID;
        let Some((number, section)) = self.file.section(XEN_DEPENDS) else {
            if is_early {
                self.found
                    .add(Rule::X14, format!("{XEN_DEPENDS} is missing"));
            }
            return;
        };
        if !section.is_loaded() || section.kind == super::super::file::SHT_NOBITS {
            return self
                .found
                .add(Rule::X62, format!("{XEN_DEPENDS} is not loaded"));
        }
        if section.size == 0 && !is_early {
            return;
        }
        // The early look is at the file, before anything is relocated.
        let bytes = match self.memory.kept.get(&number).filter(|_| !is_early) {
            Some(kept) => &kept.bytes[..],
            None => self.file.contents(section),
        };
        let Ok(wanted) = parse(bytes) else {
            return self.found.add(
                Rule::X14,
                format!("{XEN_DEPENDS} is no note with a build id"),
            );
        };
        let running = self.options.running;
        match running.or_else(|| self.options.xen.and_then(|xen| xen.build_id())) {
            Some(running) if *running != wanted => {
                let text = format!("the payload is for {wanted}, the hypervisor is {running}");
                self.found.add(Rule::X14, text);
            }
            Some(_) => {}
            None => self.found.without_xen(Rule::X14),
        }
    }

    /// X36 to X38.
    pub(super) fn own_notes(&mut self) -> Option<BuildId> {
        let id = self.note(OWN_ID);
        let is_known = |id: &BuildId| self.options.loaded.iter().any(|loaded| loaded.id == *id);
        if let Some(id) = id.as_ref().filter(|id| is_known(id)) {
            let text = format!("a payload with the build id {id} was uploaded before");
            self.found.add(Rule::X38, text);
        }
        self.note(DEPENDS);
        id
    }

    fn note(&mut self, name: &str) -> Option<BuildId> {
        let number = self.loaded(name)?;
        let bytes = &self.memory.kept.get(&number)?.bytes;
        if bytes.is_empty() {
            // That was found before.
            return None;
        }
        match parse(bytes) {
            Ok(id) => Some(id),
            Err(problem) => {
                let (rule, what) = match problem {
                    Problem::Sizes => (Rule::X36, "sizes that do not fit"),
                    Problem::Other => (Rule::X37, "another type or name"),
                };
                self.found
                    .add(rule, format!("the note in {name} has {what}"));
                None
            }
        }
    }

    /// What the payload is built on.
    pub(super) fn depends(&self) -> Option<BuildId> {
        let (number, _) = self.file.section(DEPENDS)?;
        parse(&self.memory.kept.get(&number)?.bytes).ok()
    }

    pub(super) fn modinfo(&mut self) {
        let Some(number) = self.loaded(MODINFO) else {
            return;
        };
        let bytes = self.memory.kept.get(&number).map(|kept| &kept.bytes);
        match bytes.and_then(|bytes| bytes.last()) {
            None => self.found.add(Rule::X49, format!("{MODINFO} is empty")),
            Some(0) => {}
            Some(last) => self
                .found
                .add(Rule::X41, format!("{MODINFO} ends with {last:#x}")),
        }
    }
}
