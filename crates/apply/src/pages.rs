//! Many small places of a target's memory, read page by page: a patch of thousands of functions
//! has thousands of them, side by side.

use invivo_image::LiveAddr;

use crate::{Target, TargetError};

const PAGE: u64 = 0x1000;

/// Fills bytes from an address on.
type Read<'r> = dyn FnMut(LiveAddr, &mut [u8]) -> Result<(), TargetError> + 'r;

/// Memory of a target, of which the last page that was asked about is kept.
pub(crate) struct Pages<'r> {
    read: Box<Read<'r>>,
    /// Where the page starts, and what is on it.
    last: Option<(u64, Vec<u8>)>,
}

impl<'r> Pages<'r> {
    /// Of what `read` reads.
    pub(crate) fn new(
        read: impl FnMut(LiveAddr, &mut [u8]) -> Result<(), TargetError> + 'r,
    ) -> Pages<'r> {
        Pages {
            read: Box::new(read),
            last: None,
        }
    }

    /// Of a target while it runs.
    pub(crate) fn of(target: &'r dyn Target) -> Pages<'r> {
        Pages::new(|at, bytes| target.read(at, bytes))
    }

    /// True if exactly `bytes` are at `at`.
    pub(crate) fn holds(&mut self, at: LiveAddr, bytes: &[u8]) -> Result<bool, TargetError> {
        let (start, offset) = (at.0 & !(PAGE - 1), at.0 & (PAGE - 1));
        let end = offset + bytes.len() as u64;
        if end <= PAGE {
            if self.last.as_ref().is_none_or(|(page, _)| *page != start) {
                let mut page = vec![0; usize::try_from(PAGE).unwrap_or(0)];
                let read = (self.read)(LiveAddr(start), &mut page);
                self.last = read.is_ok().then_some((start, page));
            }
            let range = usize::try_from(offset).ok().zip(usize::try_from(end).ok());
            if let Some(((_, page), (from, to))) = self.last.as_ref().zip(range) {
                return Ok(page[from..to] == *bytes);
            }
        }
        // It lies on two pages, or not all of its page is there.
        let mut now = vec![0; bytes.len()];
        (self.read)(at, &mut now)?;
        Ok(now == bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{MemoryTarget, Protection};

    #[test]
    fn each_page_is_read_once_and_every_place_is_right() {
        let mut target = MemoryTarget::default();
        // The last page is not whole.
        target.add(LiveAddr(0x1000)..LiveAddr(0x3800), Protection::ReadWrite);
        for at in (0x1000..0x3800).step_by(4) {
            let word = u32::try_from(at).unwrap().to_le_bytes();
            Target::write(&mut target, LiveAddr(at), &word).unwrap();
        }
        let mut reads = 0;
        let mut pages = Pages::new(|at, bytes| {
            reads += 1;
            target.read(at, bytes)
        });
        for at in (0x1000..0x3000).step_by(4) {
            let word = u32::try_from(at).unwrap().to_le_bytes();
            assert!(pages.holds(LiveAddr(at), &word).unwrap(), "{at:#x}");
            assert!(!pages.holds(LiveAddr(at), &[0xff; 4]).unwrap(), "{at:#x}");
        }
        // Over the border, and on the page that is not whole.
        assert!(pages.holds(LiveAddr(0x1ffe), &[0, 0, 0, 0x20]).unwrap());
        assert!(pages.holds(LiveAddr(0x3004), &[4, 0x30, 0, 0]).unwrap());
        assert!(pages.holds(LiveAddr(0x37fe), &[0; 4]).is_err());
        drop(pages);
        assert_eq!(reads, 2 + 1 + 2 + 2, "pages are read more than once");
    }
}
