//! From a patch that was planned from object files to one for the program that was linked of the base's:
//! each place of the base gets the address that it has there.
//!
//! The program tells its addresses by its symbols, and by its code: each function that is replaced
//! is held against the program's, byte by byte and reference by reference ([`hold`]).

use std::collections::{BTreeMap, HashMap, HashSet};

use invivo_compare::{Comparison, Finding, Parts, Rule, Usage};
use invivo_image::{
    Binding, Entity, EntityId, EntityKind, Image, LinkAddr, Rva, Slot, Symbol as Name, demangle,
    is_annex,
};

use crate::model::{
    Hex, ImportVersion, Patch, Relocation, RelocationKind, Section, SectionKind, Symbol,
    SymbolPlace, TargetImage,
};
use crate::planner::{bindings_last, checks, index, leads_back};
use crate::{Entry, Refused};

mod hold;

/// `jmp *slot(%rip)`; the distance stands at 2.
const JUMP: [u8; 6] = [0xff, 0x25, 0, 0, 0, 0];

/// Binds `patch`, which was planned from the comparison `c` of object files, to the program that
/// was linked of the base's object files and others.
///
/// # Errors
/// If the program has no build id. All that is in the way: what has no name or another place in the
/// program, code that the base's object files do not have as it has, variables of threads, functions that
/// are called in another way now, for callers in other files were not looked at.
pub fn bind_to_program(
    c: &Comparison<'_>,
    patch: Patch,
    program: &Image,
) -> Result<Patch, Refused> {
    let build_id = program.build_id.clone().ok_or(Refused::NoBuildId)?;
    let mut names: HashMap<&str, Vec<(EntityId, &Name)>> = HashMap::new();
    for (id, entity) in program.entity_ids() {
        for name in &entity.names {
            names.entry(&name.name).or_default().push((id, name));
        }
    }
    let mut binder = Binder {
        c,
        program,
        usage: Usage::of(program),
        names,
        known: BTreeMap::new(),
        fresh: Vec::new(),
        findings: Vec::new(),
    };
    let mut patch = patch;
    binder.limits(&patch);
    binder.learn_all();
    for hot in &c.hot {
        for id in hot.base.ids() {
            let there = binder.candidate(id).and_then(|at| binder.function_at(at));
            if let Err(text) = there.and_then(|there| binder.hold(id, there)) {
                binder.refuse(Rule::Build, c.base.entity(id).name(), text);
            }
        }
    }
    binder.symbols(&mut patch);
    let parts = binder.redirects(&mut patch);
    patch.order.quiescent |= leads_back(&patch.redirects);
    if !binder.findings.is_empty() {
        return Err(Refused::Findings(binder.findings));
    }
    patch.checks = checks(program, parts.iter().flat_map(Parts::ids), &patch.redirects);
    patch.target = TargetImage {
        build_id: Hex(build_id.0),
        machine: program.machine,
        base: program.base,
        ..patch.target
    };
    bindings_last(&mut patch);
    Ok(patch)
}

struct Binder<'b> {
    c: &'b Comparison<'b>,
    program: &'b Image,
    usage: Usage,
    /// The program's names.
    names: HashMap<&'b str, Vec<(EntityId, &'b Name)>>,
    /// Where things of the base are in the program, as its code says.
    known: BTreeMap<EntityId, LinkAddr>,
    /// What became known by the function that is held now.
    fresh: Vec<EntityId>,
    findings: Vec<Finding>,
}

/// Where something of the base is for the program.
enum Found {
    /// In it.
    At(LinkAddr),
    /// In another image of the process.
    Imported(Option<ImportVersion>),
}

impl Binder<'_> {
    fn refuse(&mut self, rule: Rule, subject: &str, text: impl Into<String>) {
        let finding = Finding::refuse(rule, demangle(subject), text);
        self.findings.push(finding);
    }

    /// What object files of a part of a program cannot tell.
    fn limits(&mut self, patch: &Patch) {
        let c = self.c;
        let mut locals = c.fixed.thread_locals.iter().chain(&c.base.thread_locals);
        if let Some(local) = locals.next() {
            let text = "is a variable of each thread, whose place only the linker knows: link both \
                        builds and give the programs";
            self.refuse(Rule::Binding, &local.name, text);
        }
        for hot in c.hot.iter().filter(|hot| hot.prototypes().is_some()) {
            let text = "is called in another way now, and callers in other files were not looked \
                        at: link both builds and give the programs";
            self.refuse(Rule::Binding, &hot.name, text);
        }
        let sections = patch.contents.sections.iter();
        for section in sections.filter(|section| is_annex(&section.name)) {
            let text = "is a table of a kernel, which no process reads";
            self.refuse(Rule::Binding, &section.name, text);
        }
    }

    /// Learns from all code of the base that is the program's where things are: from functions that
    /// all files call by one name, and from those that such code leads to.
    fn learn_all(&mut self) {
        let base = self.c.base;
        let mut waiting: Vec<EntityId> = base
            .entity_ids()
            .filter(|(id, entity)| {
                entity.kind == EntityKind::Function && entity.size > 0 && !base.is_external(*id)
            })
            .map(|(id, _)| id)
            .collect();
        loop {
            let before = (waiting.len(), self.known.len());
            waiting.retain(|id| {
                let Ok(Found::At(at)) = self.find(*id) else {
                    return true;
                };
                self.fresh.clear();
                let there = self.function_at(at);
                if there.and_then(|there| self.hold(*id, there)).is_err() {
                    // What differs tells nothing.
                    for id in self.fresh.drain(..) {
                        self.known.remove(&id);
                    }
                }
                false
            });
            if before == (waiting.len(), self.known.len()) {
                break;
            }
        }
    }

    /// Where a thing of the base is in the program, if there is one: by its code, else by its name.
    fn candidate(&self, id: EntityId) -> Result<LinkAddr, String> {
        if let Some(at) = self.known.get(&id) {
            return Ok(*at);
        }
        let named = self.named(self.c.base.entity(id))?;
        named.ok_or_else(|| "has no name in this program that tells it from others".to_owned())
    }

    /// The same where it is known. A name of one file is not enough: two files may be called alike,
    /// and the linker may have left out the one thing of that name, and kept the other.
    fn find(&self, id: EntityId) -> Result<Found, String> {
        let entity = self.c.base.entity(id);
        if let Some(at) = self.known.get(&id) {
            return Ok(Found::At(*at));
        }
        if let Some(at) = self.named(entity)? {
            if entity
                .names
                .iter()
                .all(|name| name.binding == Binding::Local)
            {
                return Err(
                    "has a name of one file, and no code of the program that is the \
                            base's leads to it, so it may be another file's"
                        .to_owned(),
                );
            }
            return Ok(Found::At(at));
        }
        if !self.c.base.is_external(id) {
            return Err("has no name in this program that tells it from others".to_owned());
        }
        let name = entity.name();
        let is_wanted = |slot: &Slot| match slot {
            Slot::Import(own, 0) | Slot::LazyImport(own) => **own == *name,
            _ => false,
        };
        let mut stubs = self.program.stubs.iter();
        let stub = stubs.find(|(_, slot)| self.program.slots.get(slot).is_some_and(is_wanted));
        if let Some((stub, _)) = stub.filter(|_| entity.kind == EntityKind::Function) {
            return Ok(Found::At(*stub));
        }
        let mut imports = self.program.imports.iter().filter(|one| *one.name == *name);
        let version = match (imports.next(), imports.next()) {
            (None, _) => None,
            (Some(one), None) => one.version.as_ref(),
            _ => return Err("is imported in several versions".to_owned()),
        };
        Ok(Found::Imported(version.map(|(version, library)| {
            ImportVersion {
                version: version.to_string(),
                library: library.to_string(),
            }
        })))
    }

    /// The only thing of the program that has a name of `entity`.
    fn named(&self, entity: &Entity) -> Result<Option<LinkAddr>, String> {
        for name in &entity.names {
            let all = self.names.get(&*name.name).map_or(&[][..], Vec::as_slice);
            let is_local = |own: &Name| own.binding == Binding::Local;
            let same = all.iter().filter(|(_, own)| match name.binding {
                Binding::Global => !is_local(own),
                Binding::Local => is_local(own) && own.file == name.file,
            });
            let mut same: Vec<EntityId> = same.map(|(id, _)| *id).collect();
            // What is hidden is local in a linked program, and of no file.
            if same.is_empty() && name.binding == Binding::Global {
                let hidden = all.iter().filter(|(_, own)| own.file.is_none());
                same = hidden.map(|(id, _)| *id).collect();
            }
            same.dedup();
            match same[..] {
                [] => {}
                [id] => return Ok(Some(self.program.entity(id).addr)),
                _ => return Err("is the name of several things of this program".to_owned()),
            }
        }
        Ok(None)
    }

    /// Gives each binding its place in the program.
    fn symbols(&mut self, patch: &mut Patch) {
        let mut stubs = HashMap::new();
        for number in 0..patch.contents.symbols.len() {
            let symbol = &patch.contents.symbols[number];
            let SymbolPlace::Base(at) = symbol.place else {
                continue;
            };
            let name = symbol.name.clone();
            let addr = LinkAddr(self.c.base.base.0 + at.0);
            let id = self.c.base.entity_at(addr);
            let Some(id) = id.filter(|id| self.c.base.entity(*id).addr == addr) else {
                let text = "is no function and no variable of the base";
                self.refuse(Rule::Binding, &name, text);
                continue;
            };
            let found = self.find(id).and_then(|found| match found {
                Found::At(at) => self.of_one_size(id, at).map(SymbolPlace::Base),
                Found::Imported(version) => Ok(SymbolPlace::Import(version)),
            });
            match found {
                Ok(place) => {
                    let is_function = self.c.base.entity(id).kind == EntityKind::Function;
                    if matches!(place, SymbolPlace::Import(_)) {
                        stubs.insert(index(number), is_function);
                    }
                    patch.contents.symbols[number].place = place;
                }
                Err(text) => self.refuse(Rule::Binding, &name, text),
            }
        }
        self.lead_through_stubs(patch, &stubs);
    }

    /// The place, if what is there has the size that the base's object file tells.
    fn of_one_size(&self, id: EntityId, at: LinkAddr) -> Result<Rva, String> {
        let own = self.c.base.entity(id).size;
        let there = self.program.entity_at(at).map(|id| self.program.entity(id));
        let there = there.filter(|entity| entity.addr == at && entity.size != 0);
        if let Some(other) = there.filter(|there| there.size != own)
            && !self.c.base.is_external(id)
        {
            let size = other.size;
            return Err(format!(
                "has {size} bytes in this program, and {own} in the base's object file"
            ));
        }
        let rva = self.program.rva(at);
        rva.ok_or_else(|| "lies before the program".to_owned())
    }

    /// Libraries may be farther away than a call reaches: calls of what the program does not import go
    /// through a slot of the patch.
    fn lead_through_stubs(&mut self, patch: &mut Patch, imported: &HashMap<u32, bool>) {
        let contents = &mut patch.contents;
        let mut made: HashMap<u32, u32> = HashMap::new();
        for section in 0..contents.sections.len() {
            for at in 0..contents.sections[section].relocations.len() {
                let relocation = &contents.sections[section].relocations[at];
                let (symbol, kind) = (relocation.symbol, relocation.kind);
                let Some(is_function) = imported.get(&symbol) else {
                    continue;
                };
                if kind == RelocationKind::Absolute64 {
                    continue;
                }
                if !is_function {
                    let name = contents.symbols[symbol as usize].name.clone();
                    let text = "is a variable of a library, which the program does not use";
                    let finding = Finding::refuse(Rule::Binding, demangle(&name), text);
                    self.findings.push(finding);
                    return;
                }
                let stub = *made.entry(symbol).or_insert_with(|| {
                    add_stub(&mut contents.sections, &mut contents.symbols, symbol)
                });
                contents.sections[section].relocations[at].symbol = stub;
            }
        }
    }

    /// Leads each redirect from its function in the program; the functions.
    fn redirects(&mut self, patch: &mut Patch) -> Vec<Parts> {
        let base = self.c.base;
        let mut all = Vec::new();
        let mut seen = HashSet::new();
        for redirect in &mut patch.redirects {
            let addr = LinkAddr(base.base.0 + redirect.at.0);
            let hot = self
                .c
                .hot
                .iter()
                .find(|hot| base.entity(hot.base.main).addr == addr);
            let Some(hot) = hot else { continue };
            let found: Result<Vec<EntityId>, String> =
                hot.base.ids().map(|id| self.function(id)).collect();
            let mut ids = match found {
                Ok(ids) => ids.into_iter(),
                // It was told when the code was held against the program's.
                Err(_) if !self.findings.is_empty() => continue,
                Err(text) => {
                    self.refuse(Rule::Binding, &redirect.function, text);
                    continue;
                }
            };
            let Some(main) = ids.next() else { continue };
            let parts = Parts {
                main,
                cold: ids.collect(),
            };
            let Some(entry) = Entry::of(self.program, &self.usage, &parts) else {
                let text = "its code in the program is not all instructions";
                self.refuse(Rule::Binding, &redirect.function, text);
                continue;
            };
            let place = |id| {
                let entity: &Entity = self.program.entity(id);
                Some((self.program.rva(entity.addr)?, entity.size))
            };
            let Some((at, size)) = place(main).filter(|_| seen.insert(main)) else {
                let text = "is one with another function in this program";
                self.refuse(Rule::Binding, &redirect.function, text);
                continue;
            };
            (redirect.at, redirect.size, redirect.entry) = (at, size, entry);
            redirect.cold = parts.cold.iter().filter_map(|id| place(*id)).collect();
            // Other files may call it.
            redirect.hooked = true;
            all.push(parts);
        }
        all
    }

    /// A function of the base in the program.
    fn function(&self, id: EntityId) -> Result<EntityId, String> {
        let Found::At(at) = self.find(id)? else {
            return Err("is no function of this program".to_owned());
        };
        self.function_at(at)
    }

    fn function_at(&self, at: LinkAddr) -> Result<EntityId, String> {
        let found = self.program.entity_at(at).filter(|id| {
            let entity = self.program.entity(*id);
            entity.addr == at && entity.kind == EntityKind::Function
        });
        found.ok_or_else(|| "is no function of this program".to_owned())
    }
}

/// A stub of the patch that jumps to something of another image, and its slot.
fn add_stub(sections: &mut Vec<Section>, symbols: &mut Vec<Symbol>, to: u32) -> u32 {
    let name = symbols[to as usize].name.clone();
    let mut add = |kind, name: String, bytes: &[u8], relocation| {
        let size = bytes.len() as u64;
        sections.push(Section {
            name: name.clone(),
            kind,
            align: 16,
            bytes: bytes.to_vec(),
            relocations: vec![relocation],
        });
        symbols.push(Symbol {
            name,
            place: SymbolPlace::Patch {
                section: index(sections.len() - 1),
                offset: 0,
                size,
            },
        });
        index(symbols.len() - 1)
    };
    let slot = add(
        SectionKind::ReadOnly,
        format!(".rodata.{name}@got"),
        &[0; 8],
        Relocation {
            offset: 0,
            kind: RelocationKind::Absolute64,
            symbol: to,
            addend: 0,
        },
    );
    add(
        SectionKind::Text,
        format!(".text.{name}@plt"),
        &JUMP,
        Relocation {
            offset: 2,
            kind: RelocationKind::Relative32,
            symbol: slot,
            addend: -4,
        },
    )
}
