//! Images as they are in memory, whatever became of their files.

use std::ops::Range;
use std::sync::Arc;

use invivo_image::LiveAddr;
use invivo_image::pe::PeImage;

use super::Loaded;
use crate::hpat::{Host, HostImage};
use crate::{ApplyError, Stopped, Target, TargetError};

/// Bytes that the headers of an image take at most, as far as they are of interest.
const HEADERS: usize = 0x1000;

/// Where the signature's place stands.
const SIGNATURE: usize = 0x3c;

impl Loaded {
    /// The image that begins at `at`, by its headers in memory: they tell its machine, its size and
    /// its identity. What is in its sections only its file tells. `None` where no image is.
    ///
    /// # Errors
    /// When nothing can be read there.
    pub(crate) fn look(target: &dyn Target, at: LiveAddr) -> Result<Option<Loaded>, TargetError> {
        let mut headers = vec![0; HEADERS];
        target.read(at, &mut headers)?;
        let image = alone(headers).and_then(|headers| PeImage::parse(Arc::from(headers)).ok());
        let image = image.filter(|image| at.checked_add(image.size.into()).is_some());
        Ok(image.map(|image| Loaded {
            image: Arc::new(image),
            at,
            reserve: 0,
            table: None,
        }))
    }

    /// The same where only an image counts.
    pub(crate) fn seen(target: &dyn Target, at: LiveAddr) -> Option<Loaded> {
        Loaded::look(target, at).ok().flatten()
    }

    /// The same if it has the time stamp and the checksum that are known of it.
    pub(crate) fn seen_as(target: &dyn Target, at: u64, known: (u32, u32)) -> Option<Loaded> {
        let seen = Loaded::seen(target, LiveAddr(at))?;
        ((seen.image.time_stamp, seen.image.checksum) == known).then_some(seen)
    }
}

/// Headers that say nothing of sections and directories, so that nothing is looked for behind them.
fn alone(mut headers: Vec<u8>) -> Option<Vec<u8>> {
    let word = |place: usize| {
        let word = headers.get(place..place.checked_add(4)?)?;
        Some(u32::from_le_bytes(word.try_into().ok()?))
    };
    let signature = usize::try_from(word(SIGNATURE)?).ok()?;
    let optional = signature.checked_add(0x18)?;
    let wide = word(optional)? & 0xffff == 0x20b;
    let directories = optional.checked_add(if wide { 108 } else { 92 })?;
    headers
        .get_mut(signature + 6..signature + 8)?
        .copy_from_slice(&[0; 2]);
    headers
        .get_mut(directories..directories + 4)?
        .copy_from_slice(&[0; 4]);
    Some(headers)
}

/// `TimeDateStamp` and `CheckSum` of the image in memory that begins at `at`.
pub(crate) fn identity(target: &dyn Target, at: LiveAddr) -> Option<(u32, u32)> {
    let seen = Loaded::seen(target, at)?;
    Some((seen.image.time_stamp, seen.image.checksum))
}

/// Where the loader has the image that a record tells of; one that says 0 was written by a tool that
/// died before it noted where the image came.
pub(crate) fn loaded_at(
    host: &dyn Host,
    (at, path): (u64, &str),
    known: (u32, u32),
) -> Result<Option<LiveAddr>, TargetError> {
    let is_it = |image: &HostImage| match at {
        0 => image.path.eq_ignore_ascii_case(path),
        at => image.range.start.0 == at,
    };
    let images = host.images()?;
    let found = images.iter().find(|image| is_it(image));
    let at = found.map(|image| image.range.start);
    Ok(at.filter(|at| Loaded::seen_as(host, at.0, known).is_some()))
}

/// A place that holds an address in these ranges.
pub(crate) fn held_in(
    host: &mut dyn Host,
    ranges: &[Range<LiveAddr>],
) -> Result<Option<String>, ApplyError> {
    let mut found = None;
    host.stop(&[], &mut |stopped: &mut dyn Stopped| {
        for range in ranges {
            if found.is_none() {
                found = stopped.finds(range)?;
            }
        }
        Ok(())
    })?;
    Ok(found)
}

/// What became of an image that a record tells of. Its address alone says little: the program may
/// have unloaded it, and the loader likes to use the same place again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Instance {
    /// It is what the record tells of.
    Same,
    /// It was loaded again: nothing in it is patched.
    Again,
    /// It is not loaded any more; another one may be there.
    Gone,
}

impl Instance {
    /// `live` is what places of it held before they were patched, as far as the record says that
    /// they are.
    pub(crate) fn of(
        target: &dyn Target,
        images: &[HostImage],
        at: u64,
        known: (u32, u32),
        live: &[(LiveAddr, &[u8])],
    ) -> Result<Instance, ApplyError> {
        let at = LiveAddr(at);
        let loaded = images.iter().any(|image| image.range.start == at);
        if !loaded || identity(target, at) != Some(known) {
            return Ok(Instance::Gone);
        }
        for (at, original) in live {
            if !target.holds(*at, original)? {
                return Ok(Instance::Same);
            }
        }
        Ok(match live {
            [] => Instance::Same,
            _ => Instance::Again,
        })
    }
}
