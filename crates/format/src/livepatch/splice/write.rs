//! Puts what was planned into the payload.

use super::super::function::{Expectation, Function, New, Old};
use super::super::{
    Access, Contents, Hook, Hypervisor, Moment, Payload, Reference, Relocation, RelocationKind,
    Section, Symbol, SymbolPlace,
};
use super::references::Site;
use super::stub::{RECORD, Table, stub};
use super::{Planned, redirected};

/// Records of a table, as places and what each leads from and to.
#[derive(Default)]
struct Records(Vec<[Reference; 3]>);

pub(super) fn write(payload: &mut Payload, xen: &Hypervisor<'_>, planned: &[Planned<'_>]) {
    let (mut branches, mut pointers) = (Records::default(), Records::default());
    let mut looks = Vec::new();
    for one in planned {
        if one.branches.is_empty() && one.pointers.is_empty() {
            continue;
        }
        let New::Code { code, .. } = payload.functions[one.number].new else {
            continue;
        };
        let name = payload.functions[one.number].name.clone();
        // Only one symbol may have the name, and it has to be Xen's.
        if let Some(symbol) = payload.symbols.get_mut(code.symbol as usize)
            && (symbol.name == name || one.jump.is_none())
        {
            symbol.name.clear();
        }
        let old = of_xen(payload, &name);
        for (sites, records, operand) in [
            (&one.branches, &mut branches, 4),
            (&one.pointers, &mut pointers, 8),
        ] {
            for site in sites {
                let holder = of_xen(payload, site.holder.name);
                let at = |address: u64| Reference {
                    symbol: holder.symbol,
                    addend: address.wrapping_sub(site.holder.start).cast_signed(),
                };
                let place = at((site.at + site.size).wrapping_sub(operand));
                records.0.push([place, old, code]);
                looks.extend(look(xen, site, at(site.at)));
            }
        }
    }
    let bypassed: Vec<usize> = planned
        .iter()
        .filter(|one| one.jump.is_none() && !one.branches.is_empty())
        .map(|one| one.number)
        .collect();
    let mut number = 0..;
    payload.functions.retain(|_| {
        let number = number.next();
        number.is_none_or(|number| !bypassed.contains(&number))
    });
    payload.functions.extend(looks);
    hooks(payload, branches, pointers);
}

/// An entry that changes nothing: Xen looks whether the bytes there are those of `xen-syms`.
fn look(xen: &Hypervisor<'_>, site: &Site<'_>, place: Reference) -> Option<Function> {
    let size = usize::try_from(site.size).ok()?;
    let bytes = xen.bytes(site.at)?.get(..size)?;
    Some(Function {
        name: format!("{}+{:#x}", site.holder.name, place.addend),
        new: New::Nop { size: 0 },
        old: Old::Symbol(place),
        old_size: u32::try_from(site.size).ok()?,
        expectation: Expectation::new(bytes.to_vec()),
    })
}

fn hooks(payload: &mut Payload, branches: Records, pointers: Records) {
    let mut tables = Vec::new();
    for (records, name, distances) in [
        (branches, redirected::BRANCHES, true),
        (pointers, redirected::POINTERS, false),
    ] {
        let count = records.0.len();
        if count == 0 {
            continue;
        }
        let words = records.0.into_iter().flatten().zip((0..).step_by(8));
        let relocations = words.map(|(to, offset)| Relocation {
            offset,
            kind: RelocationKind::Absolute64,
            to,
        });
        let relocations = relocations.collect();
        let size = count * RECORD;
        let table = Section {
            name: name.to_owned(),
            access: Access::ReadOnly,
            align: 8,
            contents: Contents::Bytes(vec![0; size]),
            relocations,
        };
        tables.push(Table {
            symbol: own(payload, table, size),
            count: u32::try_from(count).unwrap_or(u32::MAX),
            distances,
        });
    }
    for (moment, back) in [(Moment::Load, false), (Moment::Unload, true)] {
        let stub = stub(&tables, back);
        let distances = stub.distances.iter();
        let relocations = distances.map(|(offset, symbol)| Relocation {
            offset: *offset,
            kind: RelocationKind::Relative32,
            to: Reference {
                symbol: *symbol,
                addend: -4,
            },
        });
        let relocations = relocations.collect();
        let size = stub.code.len();
        let code = Section {
            name: format!(
                "{}.{}",
                redirected::CODE,
                if back { "unload" } else { "load" }
            ),
            access: Access::Code,
            align: 16,
            contents: Contents::Bytes(stub.code),
            relocations,
        };
        let symbol = own(payload, code, size);
        let code = Reference { symbol, addend: 0 };
        payload.hooks.push(Hook { moment, code });
    }
}

/// Adds a section, and a symbol without a name for all of it.
fn own(payload: &mut Payload, section: Section, size: usize) -> u32 {
    payload.sections.push(section);
    let number = payload.sections.len() - 1;
    push(
        payload,
        Symbol {
            name: String::new(),
            place: SymbolPlace::Section {
                section: u32::try_from(number).unwrap_or(u32::MAX),
                offset: 0,
                size: size as u64,
            },
        },
    )
}

/// The symbol of Xen that has this name.
fn of_xen(payload: &mut Payload, name: &str) -> Reference {
    let mut symbols = (0..).zip(&payload.symbols);
    let known = symbols.find(|(_, one)| one.place == SymbolPlace::Xen && one.name == name);
    let symbol = match known {
        Some((number, _)) => number,
        None => push(
            payload,
            Symbol {
                name: name.to_owned(),
                place: SymbolPlace::Xen,
            },
        ),
    };
    Reference { symbol, addend: 0 }
}

fn push(payload: &mut Payload, symbol: Symbol) -> u32 {
    payload.symbols.push(symbol);
    u32::try_from(payload.symbols.len() - 1).unwrap_or(u32::MAX)
}
