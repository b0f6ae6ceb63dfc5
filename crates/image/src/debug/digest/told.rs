//! What the numbers are made of: for each type all that [`DebugData::layout`] looks at.
//!
//! [`DebugData::layout`]: super::super::DebugData::layout

use gimli::{UnitOffset, constants as dw};

use super::{DEEPEST, Described, Found, Node, Reading, Target};
use super::{is_composite, is_scope};

impl Reading<'_> {
    /// Finds out where each entry ends and what it is in.
    pub(super) fn close(&mut self) {
        for index in (0..self.nodes.len()).rev() {
            let Node { parent, end, .. } = self.nodes[index];
            if let Some(parent) = parent {
                let parent = &mut self.nodes[parent as usize];
                parent.end = parent.end.max(end);
            }
        }
        self.shapes = vec![Found::Unknown; self.nodes.len()];
        for index in 0..self.nodes.len() {
            let tag = self.nodes[index].tag;
            let named = is_scope(tag) || tag == dw::DW_TAG_typedef;
            let scope = named.then(|| self.scope(index)).flatten();
            self.scopes.push(scope);
        }
    }

    /// The names of an entry and all that it is in; `None` where that is not known.
    fn scope(&self, index: usize) -> Option<u128> {
        let node = &self.nodes[index];
        let mut outer = node.parent;
        while let Some(parent) = outer.filter(|outer| !is_scope(self.nodes[*outer as usize].tag)) {
            outer = self.nodes[parent as usize].parent;
        }
        let outer = match outer {
            Some(outer) => *self.scopes.get(outer as usize)?,
            None => Some(self.digests.of(0)),
        };
        Some(match self.name(index)? {
            Some(name) => self.digests.of((outer?, name)),
            None => outer?,
        })
    }

    /// The name of an entry, its own or that of what it describes further; `None` if that is
    /// not here.
    fn name(&self, index: usize) -> Option<Option<u128>> {
        const LONGEST: usize = 8;
        let mut at = index;
        for _ in 0..LONGEST {
            let node = &self.nodes[at];
            if node.name.is_some() {
                return Some(node.name);
            }
            match node.origin {
                Target::Nothing => return Some(None),
                Target::Here(offset) => at = self.find(offset)?,
                Target::Elsewhere => return None,
            }
        }
        None
    }

    fn find(&self, offset: usize) -> Option<usize> {
        let found = self.nodes.binary_search_by_key(&offset, |node| node.offset);
        found.ok()
    }

    pub(super) fn types(&mut self) -> Vec<Described> {
        let mut found = Vec::new();
        for index in 0..self.nodes.len() {
            let node = &self.nodes[index];
            let (tag, offset) = (node.tag, UnitOffset(node.offset));
            if !node.wanted {
                continue;
            }
            let laid_out = if is_composite(tag) && !node.declares {
                Some(index)
            } else if tag == dw::DW_TAG_typedef {
                match self.unnamed_behind(index) {
                    Ok(Some(of)) => Some(of),
                    Ok(None) => continue,
                    // What is in another unit is laid out.
                    Err(()) => None,
                }
            } else {
                continue;
            };
            // Many names may be given to one structure, which is looked at once.
            let layout = laid_out.and_then(|of| match self.nodes[of].origin {
                Target::Nothing if of != index => self.shape(of, 0),
                _ => self.layout(of, 0),
            });
            let digest = self.scopes[index].zip(layout);
            let digest = digest.map(|both| self.digests.of(both));
            found.push(Described { offset, digest });
        }
        found
    }

    /// The unnamed structure that is known by the name that a typedef gives to it, or to its
    /// pointers; an error where it is not here.
    fn unnamed_behind(&self, typedef: usize) -> Result<Option<usize>, ()> {
        const LONGEST: usize = 4;
        let mut at = typedef;
        for _ in 0..=LONGEST {
            let of = match self.nodes[at].of {
                Target::Nothing => return Ok(None),
                Target::Elsewhere => return Err(()),
                Target::Here(of) => match self.find(of) {
                    Some(of) => of,
                    None => return Ok(None),
                },
            };
            match self.nodes[of].tag {
                tag if is_composite(tag) => {
                    return Ok(Some(of).filter(|of| self.nodes[*of].name.is_none()));
                }
                dw::DW_TAG_pointer_type | dw::DW_TAG_const_type | dw::DW_TAG_volatile_type => {
                    at = of;
                }
                _ => return Ok(None),
            }
        }
        Ok(None)
    }

    fn layout(&mut self, index: usize, depth: usize) -> Option<u128> {
        let own = self.nodes[index].own;
        let members = self.members(index, depth)?;
        Some(self.digests.of((9, own, members)))
    }

    fn members(&mut self, index: usize, depth: usize) -> Option<u128> {
        if depth > DEEPEST {
            return None;
        }
        let mut all = self.digests.of(0);
        let end = self.nodes[index].end as usize;
        let mut at = index + 1;
        while at < end {
            let child = &self.nodes[at];
            let (own, name) = (child.own, child.name);
            let part = match child.tag {
                dw::DW_TAG_member | dw::DW_TAG_inheritance if child.apart => None,
                dw::DW_TAG_member | dw::DW_TAG_inheritance => {
                    let of = child.of;
                    let shape = self.shape_of(of, depth + 1)?;
                    Some(self.digests.of((1, own, name, shape)))
                }
                dw::DW_TAG_enumerator => Some(self.digests.of((2, own, name))),
                dw::DW_TAG_variant_part | dw::DW_TAG_variant => {
                    let members = self.members(at, depth + 1)?;
                    Some(self.digests.of((3, own, members)))
                }
                _ => None,
            };
            if let Some(part) = part {
                all = self.digests.of((all, part));
            }
            at = (self.nodes[at].end as usize).max(at + 1);
        }
        Some(all)
    }

    fn shape_of(&mut self, of: Target, depth: usize) -> Option<u128> {
        match of {
            Target::Nothing => Some(self.digests.of("void")),
            Target::Elsewhere => None,
            Target::Here(offset) => {
                let index = self.find(offset)?;
                self.shape(index, depth)
            }
        }
    }

    /// A type as a part of another one.
    fn shape(&mut self, index: usize, depth: usize) -> Option<u128> {
        match self.shapes[index] {
            Found::Known(known) => return known,
            Found::Open => return None,
            Found::Unknown if depth > DEEPEST => return None,
            Found::Unknown => {}
        }
        self.shapes[index] = Found::Open;
        let found = self.shape_now(index, depth);
        self.shapes[index] = Found::Known(found);
        found
    }

    fn shape_now(&mut self, index: usize, depth: usize) -> Option<u128> {
        let node = &self.nodes[index];
        let (own, name, of, end) = (node.own, node.name, node.of, node.end as usize);
        match node.tag {
            tag if is_composite(tag) => match self.name(index)? {
                // Its layout is compared under its own name.
                Some(_) => Some(self.digests.of((5, own, self.scopes[index]?))),
                None => self.layout(index, depth + 1),
            },
            dw::DW_TAG_base_type => Some(self.digests.of((4, own, name))),
            dw::DW_TAG_array_type | dw::DW_TAG_subroutine_type => {
                let mut all = self.digests.of((own, name, self.shape_of(of, depth + 1)?));
                let mut at = index + 1;
                while at < end {
                    let child = &self.nodes[at];
                    let part = match child.tag {
                        dw::DW_TAG_subrange_type => child.own,
                        dw::DW_TAG_unspecified_parameters => child.own,
                        dw::DW_TAG_formal_parameter => {
                            if child.of == Target::Nothing && child.origin != Target::Nothing {
                                return None;
                            }
                            let of = child.of;
                            self.shape_of(of, depth + 1)?
                        }
                        _ => 0,
                    };
                    all = self.digests.of((6, all, part));
                    at = (self.nodes[at].end as usize).max(at + 1);
                }
                Some(all)
            }
            _ => {
                let inner = self.shape_of(of, depth + 1)?;
                Some(self.digests.of((7, own, name, inner)))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::sync::Arc;

    use super::super::super::{DebugSections, Die};
    use super::super::Digests;
    use super::dw;
    use crate::Image;

    /// This very test program has thousands of types of Rust, most of them in several units.
    #[test]
    fn one_digest_stands_for_one_name_and_layout() {
        let own = std::env::current_exe().expect("a running program has a file");
        let file = std::fs::read(own).expect("it can be read");
        let image = Image::parse(Arc::from(file), None).expect("an image");
        let sections = DebugSections::of(&image).expect("whole sections");
        let sections = sections.expect("tests are built with debug data");
        let debug = sections.open().expect("whole units");
        let digests = Digests::default();
        let (mut known, mut again, mut all) = (HashMap::new(), 0, 0);
        for unit in 0..debug.units.len().min(300) {
            for described in debug.described(unit, None, &digests).types {
                let offset = described.offset;
                let die = Die { unit, offset };
                let entry = debug.entry(die).expect("it is there");
                // Some toolchains put parts written in C into every program, with aliases.
                if entry.tag() == dw::DW_TAG_typedef {
                    continue;
                }
                all += 1;
                let Some(digest) = described.digest else {
                    continue;
                };
                let name = debug.qualified_name(die).expect("it has a name");
                let found = (name, debug.layout(die, &entry, 0));
                match known.get(&digest) {
                    Some(first) => {
                        assert_eq!(first, &found);
                        again += 1;
                    }
                    None => {
                        known.insert(digest, found);
                    }
                }
            }
        }
        assert!(again > 100, "{again} of {all} types were known");
        let told = known.len() + again;
        // What refers to another unit is laid out, since that unit is not looked at.
        assert!(told * 2 > all, "only {told} of {all} are told");
    }
}
