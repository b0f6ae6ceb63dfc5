//! Does each computed jump of a function go straight through one of its tables?

use std::collections::BTreeSet;

use iced_x86::{
    FlowControl, Instruction, InstructionInfoFactory, Mnemonic, OpAccess, OpKind, Register,
};
use invivo_image::x86_64::{Line, jumps_through};
use invivo_image::{EntityId, Image, LinkAddr, Place};

/// What a register holds: one bit for each.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Held {
    /// Where a table begins, or a place in it.
    table: u16,
    /// A place that was read out of one.
    label: u16,
}

/// True if some jump may go to a place that does not come straight out of a table.
pub(super) fn strays(
    image: &Image,
    lines: &[Line],
    tables: &BTreeSet<EntityId>,
    tabled: &BTreeSet<usize>,
) -> bool {
    let is_table = |at: LinkAddr| match image.place(at) {
        Place::In(id, _) => tables.contains(&id),
        _ => false,
    };
    let mut info = InstructionInfoFactory::new();
    let mut before: Vec<Option<Held>> = vec![None; lines.len()];
    let nothing = Held { table: 0, label: 0 };
    let mut waiting: BTreeSet<usize> = BTreeSet::new();
    // Whatever nothing is seen to lead to, such as what handles an exception, begins with
    // nothing held.
    let branches = lines
        .iter()
        .map(|line| line.instruction.near_branch_target());
    let branched: BTreeSet<LinkAddr> = branches.map(LinkAddr).collect();
    for (at, line) in lines.iter().enumerate() {
        let follows = at > 0 && !lines[at - 1].ends_flow();
        let begins = !follows && !line.is_padding();
        if begins && !branched.contains(&line.at()) && !tabled.contains(&at) {
            before[at] = Some(nothing);
            waiting.insert(at);
        }
    }
    let mut settled: Vec<bool> = vec![true; lines.len()];
    while let Some(at) = waiting.pop_first() {
        let held = before[at].unwrap_or(nothing);
        let line = &lines[at];
        settled[at] = !jumps_through(&line.instruction) || comes_from(line, held, &is_table);
        let after = step(line, held, &is_table, &mut info);
        let target = LinkAddr(line.instruction.near_branch_target());
        let branch = matches!(
            line.instruction.flow_control(),
            FlowControl::ConditionalBranch | FlowControl::UnconditionalBranch
        );
        let jump = lines.binary_search_by_key(&target, Line::at).ok();
        let next = (!line.ends_flow()).then_some(at + 1);
        let next = next.into_iter().chain(jump.filter(|_| branch));
        let through = jumps_through(&line.instruction);
        let next = next.chain(tabled.iter().copied().filter(|_| through));
        for next in next.filter(|next| *next < lines.len()) {
            let joined = before[next].map_or(after, |known| Held {
                table: known.table & after.table,
                label: known.label & after.label,
            });
            if before[next] != Some(joined) {
                before[next] = Some(joined);
                waiting.insert(next);
            }
        }
    }
    settled.contains(&false)
}

fn bit(register: Register) -> u16 {
    let full = register.full_register();
    if register == Register::None || !full.is_gpr() {
        return 0;
    }
    1 << (full.number() & 15)
}

/// True for an operand in memory that is an entry of a table.
fn is_entry(line: &Line, held: Held, is_table: &dyn Fn(LinkAddr) -> bool) -> bool {
    let i = &line.instruction;
    line.address.is_some_and(|to| is_table(to.target))
        || bit(i.memory_base()) & held.table != 0
        || i.memory_index_scale() == 1 && bit(i.memory_index()) & held.table != 0
}

fn comes_from(line: &Line, held: Held, is_table: &dyn Fn(LinkAddr) -> bool) -> bool {
    match line.instruction.op0_kind() {
        OpKind::Register => bit(line.instruction.op0_register()) & held.label != 0,
        _ => is_entry(line, held, is_table),
    }
}

fn step(
    line: &Line,
    held: Held,
    is_table: &dyn Fn(LinkAddr) -> bool,
    info: &mut InstructionInfoFactory,
) -> Held {
    let i: &Instruction = &line.instruction;
    let mut lost = if line.is_call() {
        [
            Register::RAX,
            Register::RCX,
            Register::RDX,
            Register::RSI,
            Register::RDI,
            Register::R8,
            Register::R9,
            Register::R10,
            Register::R11,
        ]
        .iter()
        .fold(0, |all, register| all | bit(*register))
    } else {
        0
    };
    for used in info.info(i).used_registers() {
        if !matches!(used.access(), OpAccess::Read | OpAccess::CondRead) {
            lost |= bit(used.register());
        }
    }
    let mut after = Held {
        table: held.table & !lost,
        label: held.label & !lost,
    };
    let register = i.op_count() > 0 && i.op0_kind() == OpKind::Register;
    let to = if register { bit(i.op0_register()) } else { 0 };
    match i.mnemonic() {
        Mnemonic::Lea if line.address.is_some_and(|at| is_table(at.target)) => after.table |= to,
        Mnemonic::Mov if line.immediate.is_some_and(|at| is_table(at.target)) => after.table |= to,
        Mnemonic::Mov if i.op1_kind() == OpKind::Memory && is_entry(line, held, is_table) => {
            after.label |= to;
        }
        Mnemonic::Mov if i.op1_kind() == OpKind::Register => {
            let from = bit(i.op1_register());
            if from & held.table != 0 {
                after.table |= to;
            }
            if from & held.label != 0 {
                after.label |= to;
            }
        }
        _ => {}
    }
    after
}
