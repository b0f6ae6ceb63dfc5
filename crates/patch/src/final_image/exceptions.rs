//! Exceptions in code of the fixed image that runs: they pass through it by its unwind data, are
//! handled by a routine that the process has, and lead to code that runs, too.

use std::collections::BTreeSet;
use std::ops::Range;

use iced_x86::{Code, FlowControl, Mnemonic, OpKind, Register};
use invivo_compare::Rule;
use invivo_image::pe::{Handled, Handler, PeError, guard_flags};
use invivo_image::x86_64::Line;
use invivo_image::{Entity, LinkAddr, Machine, Rva, SectionKind, Slot, demangle};

use super::arm64;
use super::direct::From;
use super::walk::Walk;

/// What the runtime knows the routines by whose tables are followed.
const OF_C: &str = "__C_specific_handler";
const OF_CPP: &str = "__CxxFrameHandler3";
const OF_NEWER_CPP: &str = "__CxxFrameHandler4";

impl Walk<'_, '_> {
    /// Follows what handles exceptions in a function.
    pub(super) fn exceptions(&mut self, entity: &Entity, lines: &[Line], by: &str) {
        if let Err(error) = self.try_exceptions(entity, lines, by) {
            self.refuse(Rule::Unwind, by, error.to_string());
        }
    }

    fn try_exceptions(&mut self, entity: &Entity, lines: &[Line], by: &str) -> Result<(), PeError> {
        let image = self.c.fixed;
        // Code for x86 lists its handlers itself, while it runs.
        if image.machine == Machine::X86 {
            return Ok(());
        }
        let places = image.rva(entity.addr).zip(image.rva(entity.end()));
        let Some(code) = places.map(|(start, end)| start..end) else {
            return Ok(());
        };
        let entries = self.windows.unwind_entries(&code);
        let mut handlers = BTreeSet::new();
        let mut is_covered = false;
        for entry in entries {
            is_covered |= entry.code.contains(&code.start);
            handlers.extend(self.windows.handler(entry)?);
        }
        if !is_covered && lines.iter().any(needs_unwind_data) {
            let name = demangle(entity.name());
            let text = format!(
                "the exception table has no entry for {name}, which calls or uses the stack: no exception, \
                 debugger or proof about threads gets past it; compile it with unwind data \
                 (-fasynchronous-unwind-tables; assembly needs .seh_proc)"
            );
            self.refuse(Rule::Unwind, by, text);
        }
        for handler in handlers {
            if self.handlers.insert(handler) {
                self.handler(handler, &code, by)?;
            }
        }
        Ok(())
    }

    fn handler(&mut self, handler: Handler, code: &Range<Rva>, by: &str) -> Result<(), PeError> {
        if self.windows.guard_flags() & guard_flags::CONTINUATIONS != 0 {
            let text = "handles exceptions, and both builds allow that only at places of a table \
                        (/guard:ehcont), which a patch is not known to bring: link both without it";
            self.refuse(Rule::Guard, by, text);
        }
        let Some((routine, at)) = self.routine(handler.routine) else {
            let text = format!(
                "handles exceptions by {}, which has no name",
                handler.routine
            );
            self.refuse(Rule::Personality, by, text);
            return Ok(());
        };
        let handled = match routine.as_str() {
            OF_C => self.windows.scope_table(handler.data)?,
            OF_CPP => self.windows.frame_tables(handler.data)?,
            OF_NEWER_CPP => {
                let start = code.start;
                self.windows.compressed_frame_tables(start, handler.data)?
            }
            _ => {
                let text = format!(
                    "handles exceptions by {routine}, of whose tables it is not known where they lead; \
                     take what handles them out of the function ({OF_C}, {OF_CPP} and {OF_NEWER_CPP} are \
                     known)"
                );
                self.refuse(Rule::Personality, by, text);
                return Ok(());
            }
        };
        // The base's own, or the slot that is filled with it.
        self.place(&From::word(at, at), by);
        self.handled(handled, code, by);
        Ok(())
    }

    /// What a routine is called, and what stands for it: itself, or the slot of the library that
    /// has it.
    fn routine(&self, at: Rva) -> Option<(String, LinkAddr)> {
        let image = self.c.fixed;
        let at = image.base.checked_add(at.0)?;
        if let Some((slot, Slot::Import(name, _))) = self.thunk(at) {
            let name = name.rsplit('!').next().unwrap_or(name);
            return Some((name.to_owned(), slot));
        }
        let entity = image.entity_at(at).map(|id| image.entity(id))?;
        (entity.addr == at).then(|| (entity.name().to_owned(), at))
    }

    /// Code and types that exceptions lead to; what is in the function itself is looked at anyway.
    fn handled(&mut self, handled: Handled, code: &Range<Rva>, by: &str) {
        for at in handled.code.into_iter().filter(|at| !code.contains(at)) {
            match self.c.fixed.base.checked_add(at.0) {
                Some(at) => self.place(&From::word(at, at), by),
                None => self.refuse(Rule::Unwind, by, format!("handles exceptions at {at}")),
            }
        }
        // Types are known by their names where there are two of one; only the functions of
        // `type_info` are reached through them.
        for at in handled.types {
            let Some(at) = self.c.fixed.base.checked_add(at.0) else {
                continue;
            };
            let end = self
                .c
                .fixed
                .entity_at(at)
                .map(|id| self.c.fixed.entity(id).end());
            let end = end.unwrap_or(LinkAddr(at.0.saturating_add(8)));
            self.pointers_in(at, end, by);
        }
    }

    /// Follows the description of a thrown object: its parts are relative to the image, so that no
    /// pointer tells of them. True if `entity` is one.
    pub(super) fn throws(&mut self, entity: &Entity, by: &str) -> bool {
        // `_TI` and how many types it can be caught as, with `C` and `V` for what is constant.
        let rest = entity.name().strip_prefix("_TI");
        let letters = rest.map(|rest| rest.trim_start_matches(['C', 'V', 'U']));
        if !letters.is_some_and(|rest| rest.starts_with(|letter: char| letter.is_ascii_digit())) {
            return false;
        }
        let Some(at) = self.c.fixed.rva(entity.addr) else {
            return false;
        };
        // A variable may be called so, too.
        let section = self.c.fixed.section_at(entity.addr);
        if section.is_none_or(|section| section.kind != SectionKind::ReadOnly) {
            return false;
        }
        if self.c.fixed.machine == Machine::X86 {
            return false;
        }
        match self.windows.thrown(at) {
            Ok(handled) => self.handled(handled, &(at..at), by),
            Err(error) => self.refuse(Rule::Unwind, by, error.to_string()),
        }
        true
    }
}

/// True for what a function without unwind data may not do: they are missed as soon as the stack
/// is another one than at its entry.
fn needs_unwind_data(line: &Line) -> bool {
    if line.word.is_some() {
        return arm64::needs_unwind_data(line);
    }
    let instruction = &line.instruction;
    let flow = instruction.flow_control();
    if matches!(flow, FlowControl::Call | FlowControl::IndirectCall) {
        return true;
    }
    if flow == FlowControl::Return || instruction.code() == Code::INVALID {
        return false;
    }
    let writes = instruction.op_count() > 0
        && instruction.op0_kind() == OpKind::Register
        && instruction.op0_register() == Register::RSP
        && !matches!(instruction.mnemonic(), Mnemonic::Cmp | Mnemonic::Test);
    writes || instruction.stack_pointer_increment() != 0
}
