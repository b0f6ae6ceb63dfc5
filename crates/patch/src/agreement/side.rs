//! What is known of the functions of one image, found out when it is first asked for.

use std::collections::HashMap;
use std::rc::Rc;

use invivo_compare::{Parts, Usage};
use invivo_image::{EntityId, Image};

use super::body::Body;
use super::live::Live;
use super::registers::Registers;

/// Calls are followed this deep.
pub(super) const DEEPEST: u32 = 12;

/// What to assume where it is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bound {
    /// At least so much.
    Lower,
    /// At most so much.
    Upper,
}

impl Bound {
    pub(super) fn other(self) -> Bound {
        match self {
            Bound::Lower => Bound::Upper,
            Bound::Upper => Bound::Lower,
        }
    }
}

/// The functions of an image.
pub(super) struct Side<'c> {
    pub(super) image: &'c Image,
    pub(super) usage: &'c Usage,
    whole: &'c dyn Fn(EntityId) -> Parts,
    /// Cold parts, and the functions that they are part of.
    mains: HashMap<EntityId, EntityId>,
    bodies: HashMap<EntityId, Option<Rc<Body>>>,
    /// What each changes, by the bound.
    pub(super) clobbers: [HashMap<EntityId, Registers>; 2],
    /// What each looks for in registers when it is entered, by the bound.
    pub(super) entries: [HashMap<EntityId, Live>; 2],
    /// True for those that want the stack to be aligned, by the bound.
    pub(super) aligned: [HashMap<EntityId, bool>; 2],
}

impl<'c> Side<'c> {
    pub(super) fn new(
        image: &'c Image,
        usage: &'c Usage,
        whole: &'c dyn Fn(EntityId) -> Parts,
    ) -> Side<'c> {
        let parts = Parts::all(image).into_iter();
        let mains =
            parts.flat_map(|parts| parts.cold.into_iter().map(move |cold| (cold, parts.main)));
        Side {
            image,
            usage,
            whole,
            mains: mains.collect(),
            bodies: HashMap::new(),
            clobbers: Default::default(),
            entries: Default::default(),
            aligned: Default::default(),
        }
    }

    pub(super) fn parts(&self, function: EntityId) -> Parts {
        (self.whole)(function)
    }

    pub(super) fn body(&mut self, function: EntityId) -> Option<Rc<Body>> {
        if let Some(known) = self.bodies.get(&function) {
            return known.clone();
        }
        let body = Body::of(self.image, self.usage, &self.parts(function)).map(Rc::new);
        self.bodies.insert(function, body.clone());
        body
    }

    /// The function that a part belongs to.
    pub(super) fn main_of(&self, part: EntityId) -> EntityId {
        self.mains.get(&part).copied().unwrap_or(part)
    }

    /// The functions that call or jump to `function`.
    pub(super) fn callers(&self, function: EntityId) -> Vec<EntityId> {
        let uses = self.usage.uses.get(&function).into_iter().flatten();
        let calls = uses.filter(|user| user.branch);
        let mut by: Vec<EntityId> = calls.map(|user| self.main_of(user.by)).collect();
        by.sort_unstable();
        by.dedup();
        by
    }
}
