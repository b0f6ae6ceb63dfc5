//! Memory that a hypercall may refer to: it stays where it is while the call goes on, and behind
//! it lies a page that nobody may touch.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::ptr::{NonNull, null_mut};
use std::slice;

/// The size of a page of this machine's memory.
const PAGE: usize = 4096;

/// Some bytes of such memory.
#[derive(Debug)]
pub(super) struct Region {
    begin: NonNull<u8>,
    /// All of the mapping, with the page behind.
    mapped: usize,
    length: usize,
}

impl Region {
    /// Zeros; from the device if there is one that gives such memory, else locked.
    ///
    /// The bytes end where the last page does that may be touched: a hypervisor that has more to
    /// say than it is given room for (the list of payloads before interface 0x16) fails instead of
    /// writing over something else.
    pub(super) fn new(length: usize, device: Option<&File>) -> io::Result<Region> {
        let pages = length.max(1).div_ceil(PAGE) * PAGE;
        let mapped = pages + PAGE;
        let closed = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: a new mapping anywhere touches no memory that is in use.
        let reserved = unsafe { libc::mmap(null_mut(), mapped, libc::PROT_NONE, closed, -1, 0) };
        if reserved == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let Some(begin) = NonNull::new(reserved.cast::<u8>()) else {
            return Err(io::Error::from_raw_os_error(libc::ENOMEM));
        };
        // From here on the mapping is given back whatever happens.
        let region = Region {
            begin,
            mapped,
            length,
        };
        let (flags, file) = match device {
            Some(device) => (libc::MAP_SHARED, device.as_raw_fd()),
            None => (
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_LOCKED | libc::MAP_POPULATE,
                -1,
            ),
        };
        let open = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: it takes the place of pages that were reserved above for nothing else.
        let usable = unsafe { libc::mmap(reserved, pages, open, flags | libc::MAP_FIXED, file, 0) };
        if usable == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        // A child that is forked meanwhile would make a copy of the page at the next write, and
        // the hypervisor might be led to the wrong one. Where it fails nothing else is at stake.
        // SAFETY: the pages were mapped above.
        unsafe { libc::madvise(usable, pages, libc::MADV_DONTFORK) };
        Ok(region)
    }

    /// How far the bytes lie behind the beginning, so that they end with the last page, yet are
    /// aligned as every structure of the interface wants it.
    fn shift(&self) -> usize {
        (self.mapped - PAGE - self.length) & !7
    }

    /// Where it is, as the hypervisor gets it.
    pub(super) fn address(&self) -> u64 {
        self.begin.as_ptr().addr().saturating_add(self.shift()) as u64
    }

    /// What is in it.
    pub(super) fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: the bytes lie inside of the pages that may be read and written, they are
        // borrowed from `self`, and no call goes on that writes them.
        unsafe { slice::from_raw_parts_mut(self.begin.as_ptr().add(self.shift()), self.length) }
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: it was mapped by `new`, and nobody has a borrow of it any more.
        unsafe { libc::munmap(self.begin.as_ptr().cast(), self.mapped) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_end_before_the_page_that_is_closed() {
        for length in [0, 1, 8, 136, 4095, 4096, 4097, 2 << 20] {
            let mut region = Region::new(length, None).expect("a few pages can be locked");
            region.bytes_mut().fill(0xa5);
            assert_eq!(region.address() % 8, 0);
            let end = region.address() as usize + length;
            let closed = region.begin.as_ptr().addr() + region.mapped - PAGE;
            assert!((closed - 7..=closed).contains(&end), "{length}");
        }
    }
}
