//! Fields of a record that change while its patch is live: they always take the same room.
//!
//! The kernel writes a process's memory page by page, and a tool that is killed in the middle has
//! written some. So what changes lies on the first page, and nothing behind it moves: else the
//! record of a live patch could be half an old and half a new one, which nobody can read.

use invivo_image::LiveAddr;
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serializer};

/// A range as two hexadecimal numbers.
pub(crate) mod range {
    use super::*;

    pub(crate) fn serialize<S: Serializer>(
        (at, size): &(LiveAddr, u64),
        out: S,
    ) -> Result<S::Ok, S::Error> {
        out.collect_str(&format_args!("{:016x}+{size:016x}", at.0))
    }

    pub(crate) fn deserialize<'d, D: Deserializer<'d>>(
        from: D,
    ) -> Result<(LiveAddr, u64), D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Either {
            Text(String),
            /// As older programs wrote it.
            Pair((LiveAddr, u64)),
        }
        let number = |text| u64::from_str_radix(text, 16).map_err(D::Error::custom);
        match Either::deserialize(from)? {
            Either::Pair(pair) => Ok(pair),
            Either::Text(text) => match text.split_once('+') {
                Some((at, size)) => Ok((LiveAddr(number(at)?), number(size)?)),
                None => Err(D::Error::custom("no range")),
            },
        }
    }
}

/// A flag as 0 or 1.
pub(crate) mod flag {
    use super::*;

    pub(crate) fn serialize<S: Serializer>(flag: &bool, out: S) -> Result<S::Ok, S::Error> {
        out.serialize_u8(u8::from(*flag))
    }

    pub(crate) fn deserialize<'d, D: Deserializer<'d>>(from: D) -> Result<bool, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Either {
            Number(u8),
            /// As older programs wrote it.
            Flag(bool),
        }
        Ok(match Either::deserialize(from)? {
            Either::Number(number) => number != 0,
            Either::Flag(flag) => flag,
        })
    }
}
