//! All that new code reaches, each place led to the one that it must mean.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use iced_x86::Register;
use invivo_compare::{Comparison, Finding, Rule, is_anonymous};
use invivo_image::pe::{Handler, PeImage, referenced};
use invivo_image::x86_64::{Line, decode};
use invivo_image::{
    Entity, EntityId, EntityKind, LinkAddr, Machine, Place, SectionKind, Slot, demangle,
    source_name, stem,
};

use super::direct::From;
use super::{beyond, cookie, hookable};

/// How new code is led to the base.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ways {
    /// Through pointers that the compiler made, and jumps at the begin of functions.
    Pointers,
    /// Each operand and each pointer itself: all of them are known.
    Direct,
}

/// The way through the fixed image.
pub(super) struct Walk<'c, 'a> {
    pub(super) c: &'c Comparison<'a>,
    pub(super) ways: Ways,
    /// True if operands of code for x86-64 can be led to the base, too.
    pub(super) distances: bool,
    pub(super) hot: HashSet<EntityId>,
    /// The fixed image with what only Windows reads of it.
    pub(super) windows: &'c PeImage,
    /// Functions whose code in the fixed image runs, and those that are still to be looked at with
    /// the function from which they are reached.
    pub(super) seen: HashSet<EntityId>,
    waiting: Vec<(EntityId, String)>,
    /// Constants whose pointers were followed.
    constants: HashSet<LinkAddr>,
    /// Functions of the fixed image → those of the base.
    pub(super) unchanged: BTreeMap<EntityId, EntityId>,
    /// Pointers of the fixed image → variables of the base.
    pub(super) variables: BTreeMap<LinkAddr, (LinkAddr, String)>,
    /// Import slots of the fixed image → those of the base.
    pub(super) slots: BTreeMap<LinkAddr, (LinkAddr, String)>,
    /// Words of the fixed image → places of the base whose address they must hold.
    pub(super) addresses: BTreeMap<LinkAddr, (LinkAddr, String)>,
    /// Distances of calls and jumps of the fixed image → functions of the base.
    pub(super) calls: BTreeMap<LinkAddr, (LinkAddr, String)>,
    /// Tables of handlers that were followed: functions may share them.
    pub(super) handlers: HashSet<Handler>,
    /// Functions whose addresses new code has, and who has them.
    pub(super) taken: BTreeMap<LinkAddr, String>,
    pub(super) refused: Vec<Finding>,
}

impl<'c, 'a> Walk<'c, 'a> {
    pub(super) fn new(
        c: &'c Comparison<'a>,
        (ways, distances): (Ways, bool),
        windows: &'c PeImage,
    ) -> Walk<'c, 'a> {
        Walk {
            c,
            ways,
            distances,
            windows,
            hot: c.hot.iter().map(|hot| hot.fixed.main).collect(),
            seen: HashSet::new(),
            waiting: Vec::new(),
            constants: HashSet::new(),
            unchanged: BTreeMap::new(),
            variables: BTreeMap::new(),
            slots: BTreeMap::new(),
            addresses: BTreeMap::new(),
            calls: BTreeMap::new(),
            handlers: HashSet::new(),
            taken: BTreeMap::new(),
            refused: Vec::new(),
        }
    }

    pub(super) fn refuse(&mut self, rule: Rule, subject: &str, text: impl Into<String>) {
        let finding = Finding::refuse(rule, subject, text.into());
        let same = |known: &Finding| known.subject == finding.subject && known.text == finding.text;
        if !self.refused.iter().any(same) {
            self.refused.push(finding);
        }
    }

    /// A patch may import no more than the base did: who loads a library for it, and when, is
    /// the loader's business, which was over long ago.
    pub(super) fn imports(&mut self) {
        let names = |image: &'a invivo_image::Image| -> BTreeSet<&'a str> {
            image.imports.iter().map(|import| &*import.name).collect()
        };
        let (base, fixed) = (names(self.c.base), names(self.c.fixed));
        for name in beyond(&fixed, &base) {
            self.refuse(Rule::Import, name, "is imported by the fixed build only");
        }
    }

    /// What the fixed image alone exports, with what the base has in its place; where that is
    /// nothing, the fixed image's own is reached from now on.
    pub(super) fn exports(&mut self) -> Vec<(EntityId, EntityId)> {
        let c = self.c;
        let names = c.base.entities.iter().flat_map(|entity| &entity.names);
        let known: BTreeSet<&str> = names
            .filter(|symbol| symbol.exported)
            .map(|symbol| &*symbol.name)
            .collect();
        let mut found = Vec::new();
        for (id, entity) in c.fixed.entity_ids() {
            let mut names = entity.names.iter().filter(|symbol| symbol.exported);
            let Some(name) = names.find(|symbol| !known.contains(&*symbol.name)) else {
                continue;
            };
            match (c.pairs.base_of(id), entity.kind) {
                (Some(base), _) => found.push((base, id)),
                (None, EntityKind::Object) => {
                    self.pointers_in(entity.addr, entity.end(), &name.name);
                }
                (None, _) => self.visit(id, &name.name),
            }
        }
        found
    }

    /// The code of this function runs in the fixed image.
    pub(super) fn visit(&mut self, id: EntityId, by: &str) {
        if self.seen.insert(id) {
            self.waiting.push((id, by.to_owned()));
        }
    }

    /// Follows everything.
    pub(super) fn finish(&mut self) {
        while let Some((id, by)) = self.waiting.pop() {
            self.function(id, &by);
        }
    }

    fn function(&mut self, id: EntityId, by: &str) {
        let image = self.c.fixed;
        let entity = image.entity(id);
        let Some(lines) = decode(image, entity) else {
            let name = demangle(entity.name());
            self.refuse(
                Rule::Binding,
                by,
                format!("the code of {name} is not all instructions"),
            );
            return;
        };
        for line in &lines {
            if image.machine == Machine::X86 {
                self.x86_line(line, by);
            } else if image.machine == Machine::Aarch64 {
                self.arm64_line(line, by);
            } else if line.instruction.memory_segment() == Register::GS && reads_thread_block(line)
            {
                let text = "uses thread-local storage: the fixed image has blocks of its own, in \
                            which the base's variables are not; take them out of the function";
                self.refuse(Rule::ThreadLocals, by, text);
            }
            for reference in line.references() {
                self.reference(entity, &From::of(line, &reference), by);
            }
        }
        self.exceptions(entity, &lines, by);
    }

    fn reference(&mut self, within: &Entity, from: &From, by: &str) {
        let at = from.target;
        let is_within = within.addr <= at && at < within.end();
        if !from.is_branch() && (!is_within || at == within.addr) {
            self.address(at, by);
        }
        // Who gets its address from it may keep it, and so gets the base's.
        let told = at == within.addr && self.ways == Ways::Direct && !from.is_branch();
        if is_within && !told {
            // Its own labels, and calls of itself: the new code is the right one.
            return;
        }
        self.place(from, by);
    }

    /// New code has this address, and may call what is there through it.
    fn address(&mut self, at: LinkAddr, by: &str) {
        if let Place::In(id, 0) = self.c.fixed.place(at)
            && self.c.fixed.entity(id).kind == EntityKind::Function
        {
            self.takes(at, by);
        }
    }

    /// Something that new code reads, calls or points to.
    pub(super) fn place(&mut self, from: &From, by: &str) {
        let at = from.target;
        if self.ways == Ways::Direct && self.directly(from, by) {
            return;
        }
        match self.c.fixed.place(at) {
            Place::In(id, offset) => match self.c.fixed.entity(id).kind {
                // Assembly need not say that a name is a function's.
                EntityKind::Object if !self.is_code(id) => self.object(id, offset, from, by),
                EntityKind::Object => self.called(id, offset, by),
                EntityKind::Function | EntityKind::Resolver => self.called(id, offset, by),
            },
            Place::Slot(slot) | Place::Stub(slot) => self.slot(at, &slot, by),
            Place::Constant(at) => self.constant(at, by),
            Place::Unnamed(_) | Place::Outside(_) => {
                let text = format!("refers to {at}, of which nothing is known");
                self.refuse(Rule::Binding, by, text);
            }
        }
    }

    fn is_code(&self, id: EntityId) -> bool {
        // Code for x86 has tables between its functions.
        if self.c.fixed.machine == Machine::X86 {
            return false;
        }
        let section = self.c.fixed.section_at(self.c.fixed.entity(id).addr);
        section.is_some_and(|section| section.kind == SectionKind::Text)
    }

    /// The slot that a linker's jump goes through: how code calls a library that did not say that the
    /// function is imported.
    pub(super) fn thunk(&self, at: LinkAddr) -> Option<(LinkAddr, &'c Slot)> {
        let image = self.c.fixed;
        // Code for x86 names the slot itself, and its operand is led to the base's.
        if image.machine == Machine::X86 {
            return None;
        }
        let slot = image.slot_of_thunk(at)?;
        let found = image.slots.get(&slot);
        let found = found.filter(|found| matches!(found, Slot::Import(..)));
        Some((slot, found?))
    }

    fn called(&mut self, id: EntityId, offset: u64, by: &str) {
        let c = self.c;
        let name = demangle(c.fixed.entity(id).name());
        if offset == 0
            && let Some((slot, of)) = self.thunk(c.fixed.entity(id).addr)
        {
            self.slot(slot, of, by);
            return;
        }
        if self.hot.contains(&id) {
            self.visit(id, by);
            return;
        }
        let Some(base) = c.pairs.base_of(id) else {
            if c.fixed.entity(id).size == 0 {
                self.refuse(
                    Rule::Binding,
                    by,
                    format!("calls {name}, whose size is not known"),
                );
            }
            self.visit(id, by);
            return;
        };
        if offset != 0 {
            self.refuse(Rule::Binding, by, format!("jumps into {name}"));
        } else if hookable(c.fixed, id).is_ok() {
            self.unchanged.insert(id, base);
        } else {
            // What cannot be led to the base may run here if it uses nothing of the base's.
            self.visit(id, by);
        }
    }

    fn object(&mut self, id: EntityId, offset: u64, from: &From, by: &str) {
        let c = self.c;
        let entity = c.fixed.entity(id);
        let name = entity.name();
        if self.throws(entity, by) {
            return;
        }
        if name == cookie::NAME && offset == 0 {
            self.cookie(id, from, by);
            return;
        }
        if let Some(of) = referenced(c.fixed.machine, name) {
            if offset == 0 {
                self.pointer(entity.addr, of, by);
            } else {
                self.refuse(Rule::Binding, by, format!("reads a part of {name}"));
            }
            return;
        }
        if c.fixed.is_constant_at(entity.addr) {
            match entity.size {
                0 => self.constant(entity.addr, by),
                _ => self.pointers_in(entity.addr, entity.end(), by),
            }
            return;
        }
        let name = demangle(name);
        if c.pairs.base_of(id).is_none() {
            if self.may_be_old(id) {
                self.unbound(&name, by);
                return;
            }
            // Told by the comparison: a new variable lives in the patch.
            self.pointers_in(entity.addr, entity.end(), by);
            return;
        }
        let text = format!(
            "reaches the variable {name} directly, so it would use the patch's own; name the \
             function when the fixed build is compiled: -fms-secure-hotpatch-functions-list=FUNCTION \
             (of one that was named: the compiler leaves an alias, and several addresses in one value, \
             as they are; use the variable itself)"
        );
        self.refuse(Rule::Binding, by, text);
    }

    /// A pointer that the compiler made for the patch: it must hold the address of the
    /// base's variable of that name.
    pub(super) fn pointer(&mut self, at: LinkAddr, of: &str, by: &str) {
        let c = self.c;
        let Some(Slot::Pointer(to)) = c.fixed.slots.get(&at) else {
            let text = format!("the pointer to {of} holds no address of the image");
            self.refuse(Rule::Binding, by, text);
            return;
        };
        match c.fixed.place(*to) {
            Place::In(id, 0) if c.fixed.entity(id).kind == EntityKind::Object => {
                let entity = c.fixed.entity(id);
                let mut names = entity.names.iter();
                let constant = c
                    .fixed
                    .section_at(entity.addr)
                    .is_some_and(|section| section.kind == SectionKind::ReadOnly);
                // What compilers number has no name in a source; debug data may have one for it.
                let nameless = constant && is_anonymous(of);
                if nameless && entity.size == 0 {
                    // What stands at that place and has no size, such as an empty table, is not what is meant.
                    self.constant(entity.addr, by);
                    return;
                }
                if !nameless && !names.any(|symbol| bears(c.fixed.compiled_name(symbol), of)) {
                    let other = demangle(entity.name());
                    let text = format!("the pointer to {of} leads to {other}");
                    self.refuse(Rule::Binding, by, text);
                    return;
                }
                let others = self.so_called(of, id);
                if others > 0 {
                    // A linker that is told to take the first of two such pointers takes it for both.
                    let text = format!(
                        "{} variables are called {of}, and one pointer is left for all of them, so it \
                         is not known which one is meant; give them different names",
                        others + 1
                    );
                    self.refuse(Rule::Binding, by, text);
                    return;
                }
                let base = c.pairs.base_of(id);
                match base.filter(|base| !constant || c.same_object(*base, id)) {
                    Some(base) if c.base.entity(base).size != entity.size => {
                        let text = format!("uses {}, whose size changed", demangle(of));
                        self.refuse(Rule::Binding, by, text);
                    }
                    Some(base) => {
                        let to = (c.base.entity(base).addr, demangle(of));
                        self.variables.insert(at, to);
                    }
                    None if !constant && self.may_be_old(id) => self.unbound(&demangle(of), by),
                    None => self.pointers_in(entity.addr, entity.end(), by),
                }
            }
            Place::Constant(to) => self.constant(to, by),
            _ if c
                .fixed
                .section_at(*to)
                .is_some_and(|s| s.kind == SectionKind::Tls) =>
            {
                // Compilers make such a pointer, and then all threads share the template.
                let text = format!(
                    "uses the thread-local variable {of}, which compilers get wrong in functions \
                     that are compiled for hot patching; take it out of the function"
                );
                self.refuse(Rule::ThreadLocals, by, text);
            }
            _ => {
                let text = format!("the pointer to {of} leads to no variable");
                self.refuse(Rule::Binding, by, text);
            }
        }
    }

    /// How many other variables of the fixed image a pointer of that name could have been made for.
    fn so_called(&self, of: &str, id: EntityId) -> usize {
        let image = self.c.fixed;
        // Names of what is inside functions bear the function's, of which there may be two.
        if let Some((function, _)) = in_function(of) {
            let functions = image.entities.iter().filter(|entity| {
                let mut names = entity.names.iter();
                entity.kind == EntityKind::Function
                    && names.any(|one| image.compiled_name(one) == function)
            });
            return functions.count().saturating_sub(1);
        }
        let (wanted, word) = (scoped(of), last_part(of));
        let others = image.entity_ids().filter(|(other, entity)| {
            let mut names = entity.names.iter();
            *other != id
                && entity.kind == EntityKind::Object
                // Names are long, and few have the word.
                && names.any(|symbol| {
                    symbol.name.contains(&*word)
                        && scoped(image.compiled_name(symbol)) == wanted
                })
        });
        others.count()
    }

    /// True if the base has a variable of that name of which it is not known what became of it.
    fn may_be_old(&self, id: EntityId) -> bool {
        let c = self.c;
        let name = last_part(c.fixed.compiled_name(c.fixed.entity(id).symbol()));
        let mut base = c.base.entity_ids();
        base.any(|(old, entity)| {
            entity.kind == EntityKind::Object
                && c.pairs.fixed_of(old).is_none()
                && entity.name().contains(&*name)
                && last_part(c.base.compiled_name(entity.symbol())) == name
        })
    }

    /// Whether such a variable lives in the patch or in the base is not known.
    fn unbound(&mut self, name: &str, by: &str) {
        let text = format!(
            "uses {name}, which is new or may be one of the base's variables of that name: give the \
             variables different names, as the base has them"
        );
        self.refuse(Rule::Binding, by, text);
    }

    /// A constant without a name: it goes on to the next thing that has one, at most.
    pub(super) fn constant(&mut self, at: LinkAddr, by: &str) {
        let image = self.c.fixed;
        let next = image.entities.partition_point(|entity| entity.addr <= at);
        let next = image.entities.get(next).map(|entity| entity.addr);
        let end = image.section_at(at).map(|section| section.range.end);
        let end = [next, end].into_iter().flatten().min().unwrap_or(at);
        self.pointers_in(at, end, by);
    }

    /// Pointers in constants and new variables are followed as code's own references are.
    pub(super) fn pointers_in(&mut self, start: LinkAddr, end: LinkAddr, by: &str) {
        if start >= end || !self.constants.insert(start) {
            return;
        }
        let slots = self.c.fixed.slots.range(start..end);
        let slots: Vec<(LinkAddr, Slot)> = slots.map(|(at, slot)| (*at, slot.clone())).collect();
        for (at, slot) in slots {
            match slot {
                Slot::Pointer(to) => {
                    self.address(to, by);
                    self.place(&From::word(at, to), by);
                }
                other => self.slot(at, &other, by),
            }
        }
    }

    fn slot(&mut self, at: LinkAddr, slot: &Slot, by: &str) {
        let Slot::Import(name, 0) = slot else {
            self.refuse(
                Rule::Binding,
                by,
                format!("needs what the loader writes to {at}"),
            );
            return;
        };
        let same = self.c.base.slots.iter().find(|(_, other)| *other == slot);
        match same {
            Some((base, _)) => {
                self.slots.insert(at, (*base, name.to_string()));
            }
            None => self.refuse(
                Rule::Import,
                by,
                format!("calls {name}, which the base does not"),
            ),
        }
    }
}

/// True if the compiler's pointer to `of` may lead to what a PDB file calls `name`.
fn bears(name: &str, of: &str) -> bool {
    name == of
        || last_part(name) == last_part(of)
        || in_function(of).is_some_and(|(_, variable)| variable == name)
}

/// Of a C variable in a function, as the compiler calls it (`answer.calls`, `answer.calls.1`), the
/// function and what the source calls it.
fn in_function(of: &str) -> Option<(&str, &str)> {
    let is_word = |text: &str| {
        let mut letters = text.chars();
        !text.is_empty() && letters.all(|c| c.is_ascii_alphanumeric() || c == '_')
    };
    let (function, variable) = stem(of).split_once('.')?;
    (is_word(function) && is_word(variable)).then_some((function, variable))
}

/// A variable's name with the scopes that it is in, as far as they are known: `?last@shapes@@3HA` and
/// `shapes::last` are one.
fn scoped(name: &str) -> String {
    let Some(mangled) = name.strip_prefix('?') else {
        return source_name(name);
    };
    let scopes = mangled.split("@@").next().unwrap_or(mangled);
    // Where templates, functions and files are among them, they are not told alike.
    if scopes.contains('?') {
        return name.to_owned();
    }
    let parts: Vec<&str> = scopes.split('@').rev().collect();
    parts.join("::")
}

/// A variable's name without the scopes that it is in: the compiler's pointer bears the mangled name,
/// and a PDB file tells that of a variable of one file as the source has it.
fn last_part(name: &str) -> String {
    // `?last@shapes@@3HA` is `shapes::last`.
    if let Some(mangled) = name.strip_prefix('?') {
        return mangled.split('@').next().unwrap_or(mangled).to_owned();
    }
    let name = source_name(name);
    name.rsplit("::").next().unwrap_or(&name).to_owned()
}

/// True for `gs:[58h]`, where the blocks of a thread begin.
fn reads_thread_block(line: &Line) -> bool {
    const BLOCKS: u64 = 0x58;
    let instruction = &line.instruction;
    // With a register the offset is not known.
    instruction.memory_base() != Register::None || instruction.memory_displacement64() == BLOCKS
}
