//! Why a function is hot, in terms of the source.
//!
//! The instructions of a function come from its own source and from everything that was
//! inlined in it. Whose instructions differ is whose source changed. Registers, the order
//! of instructions, copies and stack slots say nothing: a change in one place moves them
//! in all others. Pairing instructions by their position and asking where the unequal ones
//! come from is the tempting wrong way: behind the first inserted one all are unequal.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};

use iced_x86::{Instruction, Mnemonic, OpKind, Register};
use invivo_image::x86_64::{Line, decode};
use invivo_image::{EntityId, Image, LinkAddr, Place, SectionKind, SourcePlace, stem};

use crate::line_numbers::Side;
use crate::told::is_immediate;
use crate::{Comparison, Difference, Differing, Hot, Parts, Reason, ReasonKind, extent};

/// What one source function contributes to a function.
#[derive(Default)]
struct Share {
    /// How often each sort of instruction stands there: in the fixed image, less the base.
    balance: HashMap<u64, i64>,
    /// Where each sort stands.
    places: HashMap<u64, SourcePlace>,
    /// Lines, counted from the function's declaration, in the base and in the fixed image.
    lines: [BTreeSet<i64>; 2],
    /// How it got there: the inlined functions from the outermost to this one.
    chain: Vec<String>,
}

impl Share {
    fn differs(&self) -> bool {
        self.balance.values().any(|count| *count != 0)
    }

    /// The first place that only one side has.
    fn place(&self) -> Option<&SourcePlace> {
        let unequal = self.balance.iter().filter(|(_, count)| **count != 0);
        unequal
            .filter_map(|(token, _)| self.places.get(token))
            .min()
    }
}

/// Reasons of a function whose debug data are known on both sides.
pub(crate) fn of(
    c: &Comparison<'_>,
    parts: &(Parts, Parts),
    base: Side<'_, '_>,
    fixed: Side<'_, '_>,
    differences: &[Differing],
) -> Vec<Reason> {
    let mut shares = BTreeMap::new();
    add(c.base, &c.base_usage, &parts.0, base, 0, &mut shares);
    add(c.fixed, &c.fixed_usage, &parts.1, fixed, 1, &mut shares);
    let differing: Vec<(&String, &Share)> =
        shares.iter().filter(|(_, share)| share.differs()).collect();
    // Where lines came or went, there the source changed; other differences follow from it.
    let edited = |share: &Share| share.lines[0] != share.lines[1];
    let any_edited = differing.iter().any(|(_, share)| edited(share));
    let mut reasons: Vec<Reason> = differing
        .into_iter()
        .filter(|(_, share)| !any_edited || edited(share))
        .map(|(name, share)| reason(name, share, &fixed.1.name))
        .collect();
    // Instruction for instruction the same: then it can be said what is different.
    let aligned = |d: &Differing| {
        !matches!(
            d.what,
            Difference::Instructions | Difference::ColdPart | Difference::Undecoded
        )
    };
    if differences.iter().all(aligned) {
        reasons.extend(Reason::of(differences));
    } else if reasons.is_empty() {
        reasons.push(Reason {
            kind: ReasonKind::Compiler,
            text: "the same operations with other registers or in another order; no change of its \
                   source was seen"
                .to_owned(),
        });
    }
    reasons.sort_by(|a, b| (a.kind, &a.text).cmp(&(b.kind, &b.text)));
    reasons
}

fn reason(name: &str, share: &Share, function: &str) -> Reason {
    let place = share.place().map(|place| format!(" ({place})"));
    let place = place.unwrap_or_default();
    if share.chain.is_empty() {
        return Reason {
            kind: ReasonKind::Source,
            text: format!("its own source changed{place}"),
        };
    }
    let chain = match share.chain.len() {
        1 => String::new(),
        _ => format!(": {function} ← {}", share.chain.join(" ← ")),
    };
    Reason {
        kind: ReasonKind::Inlined,
        text: format!("inlines {name}, whose source changed{place}{chain}"),
    }
}

fn add(
    image: &Image,
    usage: &crate::Usage,
    parts: &Parts,
    (debug, function): Side<'_, '_>,
    side: usize,
    shares: &mut BTreeMap<String, Share>,
) {
    for part in parts.ids() {
        let entity = image.entity(part);
        for line in decode(image, entity).into_iter().flatten() {
            if is_noise(&line) {
                continue;
            }
            let chain = function.chain(line.at());
            let (name, declared) = chain.last().map_or_else(
                || (&function.name, &function.declared),
                |inlined| (&inlined.name, &inlined.declared),
            );
            let share = shares.entry(name.clone()).or_default();
            if share.chain.is_empty() {
                // A function that was split and put together again is inlined in itself.
                let names = chain.iter().map(|inlined| inlined.name.clone());
                share.chain = names.skip_while(|name| *name == function.name).collect();
            }
            let token = token(image, usage, part, &line);
            *share.balance.entry(token).or_default() += if side == 1 { 1 } else { -1 };
            if let Some(place) = debug.place_of(line.at()) {
                if let Some(declared) = declared
                    && declared.file == place.file
                {
                    let from = i64::from(declared.line);
                    share.lines[side].insert(i64::from(place.line) - from);
                }
                // The fixed image comes second, and its lines are those that people look at.
                if side == 1 {
                    share.places.insert(token, place);
                } else {
                    share.places.entry(token).or_insert(place);
                }
            }
        }
    }
}

/// Copies, stack slots, saved registers and padding.
fn is_noise(line: &Line) -> bool {
    let i = &line.instruction;
    let on_stack = is_on_stack(i);
    let registers = (0..i.op_count()).all(|op| i.op_kind(op) == OpKind::Register);
    let stack_pointer = i.op_count() > 0 && i.op0_register().full_register() == Register::RSP;
    line.is_padding()
        || matches!(
            i.mnemonic(),
            Mnemonic::Push | Mnemonic::Pop | Mnemonic::Ret | Mnemonic::Jmp
        )
        || (i.mnemonic() == Mnemonic::Mov && (registers || on_stack))
        || (i.mnemonic() == Mnemonic::Lea && on_stack)
        || (i.mnemonic() == Mnemonic::Xor && registers)
        || stack_pointer
}

fn is_on_stack(i: &Instruction) -> bool {
    [Register::RSP, Register::RBP].contains(&i.memory_base().full_register())
}

/// An instruction without its registers: what it does, with which numbers, to what.
fn token(image: &Image, usage: &crate::Usage, function: EntityId, line: &Line) -> u64 {
    let mut hash = DefaultHasher::new();
    let i = &line.instruction;
    i.mnemonic().hash(&mut hash);
    for op in 0..i.op_count() {
        if line.immediate.is_none() && is_immediate(i.op_kind(op)) {
            i.immediate(op).hash(&mut hash);
        }
    }
    let index = (i.memory_index() != Register::None).then(|| i.memory_index_scale());
    (index, i.memory_size()).hash(&mut hash);
    let on_stack = is_on_stack(i);
    if line.address.is_none() && i.memory_base() != Register::RIP && !on_stack {
        i.memory_displacement64().hash(&mut hash);
    }
    for reference in line.references() {
        match image.place(reference.target) {
            // A branch inside the function leads where the source says.
            Place::In(id, _) if id == function => {}
            // Constants have names that compilers make up anew in each build.
            Place::In(id, offset) if is_constant(image, id) => offset.hash(&mut hash),
            Place::In(id, offset) => (stem(image.entity(id).name()), offset).hash(&mut hash),
            Place::Stub(slot) | Place::Slot(slot) => match slot {
                invivo_image::Slot::Pointer(at) | invivo_image::Slot::Resolved(at) => {
                    name_at(image, at).hash(&mut hash);
                }
                slot => slot.hash(&mut hash),
            },
            Place::Constant(at) => {
                let size = extent(image, usage, line, at).map(|extent| extent.size());
                size.and_then(|size| image.bytes(at, size)).hash(&mut hash);
            }
            Place::Outside(_) | Place::Unnamed(_) => {}
        }
    }
    hash.finish()
}

fn is_constant(image: &Image, id: EntityId) -> bool {
    let section = image.section_at(image.entity(id).addr);
    section.is_some_and(|section| section.kind == SectionKind::ReadOnly)
}

fn name_at(image: &Image, at: LinkAddr) -> Option<&str> {
    match image.place(at) {
        Place::In(id, _) => Some(stem(image.entity(id).name())),
        _ => None,
    }
}

/// Adds what the prototypes say: of a function itself, and of those that it calls.
pub(crate) fn add_signatures(c: &Comparison<'_>, hot: &mut [Hot]) {
    let mut changed: HashMap<EntityId, (String, String)> = HashMap::new();
    for function in &*hot {
        if let Some((before, after)) = function.prototypes() {
            let text = format!("{before} became {after}");
            changed.insert(function.fixed.main, (function.name.clone(), text));
        }
    }
    let mut callees: HashMap<EntityId, BTreeSet<EntityId>> = HashMap::new();
    for callee in changed.keys() {
        for by in c.fixed_usage.uses.get(callee).into_iter().flatten() {
            callees.entry(by.by).or_default().insert(*callee);
        }
    }
    for function in hot {
        let mut new = Vec::new();
        if let Some((_, text)) = changed.get(&function.fixed.main) {
            new.push(Reason {
                kind: ReasonKind::Signature,
                text: format!("its signature changed: {text}"),
            });
        }
        let called = function.fixed.ids().filter_map(|part| callees.get(&part));
        let called: BTreeSet<&EntityId> = called.flatten().collect();
        for callee in called.into_iter().filter(|id| **id != function.fixed.main) {
            new.push(Reason {
                kind: ReasonKind::Callee,
                text: format!("calls {}, whose signature changed", changed[callee].0),
            });
        }
        // Other registers are what another way to call comes to.
        if !new.is_empty() {
            function
                .reasons
                .retain(|reason| reason.kind != ReasonKind::Compiler);
        }
        new.append(&mut function.reasons);
        new.sort_by_key(|reason| reason.kind);
        function.reasons = new;
    }
}
