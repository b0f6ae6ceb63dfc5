//! Names of the payload (X42).

use std::collections::HashSet;

use super::super::Rule;
use super::super::file::{SHF_MERGE, SHN_UNDEF, shown};
use super::memory::Word;
use super::{Loader, Value};

impl Loader<'_> {
    /// Holds the names against those of Xen and of earlier payloads. Returns those that later
    /// ones will find.
    pub(super) fn own_names(&mut self) -> HashSet<Vec<u8>> {
        let news = self
            .functions
            .iter()
            .filter_map(|function| match function.new {
                Word::Known(new) => Some(new),
                Word::Unknown => None,
            });
        let news: HashSet<u64> = news.collect();
        let mut names = HashSet::new();
        for (symbol, value) in self.file.symbols.iter().zip(&self.values).skip(1) {
            let section = self.file.sections.get(usize::from(symbol.section));
            let section = section.filter(|s| symbol.section != SHN_UNDEF && s.is_loaded());
            let Some(section) = section.filter(|_| !symbol.name.is_empty()) else {
                continue;
            };
            let is_label = section.flags & SHF_MERGE != 0 && symbol.name.starts_with(b".L");
            let Value::Known(value) = value else { continue };
            if is_label || news.contains(value) {
                continue;
            }
            let in_xen = self
                .options
                .xen
                .is_some_and(|xen| xen.find(symbol.name).is_some());
            let loaded = self
                .options
                .loaded
                .iter()
                .any(|loaded| loaded.names.contains(symbol.name));
            if in_xen || loaded {
                let whose = if in_xen { "Xen" } else { "an earlier payload" };
                let text = format!("{} is a name of {whose}, too", shown(symbol.name));
                self.found.add(Rule::X42, text);
            } else if self.options.xen.is_none() {
                self.found.without_xen(Rule::X42);
            }
            names.insert(symbol.name.to_vec());
        }
        names
    }
}
