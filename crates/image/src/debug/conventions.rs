//! How functions get their parameters.

use gimli::{AttributeValue, constants as dw};

use super::layout::number;
use super::{DebugData, Die};

/// Types that are followed from one to the next, at most.
const DEEPEST: usize = 32;

impl DebugData<'_> {
    /// What the debug data call the way in which the function, or type of a function, at `die` is
    /// called, where that is not the usual one: clang's tell (`ms_abi`), GNU's do not.
    pub(super) fn convention(&self, die: Die) -> Option<String> {
        Some(match self.convention_number(die)? {
            // The usual one, that of a program, and `DW_CC_nocall`, which is no part of a prototype.
            1..=3 => return None,
            0xc0 => "vectorcall ".to_owned(),
            0xc1 => "ms_abi ".to_owned(),
            0xc2 => "sysv_abi ".to_owned(),
            other => format!("convention {other:#x} "),
        })
    }

    /// True for `DW_CC_nocall`: a function whose callers the compiler changed with it.
    pub(super) fn is_unusual(&self, die: Die) -> bool {
        self.convention_number(die) == Some(u64::from(dw::DW_CC_nocall.0))
    }

    fn convention_number(&self, die: Die) -> Option<u64> {
        let origins = self.origins(die);
        let mut told = origins.iter();
        let value = told.find_map(|(_, entry)| entry.attr_value(dw::DW_AT_calling_convention))?;
        match value {
            AttributeValue::CallingConvention(convention) => Some(u64::from(convention.0)),
            other => other.udata_value(),
        }
    }

    /// In how many general registers the parameters of the function at `die` come at most.
    pub(super) fn registers(&self, die: Die) -> Option<u32> {
        let size = |die: Die| self.registers_of(self.type_of(die));
        // What is returned in memory has its place as a parameter in front.
        let mut found = size(die) - 1;
        for child in self.children(die) {
            let at = Die {
                unit: die.unit,
                offset: child.offset(),
            };
            match child.tag() {
                dw::DW_TAG_formal_parameter => found = size(at).saturating_add(found),
                dw::DW_TAG_unspecified_parameters => return None,
                _ => {}
            }
        }
        Some(found)
    }

    /// True if what the function at `die` returns may not fit into a register.
    pub(super) fn returns_far(&self, die: Die) -> bool {
        self.registers_of(self.type_of(die)) > 1
    }

    /// 1 for what fits into a register, 2 for all else.
    fn registers_of(&self, mut die: Option<Die>) -> u32 {
        for _ in 0..DEEPEST {
            let Some((at, entry)) = die.and_then(|die| Some((die, self.entry(die)?))) else {
                return 1;
            };
            match entry.tag() {
                dw::DW_TAG_typedef | dw::DW_TAG_const_type | dw::DW_TAG_volatile_type => {
                    die = self.reference(at.unit, &entry, dw::DW_AT_type);
                }
                dw::DW_TAG_base_type | dw::DW_TAG_enumeration_type => {
                    let size = number(&entry, dw::DW_AT_byte_size).unwrap_or(16);
                    return if size > 8 { 2 } else { 1 };
                }
                dw::DW_TAG_pointer_type
                | dw::DW_TAG_reference_type
                | dw::DW_TAG_rvalue_reference_type => return 1,
                _ => return 2,
            }
        }
        2
    }
}
