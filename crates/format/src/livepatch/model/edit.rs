//! Changes to a whole payload: its names, its hypervisor, its order.

use invivo_image::BuildId;

use super::super::function::{New, Old};
use super::super::hypervisor::Hypervisor;
use super::{Payload, Reference, SymbolPlace};

/// The longest way from an operand that tells a distance to the end of its instruction.
const FARTHEST: i64 = 16;

impl Payload {
    /// Symbols that are the new code of a function. They may have the name of the old one.
    pub fn new_code(&self) -> impl Iterator<Item = u32> + '_ {
        self.functions
            .iter()
            .filter_map(|function| match function.new {
                New::Code { code, .. } => Some(code.symbol),
                New::Nop { .. } => None,
            })
    }

    /// Takes the names of all of the payload's own symbols but those of new code, so that
    /// no name collides with one of Xen or of another payload.
    pub fn drop_names(&mut self) {
        self.rename(|_| String::new());
    }

    /// Appends `@mark` to the names of all of the payload's own symbols but those of new code.
    /// With a mark that no other payload has, traces show names and none collides.
    pub fn mark_names(&mut self, mark: &str) {
        self.rename(|name| match name.is_empty() {
            true => String::new(),
            false => format!("{name}@{mark}"),
        });
    }

    fn rename(&mut self, name: impl Fn(&str) -> String) {
        let kept: Vec<u32> = self.new_code().collect();
        for (number, symbol) in (0..).zip(&mut self.symbols) {
            if symbol.place != SymbolPlace::Xen && !kept.contains(&number) {
                symbol.name = name(&symbol.name);
            }
        }
    }

    /// Makes a payload that was made of the file `xen` fit a hypervisor that has the same names at other
    /// places, as `xen.efi` has its variables: what names do not tell is taken out, which is the code that
    /// it expects, since operands are part of it.
    ///
    /// # Errors
    ///
    /// The name of something of Xen that the payload leads to by its distance from something else, which
    /// is another one there. The payload is as it was then.
    pub fn by_names_alone(&mut self, xen: &Hypervisor<'_>) -> Result<(), String> {
        let by_distance = |to: &Reference| {
            let symbol = self.symbols.get(to.symbol as usize)?;
            let known = match symbol.place {
                SymbolPlace::Xen => xen.find(symbol.name.as_bytes())?,
                SymbolPlace::Section { .. } => return None,
            };
            let inside = -FARTHEST..=known.size.cast_signed();
            (!inside.contains(&to.addend)).then(|| symbol.name.clone())
        };
        let relocations = self.sections.iter();
        let relocations = relocations.flat_map(|section| &section.relocations);
        let mut references = relocations.map(|relocation| &relocation.to);
        if let Some(name) = references.find_map(by_distance) {
            return Err(name);
        }
        for function in &mut self.functions {
            function.expectation = None;
        }
        Ok(())
    }

    /// The same payload for another hypervisor, of which it is known to fit the code. A release has
    /// two: `xen.gz` and `xen.efi` have build ids of their own, and a payload names one. Where the
    /// payload depends on the hypervisor itself, that follows.
    #[must_use]
    pub fn for_hypervisor(&self, id: &BuildId) -> Payload {
        let mut payload = self.clone();
        if payload.xen_depends.as_ref() == Some(&payload.depends) {
            payload.depends = id.clone();
        }
        payload.xen_depends = Some(id.clone());
        payload
    }

    /// Puts hooks in the order of their moments, and symbols in the order of a file: those
    /// without a name before the others. [`read`](crate::livepatch::read()) gives a payload in this order.
    pub fn normalize(&mut self) {
        self.hooks.sort_by_key(|hook| hook.moment);
        let mut order: Vec<usize> = (0..self.symbols.len()).collect();
        let is_named = |number: &usize| {
            let symbol = &self.symbols[*number];
            symbol.place == SymbolPlace::Xen || !symbol.name.is_empty()
        };
        order.sort_by_key(is_named);
        let mut moved = vec![0; order.len()];
        for (now, before) in (0..).zip(&order) {
            moved[*before] = now;
        }
        self.symbols = order.iter().map(|n| self.symbols[*n].clone()).collect();
        let renumber = |reference: &mut Reference| {
            if let Some(now) = moved.get(reference.symbol as usize) {
                reference.symbol = *now;
            }
        };
        for function in &mut self.functions {
            if let New::Code { code, .. } = &mut function.new {
                renumber(code);
            }
            if let Old::Symbol(place) = &mut function.old {
                renumber(place);
            }
        }
        self.hooks
            .iter_mut()
            .for_each(|hook| renumber(&mut hook.code));
        let sections = self.sections.iter_mut();
        let relocations = sections.flat_map(|section| &mut section.relocations);
        relocations.for_each(|relocation| renumber(&mut relocation.to));
    }
}
