//! Thread-local storage.

use std::ops::Range;

use super::error::outside;
use super::headers::directory;
use super::{PeError, PeImage};
use crate::Rva;

/// `IMAGE_TLS_DIRECTORY`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsDirectory {
    /// What each thread's own variables begin with.
    pub template: Range<Rva>,
    /// Zeros behind it, in bytes.
    pub zeros: u32,
    /// Where the loader writes the number of this image's block.
    pub index: Rva,
    /// Functions that are called when threads start and end.
    pub callbacks: Vec<Rva>,
}

/// Images have a few; a list without an end is broken.
const MOST: u64 = 4096;

pub(super) fn read(image: &PeImage) -> Result<Option<TlsDirectory>, PeError> {
    let Some(found) = image.directory(directory::TLS) else {
        return Ok(None);
    };
    let width = u64::from(image.machine.pointer_size());
    let directory_outside = || outside("the TLS directory", found.at);
    let place = |index: u64| found.at.checked_add(index * width);
    let pointer = |index: u64| place(index).and_then(|at| image.pointer(at));
    let [Some(start), Some(end), Some(index), Some(list)] = [0, 1, 2, 3].map(pointer) else {
        return Err(directory_outside());
    };
    let zeros = place(4)
        .and_then(|at| image.word(at))
        .ok_or_else(directory_outside)?;
    let rva = |address: u64| {
        let wrong = || PeError::Inconsistent(format!("{address:#x} in the TLS directory"));
        image.rva_of(address).ok_or_else(wrong)
    };
    let template = if start == end {
        Rva(0)..Rva(0)
    } else {
        let (first, last) = (rva(start)?, rva(end.wrapping_sub(1))?);
        if last < first {
            return Err(directory_outside());
        }
        first..Rva(last.0 + 1)
    };
    let mut callbacks = Vec::new();
    if list != 0 {
        let list = rva(list)?;
        for number in 0.. {
            let at = list.checked_add(number * width);
            let at = at.filter(|_| number < MOST);
            let callback = at.and_then(|at| image.pointer(at));
            match callback.ok_or_else(|| outside("the list of TLS callbacks", list))? {
                0 => break,
                address => callbacks.push(rva(address)?),
            }
        }
    }
    Ok(Some(TlsDirectory {
        template,
        zeros,
        index: rva(index)?,
        callbacks,
    }))
}
