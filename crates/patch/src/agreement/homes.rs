//! Whether parameters are where they were when the function is entered.

use invivo_image::{Home, SourceFunction};

use super::live::Live;
use super::registers::{PARAMETERS, RAX, RDI, Registers, by_dwarf, first_parameters};

/// True if each parameter that new code looks for is where it was.
pub(super) fn are_homes_kept(before: &SourceFunction, after: &SourceFunction, live: Live) -> bool {
    let (mut owned, mut lost, mut kept) = (0, false, 0);
    for (name, home) in &after.homes {
        let registers = registers(home);
        owned |= registers;
        lost |= home.is_empty();
        let in_registers = home.iter().all(|part| matches!(part, Home::Register(_)));
        kept += usize::from(home.contains(&Home::Kept));
        let used = !in_registers || registers & (live.read | live.passed) != 0;
        if used && before.homes.get(name) != Some(home) {
            return false;
        }
    }
    if after.returns_far {
        owned |= RDI;
    }
    // So many were used by a call with any number of parameters.
    if after.registers.is_none() {
        owned |= RAX;
    }
    // What is kept in memory came in registers that nothing tells.
    const REGISTERS: usize = 2;
    let unowned = live.read & !owned;
    let explained =
        (unowned & !PARAMETERS == 0) && unowned.count_ones() as usize <= kept * REGISTERS;
    // Where a parameter is nowhere, what is passed on may be something else in its place.
    let passed = live.passed & first_parameters(after.homes.len()) & !owned;
    (unowned == 0 || explained) && !(lost && passed != 0)
}

/// Registers in which both versions get the same parameter.
pub(super) fn told_alike(before: &SourceFunction, after: &SourceFunction) -> Registers {
    let same = |(name, home): &(&String, &Vec<Home>)| before.homes.get(*name) == Some(*home);
    let homes = after.homes.iter().filter(same);
    homes.fold(0, |all, (_, home)| all | registers(home))
}

/// Registers in which the function gets parameters.
pub(super) fn owned(source: &SourceFunction) -> Registers {
    let homes = source.homes.values();
    homes.fold(0, |all, home| all | registers(home))
}

fn registers(home: &[Home]) -> Registers {
    home.iter().fold(0, |all, part| match part {
        Home::Register(number) => all | by_dwarf(*number),
        _ => all,
    })
}
