//! What a model must keep so that it can be written.

use super::function::{MOST_NOPS, New, Old, StructureVersion};
use super::model::{Access, Contents, Moment, Payload, Reference, Section, SymbolPlace};
use super::{DEPENDS, FUNCTIONS, LivepatchError, MODINFO, NAMES, OWN_ID, Rule, XEN_DEPENDS};

/// The largest alignment that Xen honours.
pub(super) const PAGE: u64 = 4096;
/// The longest name of a symbol that Xen keeps.
pub(super) const LONGEST_NAME: usize = 126;

/// Holds a model against the rules that a writer could break.
pub(super) fn check(payload: &Payload) -> Result<(), LivepatchError> {
    let refuse = |rule, text: String| Err(LivepatchError::new(rule, text));
    if payload.functions.is_empty() && payload.hooks.is_empty() {
        return refuse(
            Rule::X26,
            "the payload has no functions and no hooks".to_owned(),
        );
    }
    if (payload.version == StructureVersion::V2) != payload.xen_depends.is_some() {
        let text = format!(
            "version {} with or without xen_depends",
            payload.version.number()
        );
        return refuse(Rule::X14, text);
    }
    for (what, id) in [
        ("depends", Some(&payload.depends)),
        ("xen_depends", payload.xen_depends.as_ref()),
    ] {
        if id.is_some_and(|id| !(1..=64).contains(&id.0.len())) {
            return refuse(
                Rule::X36,
                format!("the build id of {what} has no length of 1 to 64"),
            );
        }
    }
    for section in &payload.sections {
        check_section(payload, section)?;
    }
    for symbol in &payload.symbols {
        check_symbol(payload, &symbol.name, symbol.place)?;
    }
    check_functions(payload)?;
    for hook in &payload.hooks {
        is_code(payload, hook.code, hook.moment.section())?;
        let twice = payload
            .hooks
            .iter()
            .filter(|other| other.moment == hook.moment)
            .count()
            > 1;
        if twice && !hook.moment.is_list() {
            return refuse(
                Rule::X35,
                format!("{} has two hooks", hook.moment.section()),
            );
        }
        let replaces = matches!(hook.moment, Moment::Apply | Moment::Revert);
        if replaces && !payload.functions.is_empty() {
            return refuse(
                Rule::X58,
                format!("{} beside functions", hook.moment.section()),
            );
        }
    }
    match payload.modinfo.iter().find(|text| text.contains('\0')) {
        Some(text) => refuse(Rule::X41, format!("the text {text:?} of {MODINFO}")),
        None => Ok(()),
    }
}

fn check_section(payload: &Payload, section: &Section) -> Result<(), LivepatchError> {
    let name = &section.name;
    let refuse = |rule, text: String| Err(LivepatchError::new(rule, text));
    let own = [FUNCTIONS, DEPENDS, XEN_DEPENDS, OWN_ID, MODINFO, NAMES];
    let tables = [".symtab", ".strtab", ".shstrtab"];
    let is_own = own.contains(&name.as_str()) || Moment::ALL.iter().any(|m| m.section() == name);
    if name.is_empty()
        || name.contains('\0')
        || is_own
        || tables.contains(&name.as_str())
        || name.starts_with(".rel")
    {
        return refuse(
            Rule::X13,
            format!("a section of a payload cannot be called {name:?}"),
        );
    }
    if !section.align.is_power_of_two() {
        return refuse(
            Rule::X08,
            format!("{name} has the alignment {}", section.align),
        );
    }
    if section.align > PAGE {
        return refuse(
            Rule::X64,
            format!("{name} has the alignment {}", section.align),
        );
    }
    let size = section.contents.size();
    if size > super::file::LARGEST {
        return refuse(Rule::X10, format!("{name} has {size} bytes"));
    }
    for relocation in &section.relocations {
        symbol_of(payload, relocation.to, name)?;
        let end = relocation.offset.checked_add(relocation.kind.width());
        let held = matches!(section.contents, Contents::Bytes(_));
        if !held || end.is_none_or(|end| end > size) {
            let text = format!(
                "the relocation at {:#x} of {name}, which has {size} bytes",
                relocation.offset
            );
            return refuse(Rule::X23, text);
        }
    }
    Ok(())
}

fn check_symbol(payload: &Payload, name: &str, place: SymbolPlace) -> Result<(), LivepatchError> {
    let refuse = |rule, text: String| Err(LivepatchError::new(rule, text));
    if name.contains('\0') || name.len() > LONGEST_NAME {
        return refuse(Rule::X12, format!("the symbol's name {name:?}"));
    }
    match place {
        SymbolPlace::Xen if name.is_empty() => {
            refuse(Rule::X18, "a symbol of Xen without a name".to_owned())
        }
        SymbolPlace::Xen => Ok(()),
        SymbolPlace::Section { section, .. } => match payload.sections.get(section as usize) {
            Some(_) => Ok(()),
            None => refuse(
                Rule::X20,
                format!("the symbol {name:?} is in section {section}"),
            ),
        },
    }
}

fn check_functions(payload: &Payload) -> Result<(), LivepatchError> {
    let refuse = |rule, text: String| Err(LivepatchError::new(rule, text));
    for (number, function) in payload.functions.iter().enumerate() {
        let name = &function.name;
        if name.is_empty() || name.contains('\0') {
            return refuse(
                Rule::X52,
                format!("function {number} has no name: {name:?}"),
            );
        }
        if payload.functions[..number]
            .iter()
            .any(|other| other.name == *name)
        {
            return refuse(Rule::X59, format!("{name} is named twice"));
        }
        if function.old_size == 0 {
            return refuse(Rule::X29, format!("{name} has no size"));
        }
        if function.old == Old::Address(0) {
            return refuse(Rule::X51, format!("{name} is at address 0"));
        }
        if let Old::Symbol(old) = function.old {
            symbol_of(payload, old, name)?;
        }
        match function.new {
            New::Code { code, .. } => is_code(payload, code, name)?,
            New::Nop { size } if size > MOST_NOPS => {
                return refuse(Rule::X31, format!("{size} NOPs in {name}"));
            }
            New::Nop { size } if size > function.old_size => {
                return refuse(
                    Rule::X32,
                    format!(
                        "{size} NOPs in {name}, which has {} bytes",
                        function.old_size
                    ),
                );
            }
            New::Nop { .. } => {}
        }
        if let Some(expected) = &function.expectation {
            if payload.version == StructureVersion::V1 {
                return refuse(Rule::X28, format!("an expectation of {name} in version 1"));
            }
            if expected.bytes().len() as u64 > u64::from(function.old_size) {
                return refuse(Rule::X46, format!("the expectation of {name}"));
            }
        }
    }
    Ok(())
}

fn symbol_of(
    payload: &Payload,
    reference: Reference,
    whose: &str,
) -> Result<SymbolPlace, LivepatchError> {
    let symbol = payload.symbols.get(reference.symbol as usize);
    symbol.map(|symbol| symbol.place).ok_or_else(|| {
        LivepatchError::new(
            Rule::X23,
            format!(
                "{whose} leads to symbol {}, which is not there",
                reference.symbol
            ),
        )
    })
}

fn is_code(payload: &Payload, reference: Reference, whose: &str) -> Result<(), LivepatchError> {
    let inside = match symbol_of(payload, reference, whose)? {
        // A hook may be a function of Xen.
        SymbolPlace::Xen => true,
        SymbolPlace::Section {
            section, offset, ..
        } => {
            let section = payload.sections.get(section as usize);
            section.is_some_and(|section| {
                let at = offset.checked_add_signed(reference.addend);
                section.access == Access::Code && at.is_some_and(|at| at < section.contents.size())
            })
        }
    };
    match inside {
        true => Ok(()),
        false => Err(LivepatchError::new(
            Rule::X57,
            format!("{whose} leads to no code"),
        )),
    }
}
