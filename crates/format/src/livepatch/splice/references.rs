//! Everything in a hypervisor that leads to the beginning of a function.
//!
//! Every byte is looked at: each four that may be a distance and each eight that may be an address. What
//! is not proved to be a branch of a known function or a pointer of a known variable is
//! left as it is, with the reason: then the function needs the jump at its entry.

use std::ops::Range;

use iced_x86::{FlowControl, Instruction};

use super::super::Known;
use super::places::{Places, Thing};

/// More than any function of Xen has; each costs time in a file that somebody made up.
const MOST: usize = 4096;
/// The reach of a short branch, with its own bytes.
const SHORT: u64 = 130;

/// What leads to a function.
#[derive(Default)]
pub(super) struct References<'x> {
    /// Calls and jumps whose distance can be rewritten.
    pub(super) branches: Vec<Site<'x>>,
    /// Pointers in variables.
    pub(super) pointers: Vec<Site<'x>>,
    /// Branches that need not be rewritten: nothing runs them any more.
    pub(super) dead: usize,
    /// Branches that are left as they are, and why.
    pub(super) left: Vec<String>,
    /// Where else its address is.
    pub(super) taken: Vec<String>,
}

/// A place that leads to the function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Site<'x> {
    /// The instruction, or the pointer.
    pub(super) at: u64,
    /// Bytes of it; a branch ends with its distance.
    pub(super) size: u64,
    /// What it is in.
    pub(super) holder: Thing<'x>,
}

/// Finds what leads to `target`. Code in `replaced` is not run any more.
pub(super) fn find<'x>(
    places: &Places<'x>,
    target: Known,
    replaced: &[Range<u64>],
) -> References<'x> {
    let mut search = Search {
        places,
        target: target.address,
        own: target.address..target.address.saturating_add(target.size),
        replaced,
        found: References::default(),
    };
    let mut count = 0;
    for (range, bytes) in &places.xen.sections {
        for (at, word) in (range.start..).zip(bytes.windows(4)) {
            let word = word.try_into().map(u32::from_le_bytes).unwrap_or_default();
            let to = at.wrapping_add_signed(i64::from(word.cast_signed()));
            let is_distance = to.wrapping_add(4) == target.address;
            let is_own_distance = to == target.address;
            let is_pointer =
                word == target.address as u32 && places.long(at) == Some(target.address);
            if !(is_distance || is_own_distance || is_pointer) {
                continue;
            }
            // What the old function does is done by the new one.
            if search.own.contains(&at) {
                continue;
            }
            count += 1;
            if count > MOST {
                search
                    .found
                    .taken
                    .push(format!("more than {MOST} places lead to it"));
                return search.found;
            }
            if is_distance {
                search.distance(at);
            } else if is_own_distance {
                search.own_distance(at);
            } else {
                search.pointer(at);
            }
        }
    }
    search.short_branches();
    search.runs_on(target);
    search.found
}

struct Search<'s, 'x> {
    places: &'s Places<'x>,
    target: u64,
    own: Range<u64>,
    replaced: &'s [Range<u64>],
    found: References<'x>,
}

impl Search<'_, '_> {
    fn left(&mut self, at: u64, what: &str) {
        let place = self.places.shown(at);
        self.found.left.push(format!("{place} {what}"));
    }

    fn taken(&mut self, at: u64, what: &str) {
        let place = self.places.shown(at);
        self.found.taken.push(format!("{place} {what}"));
    }

    fn is_branch(&self, one: &Instruction) -> bool {
        one.near_branch_target() == self.target
    }

    /// Four bytes that lead there from behind them, as those of a branch do.
    fn distance(&mut self, at: u64) {
        let places = self.places;
        let is_code = places.text.contains(&at) || places.boot.contains(&at);
        if !is_code {
            // Not in the code of the boot either: what Xen puts into its code while it boots.
            return self.taken(at, "is a distance that leads there");
        }
        match places.instruction(at) {
            Some(one) if self.is_branch(&one) && one.next_ip() == at.wrapping_add(4) => {
                self.branch(&one);
            }
            Some(one) => self.taken(one.ip(), "takes its address"),
            None => self.taken(at, "cannot be read as code, and may lead there"),
        }
    }

    fn branch(&mut self, one: &Instruction) {
        let (at, places) = (one.ip(), self.places);
        let is_replaced = self.replaced.iter().any(|range| range.contains(&at));
        if is_replaced || places.boot.contains(&at) {
            self.found.dead += 1;
            return;
        }
        let size = one.len() as u64;
        if places.entries.contains(&at) {
            return self.left(at, "is an entry from outside, which may run at any time");
        }
        let Some(holder) = places.holder(at) else {
            return self.left(at, "is in code without a name");
        };
        let whole = Known { address: at, size };
        if runs_while_all_stand(holder.name) {
            self.left(at, "may run while all processors stand");
        } else if !places.xen.altered(whole).is_empty() {
            self.left(at, "is changed by Xen when it boots");
        } else {
            self.found.branches.push(Site { at, size, holder });
        }
    }

    /// Four bytes that lead there from where they are, as those of tables do.
    fn own_distance(&mut self, at: u64) {
        self.taken(at, "is a distance that leads there");
    }

    fn pointer(&mut self, at: u64) {
        let places = self.places;
        if places.text.contains(&at) || places.boot.contains(&at) {
            return self.taken(at, "takes its address");
        }
        if places.xen.is_for_boot(at) {
            return self.taken(at, "is a pointer that Xen copied when it booted");
        }
        match places.holder(at) {
            Some(holder) if places.is_variable(at) && at.is_multiple_of(8) => {
                let size = 8;
                self.found.pointers.push(Site { at, size, holder });
            }
            _ => self.taken(at, "is no pointer of a variable"),
        }
    }

    /// Branches whose distance is one byte cannot be led elsewhere.
    fn short_branches(&mut self) {
        let places = self.places;
        for at in self.target.saturating_sub(SHORT)..self.target.saturating_add(SHORT) {
            if self.own.contains(&at) || !places.text.contains(&at) {
                continue;
            }
            let distance = places.xen.bytes(at).and_then(|bytes| bytes.first());
            let leads_there = distance.is_some_and(|byte| {
                let behind = at.wrapping_add(1);
                behind.wrapping_add_signed(byte.cast_signed().into()) == self.target
            });
            if !leads_there {
                continue;
            }
            match places.instruction(at) {
                Some(one) if self.is_branch(&one) && one.next_ip() == at.wrapping_add(1) => {
                    if self.replaced.iter().any(|range| range.contains(&one.ip())) {
                        self.found.dead += 1;
                    } else {
                        self.left(one.ip(), "is a short jump, which reaches no payload");
                    }
                }
                Some(_) => {}
                None => self.taken(at, "cannot be read as code, and may lead there"),
            }
        }
    }

    /// What comes before a function may run on into it.
    fn runs_on(&mut self, target: Known) {
        let Some(last) = self.places.before(target) else {
            return;
        };
        let runs_on = matches!(
            last.flow_control(),
            FlowControl::Next | FlowControl::ConditionalBranch | FlowControl::XbeginXabortXend
        );
        if runs_on && !self.replaced.iter().any(|range| range.contains(&last.ip())) {
            self.left(last.ip(), "runs on into it");
        }
    }
}

/// True for functions that processors are in, or may come into by NMI or machine check, while one of
/// them writes. Xen takes NMIs then, and does nothing about them.
fn runs_while_all_stand(name: &str) -> bool {
    const FILES: [&str; 3] = [
        "common/livepatch.c#",
        "arch/x86/livepatch.c#",
        "arch/x86/cpu/mcheck/",
    ];
    const NAMES: [&str; 6] = [
        "check_for_livepatch_work",
        "do_nmi",
        "do_machine_check",
        "flush_area_local",
        "relax_virtual_region_perms",
        "tighten_virtual_region_perms",
    ];
    const BEGINNINGS: [&str; 3] = ["arch_livepatch_", "mce_", "mcheck_"];
    FILES
        .iter()
        .chain(&BEGINNINGS)
        .any(|part| name.starts_with(part))
        || NAMES.contains(&name)
}
