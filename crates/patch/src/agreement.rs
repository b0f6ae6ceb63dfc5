//! May old code call the new function?
//!
//! A frame that is still inside an old version calls the functions that it knows. Compilers
//! that see all callers of a function need not call it as the psABI says, and may agree on
//! something else with the next build. What is in no prototype:
//!
//! - which parameter is in which register, and whether it is passed at all;
//! - which registers the function leaves alone (gcc's -fipa-ra keeps values there);
//! - whether the stack is aligned when it is called (gcc does without for some leaves);
//! - whether it returns, and whether its result is more than what happens to be there;
//! - which variables it leaves alone;
//! - who of both frees, unlocks or gives back what was taken.
//!
//! An unchanged caller is right for both versions, but says nothing of those that changed.
//! So all of it is asked of the code of both versions and of the old callers. Where the
//! agreement is not shown to hold, a function that only replaced functions call gets no hook;
//! one that others enter, too, gets one only while no thread is inside an old caller.

mod body;
mod clobbers;
mod duties;
mod homes;
mod live;
mod memory;
mod registers;
mod side;
mod stack;

use std::collections::{BTreeSet, HashSet};

use invivo_compare::{Comparison, Hot, Parts};
use invivo_image::{EntityId, clone_sorts};

use homes::{are_homes_kept, owned, told_alike};
use live::{Live, behind};
use registers::{ALL, RETURNED};
use side::{Bound, DEEPEST, Side};

/// Callers whose use of a result is looked at, at most.
const MOST_CALLERS: usize = 64;

/// The agreements between the functions of both images.
pub(crate) struct Agreements<'c, 'a> {
    c: &'c Comparison<'a>,
    /// Functions of the base that are replaced, with their parts.
    hot: HashSet<EntityId>,
    /// Those from which calls lead there.
    above: HashSet<EntityId>,
    base: Side<'c>,
    fixed: Side<'c>,
}

/// How the parts of functions of both images are told.
pub(crate) type Whole<'c> = (&'c dyn Fn(EntityId) -> Parts, &'c dyn Fn(EntityId) -> Parts);

impl<'c, 'a> Agreements<'c, 'a> {
    pub(crate) fn new(c: &'c Comparison<'a>, whole: Whole<'c>) -> Self {
        let hot: HashSet<EntityId> = c.hot.iter().flat_map(|hot| hot.base.ids()).collect();
        let base = Side::new(c.base, &c.base_usage, whole.0);
        let mut above = HashSet::new();
        let mut waiting: Vec<EntityId> = hot.iter().copied().collect();
        while let Some(called) = waiting.pop() {
            let callers = base.callers(called).into_iter();
            waiting.extend(callers.filter(|caller| above.insert(*caller)));
        }
        Agreements {
            c,
            hot,
            above,
            base,
            fixed: Side::new(c.fixed, &c.fixed_usage, whole.1),
        }
    }

    /// True if a frame inside an old version may call the function.
    pub(crate) fn has_old_callers(&self, hot: &Hot) -> bool {
        !self.old_callers(hot).is_empty()
    }

    fn old_callers(&self, hot: &Hot) -> Vec<EntityId> {
        let mut callers = self.base.callers(hot.base.main);
        callers.retain(|by| self.hot.contains(by));
        callers
    }

    /// True if code and debug data show that whoever calls the old function may call the new
    /// one in the same way.
    pub(crate) fn is_kept(&mut self, hot: &Hot) -> bool {
        self.is_told(hot) && self.is_met(hot)
    }

    /// True if the debug data tell of the same agreement.
    fn is_told(&mut self, hot: &Hot) -> bool {
        let (old, new) = (
            self.c.base.entity(hot.base.main),
            self.c.fixed.entity(hot.fixed.main),
        );
        // Compilers change how a clone is called as they like.
        if [old, new].map(|f| clone_sorts(f.name())) != [BTreeSet::new(), BTreeSet::new()] {
            return false;
        }
        if !hot.is_typed() || hot.prototypes().is_some() {
            return false;
        }
        let (Some(before), Some(after)) = (&hot.base_source, &hot.fixed_source) else {
            return false;
        };
        if before.unusual || after.unusual {
            return false;
        }
        let live = self.fixed.entry(hot.fixed.main, Bound::Upper);
        are_homes_kept(before, after, live)
    }

    /// True if the code of the new function asks no more of those old frames that may call it
    /// than the old one's did, and gives them all that they rely on.
    pub(crate) fn is_met(&mut self, hot: &Hot) -> bool {
        let (old, new) = (hot.base.main, hot.fixed.main);
        let before = self.base.entry(old, Bound::Lower);
        let after = self.fixed.entry(new, Bound::Upper);
        let sources = hot.base_source.as_ref().zip(hot.fixed_source.as_ref());
        // A parameter that nothing used may be passed all the same.
        let told = sources.map_or(0, |(before, after)| told_alike(before, after));
        let owned = sources.map_or(0, |(_, after)| owned(after));
        after.read & !(before.read | before.passed & !owned | told) == 0
            && self.returns_no_more(old, new)
            && self.wants_no_more_alignment(old, new)
            && self.writes_no_more(hot)
            && !self.moves_duties(hot)
            && self.old_callers(hot).into_iter().all(|caller| {
                !self.is_spoiled(caller, Some(old)) && self.finds_result(caller, (old, new))
            })
    }

    fn returns_no_more(&mut self, old: EntityId, new: EntityId) -> bool {
        let before = self.base.body(old).is_some_and(|body| body.returns());
        before || self.fixed.body(new).is_some_and(|body| !body.returns())
    }

    fn wants_no_more_alignment(&mut self, old: EntityId, new: EntityId) -> bool {
        !self.fixed.wants_alignment(new, Bound::Upper)
            || self.base.wants_alignment(old, Bound::Lower)
            || self.base.is_called_aligned(old)
    }

    /// True if no old caller takes a variable for unchanged that the new function writes to.
    fn writes_no_more(&mut self, hot: &Hot) -> bool {
        let before = self.base.written(hot.base.main);
        let after = self.fixed.written(hot.fixed.main);
        let callers = self.old_callers(hot);
        after.into_iter().all(|variable| {
            let old = self.c.pairs.base_of(variable);
            if old.is_some_and(|old| before.contains(&old)) {
                return true;
            }
            !callers.iter().any(|caller| {
                let new = self.c.pairs.fixed_of(*caller);
                old.is_some_and(|old| self.base.uses(*caller, old))
                    || new.is_some_and(|new| self.fixed.uses(new, variable))
            })
        })
    }

    /// True if a frame inside the old version of a function keeps something across a call in a
    /// register that is changed there now. Asked of calls of `callee`, or of those of functions
    /// that stay and from which calls lead to new code.
    pub(crate) fn is_spoiled(&mut self, caller: EntityId, callee: Option<EntityId>) -> bool {
        let Some(body) = self.base.body(caller) else {
            return true;
        };
        let live = self.base.live(&body, Bound::Upper, DEEPEST);
        let start = self.c.base.entity(caller).addr;
        let start = body.lines.partition_point(|line| line.at() < start);
        let is_open = body.is_open();
        let mut held = None;
        (0..body.lines.len()).any(|at| {
            let Some(body::Callee::Known(called)) = body.callees[at] else {
                return false;
            };
            let through = || self.above.contains(&called) && !self.hot.contains(&called);
            let asked = callee.map_or_else(through, |callee| callee == called);
            if !asked || !body.lines[at].is_call() {
                return false;
            }
            let wanted = behind(&body, &live, at);
            let lost = self.base.clobbers(called, Bound::Lower);
            let mut kept = wanted.read & !lost;
            if is_open {
                kept = !lost;
            } else if wanted.passed & !lost != 0 {
                let held = held.get_or_insert_with(|| self.base.held(&body, start))[at];
                kept |= wanted.passed & held & !lost;
            }
            if kept == 0 {
                return false;
            }
            let changed = self.c.pairs.fixed_of(called);
            let changed = changed.map(|new| self.fixed.clobbers(new, Bound::Upper));
            kept & changed.unwrap_or(ALL) != 0
        })
    }

    /// True if what the old caller takes for the result is one in the new function, too.
    fn finds_result(&mut self, caller: EntityId, (old, new): (EntityId, EntityId)) -> bool {
        let given = self.base.clobbers(old, Bound::Lower) & RETURNED;
        let taken = self.base.taken(caller, old).read & given;
        let mut missing = taken;
        for caller in self.fixed.callers(new).into_iter().take(MOST_CALLERS) {
            if missing == 0 {
                break;
            }
            let now = self.fixed.taken(caller, new);
            missing &= !(now.read | now.passed);
        }
        missing == 0
    }
}

impl Side<'_> {
    /// What a caller looks for behind its calls of a function.
    fn taken(&mut self, caller: EntityId, callee: EntityId) -> Live {
        let Some(body) = self.body(caller) else {
            return Live {
                read: RETURNED,
                passed: 0,
            };
        };
        let live = self.live(&body, Bound::Upper, DEEPEST);
        let mut found = Live::default();
        for at in body.sites(callee) {
            let here = behind(&body, &live, at);
            found.read |= here.read;
            found.passed |= here.passed;
            if !body.lines[at].is_call() {
                found.passed |= RETURNED;
            }
        }
        found
    }
}
