//! One change of an image, chosen at random.

use crate::numbers::Numbers;
use crate::subject::{Kind, Site, Subject};

/// A change that was made.
#[derive(Debug)]
pub(crate) struct Mutation {
    pub(crate) kind: Kind,
    pub(crate) site: Site,
    /// The whole file with the change.
    pub(crate) bytes: Vec<u8>,
}

impl Mutation {
    pub(crate) fn new(subject: &Subject, numbers: &mut Numbers) -> Mutation {
        let (kind, sites) = &subject.sites[numbers.below(subject.sites.len())];
        let site = sites[numbers.below(sites.len())];
        let mut bytes = subject.bytes.clone();
        let field = site.offset..site.offset + site.size;
        while bytes[field.clone()] == subject.bytes[field.clone()] {
            // A field of the same sort is a likelier mistake of a compiler than any number.
            let other = sites[numbers.below(sites.len())];
            match numbers.below(4) {
                0 if other.size == site.size => {
                    let value = subject.bytes[other.offset..other.offset + other.size].to_vec();
                    bytes[field.clone()].copy_from_slice(&value);
                }
                1 => bytes[site.offset + numbers.below(site.size)] = numbers.byte(),
                2 => {
                    let step = if numbers.below(2) == 0 { 1 } else { u8::MAX };
                    bytes[site.offset] = bytes[site.offset].wrapping_add(step);
                }
                _ => bytes[site.offset + numbers.below(site.size)] ^= 1 << numbers.below(8),
            }
        }
        Mutation {
            kind: *kind,
            site,
            bytes,
        }
    }
}
