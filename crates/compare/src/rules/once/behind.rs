//! Which variables called functions get at, as far as it is followed.

use std::collections::{BTreeSet, VecDeque};

use iced_x86::{InstructionInfoFactory, Mnemonic, OpAccess};
use invivo_image::x86_64::{Line, ReferenceKind, decode};
use invivo_image::{EntityId, EntityKind, Image, LinkAddr, Place};

use super::code::Code;
use super::handed::filled;

/// How many calls deep functions are followed.
const DEEPEST: u32 = 3;
/// How many functions behind one place are looked at.
const MOST: usize = 200;
/// What everybody writes to, and nothing is made of.
const STREAMS: [&str; 6] = [
    "stdin",
    "stdout",
    "stderr",
    "_ZSt4cout",
    "_ZSt4cerr",
    "_ZSt4clog",
];

/// What is asked of the variables.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    Any,
    /// That something may be put there, or where they point to.
    Fills,
}

/// The variables that some instructions get at by what they call; what is `made` there does not count.
pub(super) fn calls(
    code: &Code<'_>,
    chosen: &BTreeSet<LinkAddr>,
    access: Access,
    made: &str,
) -> BTreeSet<String> {
    let lines = code.lines.iter().filter(|line| chosen.contains(&line.at()));
    let own: BTreeSet<EntityId> = code.parts.iter().copied().collect();
    let first = lines.flat_map(|line| led_to(code.image, line));
    let first = first.filter(|id| !own.contains(id)).collect();
    functions(code.image, first, access, made)
}

/// The variables that functions get at, and what they call.
pub(super) fn functions(
    image: &Image,
    first: Vec<EntityId>,
    access: Access,
    made: &str,
) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut seen = BTreeSet::new();
    let mut waiting: VecDeque<(EntityId, u32)> = first.into_iter().map(|id| (id, 0)).collect();
    let mut info = InstructionInfoFactory::new();
    while let Some((id, depth)) = waiting.pop_front() {
        if !seen.insert(id) || seen.len() > MOST {
            continue;
        }
        for line in decode(image, image.entity(id)).unwrap_or_default() {
            if access == Access::Any || may_fill(&line, &mut info) {
                let names = filled(image, &line, made).into_iter();
                found.extend(names.filter(|name| !STREAMS.contains(&name.as_str())));
            }
            if depth < DEEPEST {
                waiting.extend(led_to(image, &line).map(|next| (next, depth + 1)));
            }
        }
    }
    found
}

/// The functions that an instruction calls or jumps to, their cold parts among them.
pub(super) fn led_to(image: &Image, line: &Line) -> impl Iterator<Item = EntityId> {
    let leads = |kind| matches!(kind, ReferenceKind::Call | ReferenceKind::Jump);
    let references = line.references().filter(move |r| leads(r.kind));
    references.filter_map(|reference| match image.place(reference.target) {
        Place::In(id, _) if image.entity(id).kind == EntityKind::Function => Some(id),
        _ => None,
    })
}

/// False for an instruction that only reads a number, which is no address.
fn may_fill(line: &Line, info: &mut InstructionInfoFactory) -> bool {
    const ADDRESS: usize = 8;
    if line.word.is_some()
        || line.immediate.is_some()
        || line.instruction.mnemonic() == Mnemonic::Lea
    {
        return true;
    }
    let mut memory = info.info(&line.instruction).used_memory().iter();
    let writes = memory.any(|used| !matches!(used.access(), OpAccess::Read | OpAccess::CondRead));
    let size = line.instruction.memory_size().size();
    let compares = matches!(line.instruction.mnemonic(), Mnemonic::Cmp | Mnemonic::Test);
    writes || size == ADDRESS && !compares
}
