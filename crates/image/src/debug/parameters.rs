//! Where the parameters of a function are when it is entered.
//!
//! A prototype says how the source calls a function. Compilers that know all of its callers
//! call it as they like: they leave a parameter out that nothing uses, or pass what a pointer
//! leads to instead of it, and the next one moves up into its register. What the debug data
//! tell of the first instruction is how it is called in truth.

use std::collections::BTreeMap;

use gimli::{AttributeValue, Expression, Operation, constants as dw};

use super::{Bytes, DebugData, Die};
use crate::LinkAddr;

/// A part of a parameter, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Home {
    /// It is in the register that DWARF gives this number.
    Register(u16),
    /// It is in memory for as long as the function runs: code that was not optimized puts it there.
    Kept,
    /// Anything else, as DWARF writes it.
    Other(String),
}

impl<'s> DebugData<'s> {
    /// Where the parameters of the function at `die`, which begins at `at`, are when it is
    /// entered, by their names; nothing for one that nothing is told of.
    pub(super) fn homes(&self, die: Die, at: LinkAddr) -> BTreeMap<String, Vec<Home>> {
        let children = self.children(die).into_iter();
        let parameters = children.filter(|child| child.tag() == dw::DW_TAG_formal_parameter);
        let homes = (0..).zip(parameters).map(|(number, entry): (u32, _)| {
            let of = Die {
                unit: die.unit,
                offset: entry.offset(),
            };
            let name = self.origin_text(of, dw::DW_AT_name);
            let name = name.unwrap_or_else(|| format!("parameter {number}"));
            let location = entry.attr_value(dw::DW_AT_location);
            let home = location.and_then(|location| self.home(die.unit, location, at));
            (name, home.unwrap_or_default())
        });
        homes.collect()
    }

    fn home(
        &self,
        unit: usize,
        location: AttributeValue<Bytes<'s>>,
        at: LinkAddr,
    ) -> Option<Vec<Home>> {
        let loaded = self.unit(unit)?;
        if let AttributeValue::Exprloc(expression) = location {
            return parts(expression, loaded.unit.encoding(), true);
        }
        let mut list = self
            .dwarf(unit)
            .attr_locations(&loaded.unit, location)
            .ok()??;
        while let Ok(Some(entry)) = list.next() {
            if (entry.range.begin..entry.range.end).contains(&at.0) {
                return parts(entry.data, loaded.unit.encoding(), false);
            }
        }
        None
    }
}

/// The parts of a place; nothing where it has none, or where the value is known and has no place.
fn parts(
    expression: Expression<Bytes<'_>>,
    encoding: gimli::Encoding,
    always: bool,
) -> Option<Vec<Home>> {
    let mut operations = expression.operations(encoding);
    let mut homes = Vec::new();
    while let Ok(Some(operation)) = operations.next() {
        homes.push(match operation {
            Operation::Piece { .. } => continue,
            Operation::Register { register } => Home::Register(register.0),
            Operation::FrameOffset { .. } if always => Home::Kept,
            other => Home::Other(format!("{other:?}")),
        });
    }
    (!homes.is_empty()).then_some(homes)
}
