//! Proofs that a change means nothing, by code that does not use the comparison.

use std::collections::BTreeSet;

use gimli::{
    BaseAddresses, CallFrameInstruction, CieOrFde, EhFrame, LittleEndian, UnwindContext,
    UnwindSection as _,
};
use iced_x86::{Code, Decoder, DecoderOptions, FlowControl, Instruction, Mnemonic, OpKind};
use invivo_image::{Image, Link, LinkAddr, SectionKind, Slot};
use object::elf;
use object::read::{Object as _, ObjectSection as _};

use crate::mutation::Mutation;
use crate::subject::{Kind, Relocation, Subject};

/// Why a change means nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Proof {
    /// The same instruction in another encoding, or another instruction that does nothing.
    SameInstruction,
    /// A jump that leads to the same instruction, through padding or not.
    SameTarget,
    /// Control cannot get there.
    Unreachable,
    /// The loader writes over it before anybody can read it.
    Overwritten,
    /// The loader does not read this field.
    NotRead,
    /// The frame descriptions say the same in other bytes.
    SameFrames,
    /// Nothing refers to it, and no other image can.
    Unreferenced,
}

impl Proof {
    pub(crate) fn text(self) -> &'static str {
        match self {
            Proof::SameInstruction => "the same instruction",
            Proof::SameTarget => "leads to the same instruction",
            Proof::Unreachable => "control never gets there",
            Proof::Overwritten => "the loader writes over it",
            Proof::NotRead => "the loader does not read it",
            Proof::SameFrames => "the same frames",
            Proof::Unreferenced => "nothing refers to it",
        }
    }
}

/// What is known about a subject as a whole.
#[derive(Default)]
pub(crate) struct Facts {
    /// Addresses of instructions that may run.
    reached: BTreeSet<u64>,
    /// All addresses that instructions which may run, and pointers in data, refer to.
    referred: BTreeSet<u64>,
}

impl Facts {
    pub(crate) fn of(subject: &Subject) -> Facts {
        let mut facts = Facts {
            reached: BTreeSet::new(),
            referred: pointers(subject),
        };
        let image = &subject.image;
        // Where a function begins and ends is known; that all of it runs is assumed.
        let owned = image.entities.iter().flat_map(|entity| {
            let end = entity.end().0.max(entity.addr.0 + 1);
            subject
                .instructions
                .range(entity.addr.0..end)
                .map(|(at, _)| *at)
        });
        let mut waiting: Vec<u64> = owned.collect();
        // The C library calls what is in `.init` and `.fini` by their addresses.
        let sections = image
            .sections
            .iter()
            .filter(|s| [".init", ".fini"].contains(&&*s.name));
        waiting.extend(sections.map(|section| section.range.start.0));
        waiting.extend(&facts.referred);
        while let Some(at) = waiting.pop() {
            let Some(instruction) = subject.instructions.get(&at) else {
                continue;
            };
            if !facts.reached.insert(at) {
                continue;
            }
            let ends = matches!(
                instruction.flow_control(),
                FlowControl::Return
                    | FlowControl::UnconditionalBranch
                    | FlowControl::IndirectBranch
                    | FlowControl::Exception
            );
            // The compiler knows that a call at the very end of a function does not return; nor does a
            // program get past a `hlt`, which only the kernel may use.
            let stays = instruction.mnemonic() == Mnemonic::Hlt
                || matches!(
                    instruction.flow_control(),
                    FlowControl::Call | FlowControl::IndirectCall
                );
            let last = stays
                && image
                    .entities
                    .iter()
                    .any(|e| e.end().0 == instruction.next_ip());
            if !ends && !last {
                waiting.push(instruction.next_ip());
            }
            for target in references(instruction) {
                facts.referred.insert(target);
                waiting.push(target);
            }
        }
        facts
    }
}

/// Every number in `instruction` that may be an address.
fn references(instruction: &Instruction) -> Vec<u64> {
    let mut found = Vec::new();
    for op in 0..instruction.op_count() {
        match instruction.op_kind(op) {
            OpKind::NearBranch64 => found.push(instruction.near_branch64()),
            OpKind::Memory => found.push(instruction.memory_displacement64()),
            OpKind::Immediate32 | OpKind::Immediate32to64 | OpKind::Immediate64 => {
                found.push(instruction.immediate(op));
            }
            _ => {}
        }
    }
    found
}

/// Every pointer that is in data when the program runs.
fn pointers(subject: &Subject) -> BTreeSet<u64> {
    let image = &subject.image;
    let mut found = BTreeSet::new();
    for (place, slot) in &image.slots {
        match slot {
            Slot::Pointer(at) | Slot::Resolved(at) => {
                found.insert(at.0);
            }
            Slot::LazyImport(_) if !subject.binds_now => found.extend(word(image, place.0)),
            _ => {}
        }
    }
    for entity in &image.entities {
        if entity.names.iter().any(|symbol| symbol.exported) {
            found.insert(entity.addr.0);
        }
    }
    if image.link == Link::Fixed {
        for section in image
            .sections
            .iter()
            .filter(|s| s.kind != SectionKind::Text)
        {
            let words = (section.range.start.0..section.range.end.0).step_by(8);
            let plain = words.filter(|at| !image.slots.contains_key(&LinkAddr(*at)));
            found.extend(plain.filter_map(|at| word(image, at)));
        }
    }
    found
}

fn word(image: &Image, at: u64) -> Option<u64> {
    let bytes = image.bytes(LinkAddr(at), 8)?;
    bytes.try_into().ok().map(u64::from_le_bytes)
}

/// The proof that `mutation` means nothing, if there is one.
pub(crate) fn meaningless(subject: &Subject, mutation: &Mutation) -> Option<Proof> {
    if mutation.kind == Kind::Relocation {
        return not_read(subject, mutation).then_some(Proof::NotRead);
    }
    let at = subject.address(mutation.site.offset)?;
    let image = &subject.image;
    if same_target(subject, mutation, at) {
        return Some(Proof::SameTarget);
    }
    if let Some((ip, before)) = subject.instructions.range(..=at.0).next_back()
        && at.0 < before.next_ip()
    {
        if same_instruction(mutation, at, *ip, before) {
            return Some(Proof::SameInstruction);
        }
        return (!subject.facts.reached.contains(ip)).then_some(Proof::Unreachable);
    }
    if overwritten(subject, mutation, at) {
        return Some(Proof::Overwritten);
    }
    if mutation.kind == Kind::Unwind {
        if between_tables(subject, at) {
            return Some(Proof::Unreferenced);
        }
        let same = frames(&subject.bytes).is_some_and(|one| frames(&mutation.bytes) == Some(one));
        let said = image.section_at(at).is_some_and(|s| s.name == ".eh_frame");
        return (same && said).then_some(Proof::SameFrames);
    }
    unreferenced(subject, at).then_some(Proof::Unreferenced)
}

fn same_instruction(mutation: &Mutation, at: LinkAddr, ip: u64, before: &Instruction) -> bool {
    let after = changed(mutation, at, ip);
    // Equality of decoded instructions does not look at their encoding.
    after.len() == before.len() && (after == *before || is_idle(before) && is_idle(&after))
}

/// What the mutation made of the instruction at `ip`.
fn changed(mutation: &Mutation, at: LinkAddr, ip: u64) -> Instruction {
    let skip = usize::try_from(at.0 - ip).expect("inside an instruction");
    let bytes = &mutation.bytes[mutation.site.offset - skip..];
    Decoder::with_ip(64, bytes, ip, DecoderOptions::NONE).decode()
}

fn is_idle(instruction: &Instruction) -> bool {
    let code = instruction.code();
    matches!(code, Code::Nopw | Code::Nopd | Code::Nopq)
        || matches!(code, Code::Nop_rm16 | Code::Nop_rm32 | Code::Nop_rm64)
}

/// The first instruction from `at` on that does something.
fn lands(subject: &Subject, mut at: u64) -> u64 {
    while let Some(idle) = subject.instructions.get(&at).filter(|i| is_idle(i)) {
        at = idle.next_ip();
    }
    at
}

/// True for a jump to the padding before its target, or an entry of a jump table that
/// leads there.
fn same_target(subject: &Subject, mutation: &Mutation, at: LinkAddr) -> bool {
    let entry = subject.tables.range(..=at.0).next_back();
    let (before, after) = if let Some((place, table)) = entry.filter(|(place, _)| at.0 < *place + 4)
    {
        let skip = usize::try_from(at.0 - place).expect("inside an entry");
        let start = mutation.site.offset - skip;
        let target = |bytes: &[u8]| {
            let entry = &bytes[start..start + 4];
            let distance = i32::from_le_bytes(entry.try_into().expect("four bytes"));
            table.wrapping_add_signed(i64::from(distance))
        };
        (target(&subject.bytes), target(&mutation.bytes))
    } else {
        let Some((ip, before)) = subject.instructions.range(..=at.0).next_back() else {
            return false;
        };
        let after = changed(mutation, at, *ip);
        let same = after.code() == before.code() && after.len() == before.len();
        if !same || before.op0_kind() != OpKind::NearBranch64 {
            return false;
        }
        (before.near_branch64(), after.near_branch64())
    };
    lands(subject, before) == lands(subject, after)
}

/// True if one relocation covers the byte and ends with a value that does not depend on it.
fn overwritten(subject: &Subject, mutation: &Mutation, at: LinkAddr) -> bool {
    let last = at.0 + mutation.site.size as u64 - 1;
    // The loader keeps the first three words of this table for itself and reads none of them.
    let own = |table: LinkAddr| table <= at && last < table.0 + 24;
    if subject.loader_table.is_some_and(own) {
        return true;
    }
    subject.relocations.iter().any(|relocation| {
        let copy = relocation.kind == elf::R_X86_64_COPY.0;
        let copied = subject.image.entity_at(relocation.place).filter(|_| copy);
        let size = copied.map_or(8, |id| subject.image.entity(id).size);
        let covers = relocation.place <= at && last < relocation.place.0 + size;
        let lazy = relocation.kind == elf::R_X86_64_JUMP_SLOT.0 && !subject.binds_now;
        covers && !lazy && (!copy || copied.is_some())
    })
}

/// True for a byte of `.gcc_except_table` that is in the table of no function.
fn between_tables(subject: &Subject, at: LinkAddr) -> bool {
    let image = &subject.image;
    let section = image
        .section_at(at)
        .filter(|s| s.name == ".gcc_except_table");
    section.is_some()
        && image.unwind.lsdas.iter().all(|start| {
            let table = invivo_image::Lsda::parse(image, *start);
            table.is_ok_and(|table| at < *start || at.0 - start.0 >= table.tables.len() as u64)
        })
}

/// All that an unwinder learns from `.eh_frame`: each range of code with its rules, and with
/// what leads out of the table; `None` where it is broken.
fn frames(file: &[u8]) -> Option<Vec<String>> {
    let object = object::read::File::parse(file).ok()?;
    let section = object.section_by_name(".eh_frame")?;
    let bytes = section.data().ok()?;
    let frame = EhFrame::new(bytes, LittleEndian);
    let bases = BaseAddresses::default().set_eh_frame(section.address());
    let mut context = UnwindContext::new();
    let mut found = Vec::new();
    let mut entries = frame.entries(&bases);
    while let Some(entry) = entries.next().ok()? {
        let CieOrFde::Fde(partial) = entry else {
            continue;
        };
        let fde = partial.parse(EhFrame::cie_from_offset).ok()?;
        let outside = (
            fde.cie().personality(),
            fde.lsda(),
            fde.is_signal_trampoline(),
        );
        let range = fde.initial_address()..fde.end_address();
        found.push(format!("{range:x?} {outside:?}"));
        let mut rows = fde.rows(&frame, &bases, &mut context).ok()?;
        let mut last = String::new();
        while let Some(row) = rows.next_row().ok()? {
            let rules: Vec<_> = row.registers().collect();
            let says = format!("{:?} {rules:?} {}", row.cfa(), row.saved_args_size());
            // A step to another place at which nothing changes, or behind the code, is none.
            if says != last && row.start_address() < fde.end_address() {
                found.push(format!("{:#x} {says}", row.start_address()));
            }
            last = says;
        }
        // A row says of an expression only where it stands.
        let mut steps = fde.instructions(&frame, &bases);
        while let Some(step) = steps.next().ok()? {
            let expression = match step {
                CallFrameInstruction::DefCfaExpression { expression }
                | CallFrameInstruction::Expression { expression, .. }
                | CallFrameInstruction::ValExpression { expression, .. } => expression,
                _ => continue,
            };
            found.push(format!("{:?}", expression.get(&frame).ok()?));
        }
    }
    Some(found)
}

/// True for a byte of an object that nothing refers to, or between objects and before the
/// next thing that is referred to.
fn unreferenced(subject: &Subject, at: LinkAddr) -> bool {
    let image = &subject.image;
    let Some(section) = image.section_at(at) else {
        return false;
    };
    // What the start of a program or of a thread reads needs no reference.
    let start = [".init_array", ".fini_array", ".preinit_array", ".tdata"];
    if start.contains(&section.name.as_str()) {
        return false;
    }
    let end_before = image
        .entities
        .iter()
        .map(|entity| match entity.name() {
            // Its symbol has no size; its use makes it one word.
            "__dso_handle" => entity.addr.0 + 8,
            _ => entity.end().0,
        })
        .filter(|end| *end <= at.0)
        .max();
    let (start, end) = match image.entity_at(at).map(|id| image.entity(id)) {
        Some(entity) if entity.size > 0 => (entity.addr.0, entity.end().0),
        _ => (end_before.unwrap_or(0).max(section.range.start.0), at.0 + 1),
    };
    subject.facts.referred.range(start..end).next().is_none()
}

/// True for the symbol of a relocation that has none by its type, and for addends that the
/// loader ignores.
fn not_read(subject: &Subject, mutation: &Mutation) -> bool {
    let holder = |r: &&Relocation| (r.offset..r.offset + 24).contains(&mutation.site.offset);
    let Some(relocation) = subject.relocations.iter().find(holder) else {
        return false;
    };
    let field = mutation.site.offset - relocation.offset;
    let is = |kinds: &[elf::RelocationType]| kinds.iter().any(|kind| kind.0 == relocation.kind);
    match field {
        // Both are the value of the symbol and the addend.
        8 => {
            let sum = [elf::R_X86_64_64.0, elf::R_X86_64_GLOB_DAT.0];
            let after = mutation.bytes[mutation.site.offset..][..4].try_into();
            let after = after.map(u32::from_le_bytes).unwrap_or_default();
            sum.contains(&relocation.kind) && sum.contains(&after)
        }
        12 => is(&[elf::R_X86_64_RELATIVE, elf::R_X86_64_IRELATIVE]),
        16 => is(&[elf::R_X86_64_COPY, elf::R_X86_64_DTPMOD64]),
        _ => false,
    }
}

/// A mutation for a person: what was changed, where, and how.
pub(crate) fn describe(subject: &Subject, mutation: &Mutation) -> String {
    let image = &subject.image;
    let site = mutation.site;
    let field = site.offset..site.offset + site.size;
    let place = subject.address(site.offset).map_or("?".to_owned(), |at| {
        let section = image
            .section_at(at)
            .map_or("no section", |s| s.name.as_str());
        let entity = image.entity_at(at).map_or(String::new(), |id| {
            let entity = image.entity(id);
            format!(
                " {}+{:#x}/{:#x}",
                entity.name(),
                at.0 - entity.addr.0,
                entity.size
            )
        });
        format!("{at} {section}{entity}")
    });
    format!(
        "{}: {:?} at {place}: {:02x?} became {:02x?}",
        subject.name,
        mutation.kind,
        &subject.bytes[field.clone()],
        &mutation.bytes[field]
    )
}
