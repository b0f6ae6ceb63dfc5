//! Functions that never return to who called them, and what becomes of the caller then.

use std::collections::HashMap;

use invivo_image::x86_64::{Line, ReferenceKind};
use invivo_image::{EntityId, EntityKind, Image, Place};

use super::body::Body;
use crate::hot::ColdParts;
use crate::rules::named::refers_to;

/// Functions of others that end a process or a thread.
const END: &[&str] = &[
    "exit",
    "_exit",
    "_Exit",
    "quick_exit",
    "pthread_exit",
    "abort",
    "err",
    "errx",
    "verr",
    "verrx",
    "__assert_fail",
    "__assert_perror_fail",
    "__stack_chk_fail",
    "__chk_fail",
    "__fortify_fail",
    "_ZSt9terminatev",
];
/// Functions of others that lead to another frame.
const LEAD_AWAY: &[&str] = &[
    "longjmp",
    "_longjmp",
    "siglongjmp",
    "__longjmp_chk",
    "__cxa_throw",
    "__cxa_rethrow",
    "_Unwind_Resume",
    "_Unwind_RaiseException",
    "_Unwind_ForcedUnwind",
];
/// How many calls deep it is followed.
const DEEPEST: u32 = 5;

/// What comes of a call.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    /// It returns, or nobody knows better.
    Returns,
    /// It goes on in another frame, which may be that of who called the caller.
    Elsewhere,
    /// The thread or the process ends there, or stays there for good.
    Never,
}

/// What comes of calls, as far as it was asked.
pub(super) struct Endings<'a> {
    image: &'a Image,
    cold: &'a ColdParts,
    known: HashMap<EntityId, Ending>,
}

impl<'a> Endings<'a> {
    pub(super) fn of(image: &'a Image, cold: &'a ColdParts) -> Self {
        Endings {
            image,
            cold,
            known: HashMap::new(),
        }
    }

    /// What comes of a call, or of a jump to another function.
    pub(super) fn ending(&mut self, line: &Line) -> Ending {
        self.ending_within(line, DEEPEST)
    }

    fn ending_within(&mut self, line: &Line, depth: u32) -> Ending {
        if refers_to(self.image, line, END) {
            return Ending::Never;
        }
        if refers_to(self.image, line, LEAD_AWAY) {
            return Ending::Elsewhere;
        }
        let leads = |kind| matches!(kind, ReferenceKind::Call | ReferenceKind::Jump);
        let mut references = line.references().filter(|r| leads(r.kind));
        let callee = references.find_map(|r| match self.image.place(r.target) {
            Place::In(id, 0) if self.image.entity(id).kind == EntityKind::Function => Some(id),
            _ => None,
        });
        match callee {
            Some(id) if depth > 0 => self.of_function(id, depth - 1),
            _ => Ending::Returns,
        }
    }

    fn of_function(&mut self, id: EntityId, depth: u32) -> Ending {
        if let Some(known) = self.known.get(&id) {
            return *known;
        }
        // One that calls itself at its end is taken to return.
        self.known.insert(id, Ending::Returns);
        let body = Body::of(self.image, &self.cold.parts(id));
        let ending = body.map_or(Ending::Returns, |body| self.of_body(&body, depth));
        self.known.insert(id, ending);
        ending
    }

    fn of_body(&mut self, body: &Body<'_>, depth: u32) -> Ending {
        let mut ending = Ending::Never;
        if body.lines.iter().any(|line| body.may_return(line)) {
            return Ending::Returns;
        }
        for line in &body.lines {
            let is_jump = body.jumps_out(line);
            if !is_jump && !line.is_call() {
                continue;
            }
            match self.ending_within(line, depth) {
                Ending::Returns if is_jump => return Ending::Returns,
                Ending::Elsewhere => ending = Ending::Elsewhere,
                Ending::Returns | Ending::Never => {}
            }
        }
        ending
    }
}
