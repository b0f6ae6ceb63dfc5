//! Addresses, one type for each space, so that a mix-up does not compile.
//!
//! Arithmetic is checked: a hostile file may hold any number, and a wrapped
//! address is the beginning of a wrong patch.

use std::fmt;

use serde::{Deserialize, Serialize};

macro_rules! address {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub u64);

        impl $name {
            /// The address `bytes` further on, or `None` where that does not exist.
            #[must_use]
            pub fn checked_add(self, bytes: u64) -> Option<Self> {
                self.0.checked_add(bytes).map(Self)
            }

            /// The distance in bytes from `start` to here, or `None` if `start` lies behind.
            #[must_use]
            pub fn checked_sub(self, start: Self) -> Option<u64> {
                self.0.checked_sub(start.0)
            }

            /// The address `bytes` (of either sign) away, or `None` where that does not exist.
            #[must_use]
            pub fn checked_offset(self, bytes: i64) -> Option<Self> {
                self.0.checked_add_signed(bytes).map(Self)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:#x}", self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({:#x})"), self.0)
            }
        }

        impl Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                let text = String::deserialize(d)?;
                text.strip_prefix("0x")
                    .and_then(|hex| u64::from_str_radix(hex, 16).ok())
                    .map(Self)
                    .ok_or_else(|| serde::de::Error::custom("an address is written as 0x…"))
            }
        }
    };
}

address! {
    /// An offset in a file, in bytes.
    FileOffset
}
address! {
    /// An address relative to the image base (the page of the lowest loaded segment).
    Rva
}
address! {
    /// An address as the linker wrote it: `p_vaddr`, `st_value`.
    LinkAddr
}
address! {
    /// An address in the target while it runs.
    LiveAddr
}
