//! Types for a person.

use std::fmt::Write as _;

use ms_codeview::types::{TypeData, TypeIndex};

use super::types::{DEEPEST, Types};

/// Texts grow by what is inside them; this many letters of one are told.
const LONGEST: usize = 1 << 12;
/// More arguments than any function has.
const MOST_ARGUMENTS: usize = 64;
/// Types may name each other so often that a text of them would have no end: after so many it breaks off.
const MOST_STEPS: usize = 1 << 12;

/// A text that grows until it is long enough.
#[derive(Default)]
pub(super) struct Text {
    text: String,
    letters: usize,
    steps: usize,
}

impl Text {
    fn add(&mut self, text: &str) {
        let new = text.chars().take(LONGEST - self.letters);
        for letter in new {
            self.text.push(letter);
            self.letters += 1;
        }
    }

    /// A name, of which no more is looked at than can be told.
    fn name(&mut self, name: &[u8]) {
        let most = name.len().min(4 * LONGEST);
        self.add(&String::from_utf8_lossy(&name[..most]));
    }

    /// True if there is room for one type more.
    fn step(&mut self) -> bool {
        if self.letters == LONGEST || self.steps > MOST_STEPS {
            return false;
        }
        self.steps += 1;
        if self.steps > MOST_STEPS {
            self.add("…");
            return false;
        }
        true
    }
}

impl std::fmt::Write for Text {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        self.add(text);
        Ok(())
    }
}

/// A type for a person, and in how many steps it was found.
pub(super) fn text(types: &Types, at: TypeIndex) -> (String, usize) {
    let mut text = Text::default();
    write_type(types, at, 0, &mut text);
    (text.text, text.steps)
}

/// A type as a part of another one: what a pointer points to is no part of the layout.
pub(super) fn shape(types: &Types, at: TypeIndex) -> (String, usize) {
    let mut text = Text::default();
    write_shape(types, at, 0, &mut text);
    (text.text, text.steps)
}

fn write_shape(types: &Types, at: TypeIndex, depth: usize, to: &mut Text) {
    match types.get(at).filter(|_| depth <= DEEPEST) {
        Some(TypeData::Pointer(_)) => to.add("pointer"),
        Some(TypeData::Array(array)) => {
            write_shape(types, array.fixed.element_type.get(), depth + 1, to);
            // Writing to a text never fails.
            let _ = write!(to, "[{} bytes]", types.size(at));
        }
        Some(TypeData::Modifier(of)) => {
            write_shape(types, of.underlying_type.get(), depth + 1, to);
        }
        Some(TypeData::Bitfield(of)) => {
            write_shape(types, of.underlying_type.get(), depth + 1, to);
        }
        _ => write_type(types, at, depth, to),
    }
}

fn write_type(types: &Types, at: TypeIndex, depth: usize, to: &mut Text) {
    if !to.step() {
        return;
    }
    if depth > DEEPEST {
        to.add("…");
        return;
    }
    if types.is_primitive(at) {
        let _ = write!(to, "{at:?}");
        return;
    }
    let inner = |of: TypeIndex, to: &mut Text| write_type(types, of, depth + 1, to);
    match types.get(at) {
        Some(TypeData::Pointer(of)) => {
            inner(of.fixed.ty.get(), to);
            to.add(" *");
        }
        Some(TypeData::Array(of)) => {
            inner(of.fixed.element_type.get(), to);
            let _ = write!(to, "[{} bytes]", types.size(at));
        }
        Some(TypeData::Struct(of)) => to.name(of.name),
        Some(TypeData::Union(of)) => to.name(of.name),
        Some(TypeData::Enum(of)) => to.name(of.name),
        Some(TypeData::Modifier(of)) => inner(of.underlying_type.get(), to),
        Some(TypeData::Bitfield(of)) => inner(of.underlying_type.get(), to),
        Some(TypeData::Proc(of)) => {
            inner(of.return_value.get(), to);
            let _ = write!(to, " {}(", convention(of.call));
            write_arguments(types, of.arg_list.get(), depth + 1, to);
            to.add(")");
        }
        Some(TypeData::MemberFunc(of)) => {
            inner(of.return_value.get(), to);
            let _ = write!(to, " {}", convention(of.call));
            inner(of.class.get(), to);
            to.add("::(");
            write_arguments(types, of.arg_list.get(), depth + 1, to);
            to.add(")");
        }
        _ => {
            let _ = write!(to, "type {:#x}", at.0);
        }
    }
}

fn write_arguments(types: &Types, list: TypeIndex, depth: usize, to: &mut Text) {
    let Some(TypeData::ArgList(list)) = types.get(list) else {
        return;
    };
    for (index, of) in list.args.iter().take(MOST_ARGUMENTS).enumerate() {
        if index > 0 {
            to.add(", ");
        }
        write_type(types, of.get(), depth, to);
    }
}

/// How a function is called, where that is not the usual way: on x86 callers and callees must agree
/// on who takes the arguments from the stack, and which are in registers.
fn convention(number: u8) -> String {
    match number {
        0x00 => String::new(),
        0x02 => "__pascal ".to_owned(),
        0x04 => "__fastcall ".to_owned(),
        0x07 => "__stdcall ".to_owned(),
        0x0b => "__thiscall ".to_owned(),
        0x16 => "__clrcall ".to_owned(),
        0x18 => "__vectorcall ".to_owned(),
        other => format!("(calling convention {other:#x}) "),
    }
}
