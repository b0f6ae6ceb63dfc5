//! The ways through a function, and whether one of them never leads out.

use iced_x86::FlowControl;
use invivo_image::x86_64::{Line, ReferenceKind, decode};
use invivo_image::{Entity, Flow, Image, LinkAddr};

use super::endings::{Ending, Endings};
use crate::Parts;

/// How many ways from jumps of which it is not known where they lead are kept apart.
const MOST_JUMPS: usize = 1 << 20;

/// Whether a function stays where it is.
pub(super) enum Stays {
    /// It returns, or has no loop: then it ends the program or unwinds.
    Never,
    OnOneWay,
    Always,
}

/// The instructions of a function with its cold parts, in order.
pub(super) struct Body<'a> {
    parts: Vec<&'a Entity>,
    pub(super) lines: Vec<Line>,
}

/// Where control goes behind an instruction.
struct Step {
    /// The numbers of the instructions that may be next.
    next: Vec<usize>,
    /// True if it may leave the function, to return or otherwise.
    leads_out: bool,
    /// True if it leaves the function for good, and its caller goes on.
    leaves: bool,
}

impl<'a> Body<'a> {
    /// None if it cannot be read.
    pub(super) fn of(image: &'a Image, parts: &Parts) -> Option<Self> {
        let parts: Vec<&Entity> = parts.ids().map(|id| image.entity(id)).collect();
        let mut lines = Vec::new();
        for part in &parts {
            lines.extend(decode(image, part)?);
        }
        lines.sort_by_key(Line::at);
        (!lines.is_empty()).then_some(Body { parts, lines })
    }

    pub(super) fn stays(&self, endings: &mut Endings<'_>) -> Stays {
        // To know what comes of a call takes longer than to see that nothing goes round.
        let back = |line: &Line| self.jumps(line).any(|to| to <= line.at());
        if !self.lines.iter().any(back) {
            return Stays::Never;
        }
        let steps: Vec<Step> = (0..self.lines.len())
            .map(|at| self.step(at, endings))
            .collect();
        if !steps.iter().any(|step| step.leaves) {
            let all = vec![false; steps.len()];
            return if goes_round(&steps, &all) {
                Stays::Always
            } else {
                Stays::Never
            };
        }
        if goes_round(&steps, &leads_out(&steps)) {
            Stays::OnOneWay
        } else {
            Stays::Never
        }
    }

    /// True if a call or jump that `leads` somewhere may come again after itself.
    pub(super) fn repeats(&self, leads: impl Fn(LinkAddr) -> bool) -> bool {
        let next = self.next();
        let sites = self.lines.iter().enumerate().filter(|(_, line)| {
            let mut references = line.references();
            references.any(|reference| leads(reference.target))
        });
        let mut sites = sites.map(|(at, _)| at);
        sites.any(|site| {
            let mut seen = vec![false; next.len()];
            let mut waiting = next[site].clone();
            while let Some(at) = waiting.pop() {
                if !std::mem::replace(&mut seen[at], true) {
                    waiting.extend(&next[at]);
                }
            }
            seen[site]
        })
    }

    /// Where a line jumps to inside the function.
    pub(super) fn jump_of(&self, at: usize) -> Option<usize> {
        self.jumps(self.lines.get(at)?)
            .find_map(|to| self.index(to))
    }

    /// Of each instruction, whether a way that takes only steps to what is `next` that it `may` take leads there
    /// from the entry.
    pub(super) fn reached(
        &self,
        next: &[Vec<usize>],
        may: impl Fn(usize, usize) -> bool,
    ) -> Vec<bool> {
        let mut seen = vec![false; next.len()];
        let entry = self.parts.first().and_then(|main| self.index(main.addr));
        let mut waiting: Vec<usize> = entry.into_iter().collect();
        while let Some(at) = waiting.pop() {
            if !std::mem::replace(&mut seen[at], true) {
                waiting.extend(next[at].iter().filter(|to| may(at, **to)));
            }
        }
        seen
    }

    /// Where control goes inside the function behind each instruction. What nothing else leads to may be
    /// what a table of jumps does.
    pub(super) fn next(&self) -> Vec<Vec<usize>> {
        let behind = |at: usize| {
            let line = &self.lines[at];
            let behind = self.lines.get(at + 1).filter(|_| !line.ends_flow());
            behind
                .filter(|next| next.at() == line.end())
                .map(|_| at + 1)
        };
        let jumps = |at: usize| self.jumps(&self.lines[at]).filter_map(|to| self.index(to));
        let all = 0..self.lines.len();
        let mut next: Vec<Vec<usize>> = all
            .map(|at| jumps(at).chain(behind(at)).collect())
            .collect();
        let mut alone = vec![true; next.len()];
        next.iter().flatten().for_each(|to| alone[*to] = false);
        let alone: Vec<usize> = (0..next.len()).filter(|at| alone[*at]).collect();
        let all = 0..self.lines.len();
        let jumps: Vec<usize> = all.filter(|at| jumps_anywhere(&self.lines[*at])).collect();
        if jumps.len().saturating_mul(alone.len()) <= MOST_JUMPS {
            jumps.iter().for_each(|at| next[*at].extend(&alone));
            return next;
        }
        // Nobody writes such code but to make readers slow: each jump leads to the first of them, and each of
        // them to the next one, so that all are reached.
        let first = alone.iter().take(1);
        jumps.iter().for_each(|at| next[*at].extend(first.clone()));
        for pair in alone.windows(2) {
            next[pair[0]].push(pair[1]);
        }
        next
    }

    fn step(&self, at: usize, endings: &mut Endings<'_>) -> Step {
        let line = &self.lines[at];
        let jumps_out = self.jumps_out(line);
        let ending = match line.is_call() || jumps_out {
            true => endings.ending(line),
            false => Ending::Returns,
        };
        let goes_on = !line.ends_flow() && (ending == Ending::Returns || !line.is_call());
        let behind = self.lines.get(at + 1).filter(|_| goes_on);
        let behind = behind.filter(|next| next.at() == line.end());
        let jumps = self.jumps(line).filter_map(|to| self.index(to));
        Step {
            next: jumps.chain(behind.map(|_| at + 1)).collect(),
            // A jump through a table, and whatever else tells no target, may lead out.
            leads_out: returns(line)
                || jumps_anywhere(line)
                || ending == Ending::Elsewhere
                || jumps_out && ending == Ending::Returns,
            leaves: returns(line) || jumps_out && ending != Ending::Never,
        }
    }

    fn index(&self, at: LinkAddr) -> Option<usize> {
        self.lines.binary_search_by_key(&at, Line::at).ok()
    }

    fn is_inside(&self, at: LinkAddr) -> bool {
        let mut parts = self.parts.iter();
        parts.any(|part| (part.addr..part.end()).contains(&at))
    }

    /// Where a line jumps to inside the function.
    fn jumps<'l>(&self, line: &'l Line) -> impl Iterator<Item = LinkAddr> + use<'_, 'a, 'l> {
        let jumps = line.references().filter(|r| r.kind == ReferenceKind::Jump);
        jumps.map(|r| r.target).filter(|to| self.is_inside(*to))
    }

    /// True for a jump to another function.
    pub(super) fn jumps_out(&self, line: &Line) -> bool {
        let mut references = line.references();
        references.any(|r| r.kind == ReferenceKind::Jump && !self.is_inside(r.target))
    }

    /// True if an instruction returns, or goes nobody knows where.
    pub(super) fn may_return(&self, line: &Line) -> bool {
        returns(line) || jumps_anywhere(line)
    }
}

fn returns(line: &Line) -> bool {
    match line.word {
        Some(word) => word.flow == Flow::Return,
        None => line.instruction.flow_control() == FlowControl::Return,
    }
}

fn jumps_anywhere(line: &Line) -> bool {
    match line.word {
        Some(word) => word.flow == Flow::IndirectJump,
        None => line.instruction.flow_control() == FlowControl::IndirectBranch,
    }
}

/// Of each instruction, whether a way leads from it to one that leads out.
fn leads_out(steps: &[Step]) -> Vec<bool> {
    let mut sources = vec![Vec::new(); steps.len()];
    for (at, step) in steps.iter().enumerate() {
        for next in &step.next {
            sources[*next].push(at);
        }
    }
    let mut leads: Vec<bool> = steps.iter().map(|step| step.leads_out).collect();
    let mut waiting: Vec<usize> = (0..steps.len()).filter(|at| leads[*at]).collect();
    while let Some(at) = waiting.pop() {
        for source in &sources[at] {
            if !std::mem::replace(&mut leads[*source], true) {
                waiting.push(*source);
            }
        }
    }
    leads
}

/// True if a way that keeps to instructions that are not `left_out` comes back to where it was. What only
/// jumps back, to a call of `abort` that others share, does not.
fn goes_round(steps: &[Step], left_out: &[bool]) -> bool {
    let chosen = |at: &usize| !left_out[*at];
    let mut entered = vec![0_usize; steps.len()];
    for at in (0..steps.len()).filter(chosen) {
        for next in steps[at].next.iter().filter(|next| chosen(next)) {
            entered[*next] += 1;
        }
    }
    let mut rest = (0..steps.len()).filter(chosen).count();
    let mut waiting: Vec<usize> = (0..steps.len())
        .filter(|at| chosen(at) && entered[*at] == 0)
        .collect();
    while let Some(at) = waiting.pop() {
        rest -= 1;
        for next in steps[at].next.iter().filter(|next| chosen(next)) {
            entered[*next] -= 1;
            if entered[*next] == 0 {
                waiting.push(*next);
            }
        }
    }
    rest > 0
}
