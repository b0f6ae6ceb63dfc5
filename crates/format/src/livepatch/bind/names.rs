//! What a thing of the base is in the hypervisor: its name, or its distance to something that has one.

use invivo_compare::Rule;
use invivo_image::{Entity, EntityId, LinkAddr, Rva};

use super::super::hypervisor::Known;
use super::super::model::{Reference, SymbolPlace};
use super::Binder;

impl Binder<'_> {
    /// A thing of the base: by its name, or by its distance to something that has one.
    pub(super) fn bind(&mut self, name: &str, at: Rva) -> Option<Reference> {
        let addr = LinkAddr(self.base.base.0 + at.0);
        let id = self.base.entity_at(addr);
        let Some(id) = id.filter(|id| self.base.entity(*id).addr == addr) else {
            self.refuse(
                Rule::Binding,
                name,
                "is no function and no variable of the base",
            );
            return None;
        };
        let found = self.find(id);
        let held = self.known.get(&id).copied();
        match (found, held) {
            (Some((_, Some(known))), Some(held)) if known.address != held => {
                let text = format!(
                    "is at {:#x} by its name, and the code of this hypervisor means {held:#x} by it",
                    known.address
                );
                self.refuse(Rule::Binding, name, text);
                None
            }
            (Some((_, Some(known))), _) if self.is_for_boot(known.address) => {
                let text = "is needed only while Xen boots; its memory was given back";
                self.refuse(Rule::Start, name, text);
                None
            }
            (Some((found, known)), _) => {
                let bound = self.add_symbol(&found, SymbolPlace::Xen);
                if let Some(known) = known {
                    self.anchor.get_or_insert((bound.symbol, known.address));
                }
                Some(bound)
            }
            (None, Some(held)) => self.bind_by_distance(name, held),
            (None, None) => {
                let text = match self.hypervisor {
                    Some(_) => "has no name in this hypervisor that tells it from others",
                    None => {
                        "is static, and its file's object does not tell its name in Xen: give \
                             the hypervisor's xen-syms with --xen"
                    }
                };
                self.refuse(Rule::Binding, name, text);
                None
            }
        }
    }

    fn is_for_boot(&self, address: u64) -> bool {
        self.hypervisor.is_some_and(|h| h.is_for_boot(address))
    }

    fn bind_by_distance(&mut self, name: &str, address: u64) -> Option<Reference> {
        if self.anchor.is_none()
            && let Some(known) = self.hypervisor.and_then(|h| h.find(b"_start"))
        {
            let bound = self.add_symbol("_start", SymbolPlace::Xen);
            self.anchor = Some((bound.symbol, known.address));
        }
        let Some((symbol, near)) = self.anchor else {
            self.refuse(Rule::Binding, name, "has no name, and nothing near has one");
            return None;
        };
        let addend = address.wrapping_sub(near).cast_signed();
        Some(Reference { symbol, addend })
    }

    /// The name under which Xen knows a thing of the base, and what it knows.
    pub(super) fn find(&self, id: EntityId) -> Option<(String, Option<Known>)> {
        let names = xen_names(self.base.entity(id));
        match self.hypervisor {
            Some(hypervisor) => names.into_iter().find_map(|name| {
                let known = hypervisor.find(name.as_bytes())?;
                Some((name, Some(known)))
            }),
            // The name of a file without its folder is not the whole of it.
            None => names
                .into_iter()
                .find(|name| {
                    name.split_once('#')
                        .is_none_or(|(file, _)| file.contains('/'))
                })
                .map(|name| (name, None)),
        }
    }
}

/// The names that Xen's own table may have for a thing: `printk`, and `common/keyhandler.c#show`
/// for what is static.
pub(super) fn xen_names(entity: &Entity) -> Vec<String> {
    let name = |symbol: &invivo_image::Symbol| match &symbol.file {
        Some(file) => format!("{file}#{}", symbol.name),
        None => symbol.name.to_string(),
    };
    entity.names.iter().map(name).collect()
}
