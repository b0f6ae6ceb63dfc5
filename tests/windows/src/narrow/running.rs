//! Images that run in a process of 32 bits. What does not work ends the test that asks for it.

use std::path::Path;

use invivo_apply::{Loaded, Target};
use invivo_image::LiveAddr;
use invivo_image::pe::PeImage;

use super::Narrow;
use crate::by_hand::place_of;

/// A process of 32 bits with images in it, of which the first one is called.
#[derive(Debug)]
pub struct Running {
    /// The process.
    pub narrow: Narrow,
    /// Its images, in the order in which they were given.
    pub loaded: Vec<Loaded>,
}

impl Running {
    /// Starts one; its program is built below `folder`.
    #[must_use]
    pub fn new(folder: &Path, images: &[(PeImage, u64)]) -> Running {
        let helper = crate::helper(folder).expect("it is built");
        let (narrow, loaded) = Narrow::start(&helper, images).expect("it starts");
        Running { narrow, loaded }
    }

    /// Where an export of an image is.
    #[must_use]
    pub fn at(&self, image: usize, name: &str) -> LiveAddr {
        let of = &self.loaded[image];
        LiveAddr(of.at.0 + u64::from(place_of(&of.image, name)))
    }

    /// What a function of the first image answers.
    #[must_use]
    pub fn call(&self, name: &str, argument: u32) -> i32 {
        self.call_of(0, name, argument)
    }

    /// What a function of an image answers.
    #[must_use]
    pub fn call_of(&self, image: usize, name: &str, argument: u32) -> i32 {
        let answer = self.narrow.call(self.at(image, name), argument);
        answer.expect("it answers").cast_signed()
    }

    /// The loader's work: the slot of the import with this number of an image gets an address.
    pub fn bind(&mut self, image: usize, library: usize, to: LiveAddr) {
        let of = &self.loaded[image];
        let thunks = &of.image.imports[library].thunks;
        assert_eq!(thunks.len(), 1, "one function is imported");
        let slot = LiveAddr(of.at.0 + thunks[0].slot.0);
        let address = u32::try_from(to.0).expect("32 bits");
        let done = self.narrow.write(slot, &address.to_le_bytes());
        done.expect("it is in the image");
    }
}
