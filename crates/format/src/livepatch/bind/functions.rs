//! The functions that a payload replaces: their names in Xen, and what Xen is to expect there.

use invivo_compare::Rule;
use invivo_image::LinkAddr;
use invivo_patch as patch;

use super::super::function::{Function, New, Old, shortest_patchable};
use super::super::model::Reference;
use super::Binder;

impl Binder<'_> {
    pub(super) fn functions(&mut self, patch: &patch::Patch) {
        for redirect in patch.redirects.iter().filter(|redirect| redirect.hooked) {
            let name = &redirect.function;
            let addr = LinkAddr(self.base.base.0 + redirect.at.0);
            let Some(id) = self.base.entity_at(addr) else {
                continue;
            };
            let entity = self.base.entity(id);
            let replacement = patch.contents.symbols.get(redirect.replacement as usize);
            let code = self
                .symbols
                .get(redirect.replacement as usize)
                .copied()
                .flatten();
            let (Some(code), Some(patch::SymbolPlace::Patch { size, .. })) =
                (code, replacement.map(|symbol| &symbol.place))
            else {
                continue;
            };
            let section = self
                .base
                .section_at(addr)
                .map_or("", |section| &section.name);
            if section.starts_with(".init") {
                let text = "runs only while Xen boots; its memory was given back";
                self.refuse(Rule::Start, name, text);
                continue;
            }
            let bytes = self.base.bytes(addr, entity.size).unwrap_or_default();
            let least = shortest_patchable(bytes);
            if entity.size < u64::from(least) && !self.spliced {
                let text = format!(
                    "has {} bytes, and Xen writes its jump only into {least} or more; where only calls \
                     lead there, --splice callers leads them to the new code",
                    entity.size
                );
                self.refuse(Rule::Hook, name, text);
                continue;
            }
            let Some((found, known)) = self.find(id) else {
                let text = "has no name in this hypervisor that tells it from others";
                self.refuse(Rule::Binding, name, text);
                continue;
            };
            // What is applied below may have a jump there.
            let is_first = self.payload.xen_depends.as_ref() == Some(&self.payload.depends);
            let known = known.zip(self.hypervisor).filter(|_| is_first);
            let expectation = known.and_then(|(known, xen)| xen.expectation(known));
            let sizes = (u32::try_from(entity.size), u32::try_from(*size));
            let (Ok(old_size), Ok(size)) = sizes else {
                continue;
            };
            self.name_code(code, &found);
            self.payload.functions.push(Function {
                name: found,
                new: New::Code { code, size },
                old: Old::Name,
                old_size,
                expectation,
            });
        }
    }

    /// Gives new code the name of what it replaces, for whoever reads a trace of calls: nothing
    /// else of the payload may have a name that is in Xen. Not where the payload also refers to
    /// the replaced one.
    fn name_code(&mut self, code: Reference, name: &str) {
        let symbols = &mut self.payload.symbols;
        if !symbols.iter().any(|symbol| symbol.name == name)
            && let Some(symbol) = symbols.get_mut(code.symbol as usize)
        {
            name.clone_into(&mut symbol.name);
        }
    }
}
