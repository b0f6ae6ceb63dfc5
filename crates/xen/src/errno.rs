//! The hypervisor's error numbers.

use core::fmt;

/// An error number of Xen, positive.
///
/// Xen returns them negative; the numbers are those of `xen/include/public/errno.h`, which on
/// x86 are Linux's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Errno(pub i32);

macro_rules! numbers {
    ($($name:ident = $number:literal),* $(,)?) => {
        impl Errno {
            $(
                #[doc = concat!("`XEN_", stringify!($name), "`")]
                pub const $name: Errno = Errno($number);
            )*

            /// Its name, such as `EINVAL`; nothing if it is not one that livepatch calls return.
            #[must_use]
            pub fn name(self) -> Option<&'static str> {
                match self.0 {
                    $($number => Some(stringify!($name)),)*
                    _ => None,
                }
            }

            /// The number that a name such as `EINVAL` stands for.
            #[must_use]
            pub fn named(name: &str) -> Option<Errno> {
                match name {
                    $(stringify!($name) => Some(Errno($number)),)*
                    _ => None,
                }
            }
        }
    };
}

numbers! {
    EPERM = 1,
    ENOENT = 2,
    ESRCH = 3,
    EINTR = 4,
    EIO = 5,
    ENXIO = 6,
    E2BIG = 7,
    ENOEXEC = 8,
    EAGAIN = 11,
    ENOMEM = 12,
    EACCES = 13,
    EFAULT = 14,
    EBUSY = 16,
    EEXIST = 17,
    EXDEV = 18,
    ENODEV = 19,
    EINVAL = 22,
    ENOSPC = 28,
    ERANGE = 34,
    ENOSYS = 38,
    ENODATA = 61,
    ETIME = 62,
    EOVERFLOW = 75,
    EILSEQ = 84,
    ERESTART = 85,
    EOPNOTSUPP = 95,
    ENOBUFS = 105,
    ETIMEDOUT = 110,
}

impl Errno {
    /// What a call returned: a value, or an error.
    ///
    /// # Errors
    ///
    /// The error number, where the call returned a negative one.
    pub fn check(returned: i64) -> Result<i64, Errno> {
        if returned >= 0 {
            return Ok(returned);
        }
        // A number that is no error number is kept as far as it goes, so that it can be told.
        let positive = returned.checked_neg().unwrap_or(i64::MAX);
        Err(Errno(i32::try_from(positive).unwrap_or(i32::MAX)))
    }
}

impl fmt::Display for Errno {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => formatter.write_str(name),
            None => write!(formatter, "error {}", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use alloc::string::ToString;

    use super::*;

    #[test]
    fn numbers_and_names_go_both_ways() {
        for number in 1..200 {
            if let Some(name) = Errno(number).name() {
                assert_eq!(Errno::named(name), Some(Errno(number)));
            }
        }
        assert_eq!(Errno::check(-95), Err(Errno::EOPNOTSUPP));
        assert_eq!(Errno::check(3), Ok(3));
        assert_eq!(Errno::check(i64::MIN), Err(Errno(i32::MAX)));
        assert_eq!(Errno(4711).to_string(), "error 4711");
    }
}
