//! What code looks for in registers: at its entry, and behind a call.

use invivo_image::EntityId;

use iced_x86::{FlowControl, InstructionInfoFactory};

use super::body::{Body, Callee};
use super::registers::{ALL, PASSED, RETURNED, Registers, Touched, touched};
use super::side::{Bound, DEEPEST, Side};

/// Registers whose contents are used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Live {
    /// An instruction uses them.
    pub(super) read: Registers,
    /// They are left as they are for a function of which nothing is known, or for the caller.
    pub(super) passed: Registers,
}

impl Live {
    const NOTHING: Live = Live { read: 0, passed: 0 };

    fn with(self, other: Live) -> Live {
        Live {
            read: self.read | other.read,
            passed: self.passed | other.passed,
        }
    }

    fn without(self, registers: Registers) -> Live {
        Live {
            read: self.read & !registers,
            passed: self.passed & !registers,
        }
    }
}

impl Side<'_> {
    /// What `function` looks for when it is entered.
    pub(super) fn entry(&mut self, function: EntityId, bound: Bound) -> Live {
        self.entry_within(function, bound, DEEPEST)
    }

    fn entry_within(&mut self, function: EntityId, bound: Bound, depth: u32) -> Live {
        if let Some(found) = self.entries[bound as usize].get(&function) {
            return *found;
        }
        // One that calls itself, or that is too deep down, is called as the psABI says.
        let usual = Live {
            read: 0,
            passed: PASSED,
        };
        if depth == 0 {
            return usual;
        }
        self.entries[bound as usize].insert(function, usual);
        let start = self.image.entity(function).addr;
        let found = match self.body(function) {
            Some(body) => {
                let live = self.live(&body, bound, depth);
                let first = body.lines.binary_search_by_key(&start, |line| line.at());
                first.map_or(Live::NOTHING, |first| live[first])
            }
            None if bound == Bound::Upper => Live {
                read: ALL,
                passed: 0,
            },
            None => Live::NOTHING,
        };
        self.entries[bound as usize].insert(function, found);
        found
    }

    /// What is looked for before each instruction.
    pub(super) fn live(&mut self, body: &Body, bound: Bound, depth: u32) -> Vec<Live> {
        let mut info = InstructionInfoFactory::new();
        let touched: Vec<Touched> = (body.lines.iter())
            .map(|line| match line.is_padding() {
                true => Touched::default(),
                false => touched(&mut info, &line.instruction),
            })
            .collect();
        let called: Vec<Option<(Live, Registers)>> = (body.callees.iter())
            .map(|callee| callee.map(|callee| self.called(callee, bound, depth)))
            .collect();
        let mut live = vec![Live::NOTHING; body.lines.len()];
        loop {
            let mut settled = true;
            for at in (0..live.len()).rev() {
                let line = &body.lines[at];
                let mut now = behind(body, &live, at);
                if let Some((wanted, changed)) = called[at] {
                    // A jump may stay inside or leave.
                    let stays = if line.is_call() { changed } else { 0 };
                    now = now.without(stays).with(wanted);
                }
                if line.instruction.flow_control() == FlowControl::Return {
                    now.passed |= RETURNED;
                }
                now = now.without(touched[at].replaced);
                now.read |= touched[at].read;
                settled &= live[at] == now;
                live[at] = now;
            }
            if settled {
                return live;
            }
        }
    }

    /// What a callee looks for, and what is not there any more behind it.
    fn called(&mut self, callee: Callee, bound: Bound, depth: u32) -> (Live, Registers) {
        match callee {
            Callee::Known(id) => {
                let wanted = self.entry_within(id, bound, depth.saturating_sub(1));
                // What is left for others is the less, the more is changed.
                (wanted, self.clobbers(id, bound.other()))
            }
            Callee::Other => {
                let wanted = Live {
                    read: 0,
                    passed: PASSED,
                };
                (wanted, ALL)
            }
            Callee::Unknown if bound == Bound::Upper => {
                let wanted = Live {
                    read: ALL,
                    passed: 0,
                };
                (wanted, 0)
            }
            Callee::Unknown => (Live::NOTHING, ALL),
        }
    }

    /// Registers that hold something of use before each instruction: what was put there, or came
    /// with the call, and was not lost in a call since.
    pub(super) fn held(&mut self, body: &Body, start: usize) -> Vec<Registers> {
        let mut info = InstructionInfoFactory::new();
        let mut held: Vec<Option<Registers>> = vec![None; body.lines.len()];
        held[start] = Some(PASSED);
        let mut waiting = vec![start];
        while let Some(at) = waiting.pop() {
            let before = held[at].unwrap_or_default();
            let lost = match body.callees[at].filter(|_| body.lines[at].is_call()) {
                Some(Callee::Known(id)) => self.clobbers(id, Bound::Lower),
                Some(Callee::Other) => ALL,
                Some(Callee::Unknown) | None => 0,
            };
            let mut after =
                before & !lost | touched(&mut info, &body.lines[at].instruction).changed;
            if lost != 0 {
                after |= lost & RETURNED;
            }
            for next in &body.next[at] {
                let known = held[*next];
                let joined = known.unwrap_or_default() | after;
                if known != Some(joined) {
                    held[*next] = Some(joined);
                    waiting.push(*next);
                }
            }
        }
        held.into_iter().map(Option::unwrap_or_default).collect()
    }
}

/// What is looked for behind an instruction, inside the function.
pub(super) fn behind(body: &Body, live: &[Live], at: usize) -> Live {
    let next = body.next[at].iter().map(|next| live[*next]);
    next.fold(Live::NOTHING, Live::with)
}
