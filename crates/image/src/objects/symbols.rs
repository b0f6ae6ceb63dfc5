//! The names of a set of object files.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use object::elf;

use super::file::{InPlace, InSymbol};
use super::relocate::{Linked, Value};
use super::set::Externals;
use crate::model::{Binding, Image, SectionKind, Symbol, SymbolKind};
use crate::{ImageError, LinkAddr};

/// All names with their places; those of variables of threads are put into `image` at once.
pub(super) fn read(
    image: &mut Image,
    linked: &Linked<'_, '_, '_>,
    externals: &Externals,
) -> Result<Vec<Symbol>, ImageError> {
    let mut found = Vec::new();
    let shared = shared_files(linked);
    for (number, object) in linked.set.objects.iter().enumerate() {
        for (index, symbol) in object.symbols.iter().enumerate() {
            if linked.set.definition(number, index) != Some((number, index)) {
                continue;
            }
            let Some((addr, kind)) = place(image, linked, (number, index), symbol) else {
                continue;
            };
            let own = symbol.file.as_ref().filter(|file| !shared.contains(*file));
            let file = own.cloned().unwrap_or_else(|| object.label.into());
            found.push(Symbol {
                name: Arc::clone(&symbol.name),
                addr,
                size: symbol.size,
                kind,
                binding: if symbol.local {
                    Binding::Local
                } else {
                    Binding::Global
                },
                file: symbol.local.then_some(file),
                // Another file of the program may call it, whether it is given or not.
                exported: !symbol.local,
                weak: symbol.weak,
            });
        }
    }
    for (name, at) in &linked.layout.commons {
        let size = linked.set.commons.get(name).map_or(0, |(size, _)| *size);
        found.push(global(name, *at, size, SymbolKind::Object, true));
    }
    for (name, external) in externals {
        let Some(at) = linked.layout.externals.get(name) else {
            continue;
        };
        found.push(if external.called {
            global(name, *at, 0, SymbolKind::Function, false)
        } else {
            global(name, *at, external.reach, SymbolKind::Object, false)
        });
    }
    let is_local = |symbol: &Symbol| symbol.kind == SymbolKind::ThreadLocal;
    image.thread_locals = found.iter().filter(|s| is_local(s)).cloned().collect();
    image
        .thread_locals
        .sort_by(|a, b| (a.addr, &a.name).cmp(&(b.addr, &b.name)));
    found.retain(|symbol| !is_local(symbol));
    Ok(found)
}

fn global(name: &Arc<str>, at: u64, size: u64, kind: SymbolKind, exported: bool) -> Symbol {
    Symbol {
        name: Arc::clone(name),
        addr: LinkAddr(at),
        size,
        kind,
        binding: Binding::Global,
        file: None,
        exported,
        weak: false,
    }
}

/// Names of source files that several object files have: they do not tell two of their
/// symbols apart.
fn shared_files(linked: &Linked<'_, '_, '_>) -> BTreeSet<Arc<str>> {
    let mut holders: HashMap<&Arc<str>, BTreeSet<usize>> = HashMap::new();
    for (number, object) in linked.set.objects.iter().enumerate() {
        for file in object.symbols.iter().filter_map(|s| s.file.as_ref()) {
            holders.entry(file).or_default().insert(number);
        }
    }
    let shared = holders.into_iter().filter(|(_, holders)| holders.len() > 1);
    shared.map(|(file, _)| Arc::clone(file)).collect()
}

/// Where a symbol is and what it names; `None` for what is no entity.
fn place(
    image: &Image,
    linked: &Linked<'_, '_, '_>,
    (object, index): (usize, usize),
    symbol: &InSymbol,
) -> Option<(LinkAddr, SymbolKind)> {
    let InPlace::In { .. } = symbol.place else {
        return None;
    };
    // The compiler's own labels say nothing about what a constant is or where it ends.
    if symbol.name.is_empty() || symbol.local && symbol.name.starts_with(".L") {
        return None;
    }
    let (addr, is_local) = match linked.value(object, index) {
        Value::Place(at) => (LinkAddr(at), false),
        Value::ThreadLocal(offset) => (LinkAddr(offset), true),
        Value::Number(_) | Value::Dropped => return None,
    };
    let kind = match symbol.kind {
        _ if is_local => SymbolKind::ThreadLocal,
        elf::STT_FUNC => SymbolKind::Function,
        elf::STT_GNU_IFUNC => SymbolKind::Resolver,
        elf::STT_OBJECT => SymbolKind::Object,
        // Assembly often leaves its symbols untyped; the section says what they are.
        elf::STT_NOTYPE => match image.section_at(addr).map(|s| s.kind) {
            Some(SectionKind::Text) => SymbolKind::Function,
            Some(_) | None => SymbolKind::Object,
        },
        _ => return None,
    };
    let debug = !is_local && image.section_at(addr).is_none() && addr < image.base;
    (!debug).then_some((addr, kind))
}
