//! What lies behind the file's own bytes, from its end on.

use crate::TrustError;
use crate::error::malformed;

/// The last bytes of a signed file.
pub const MAGIC: &[u8; 28] = b"~Module signature appended~\n";

/// `struct module_signature`: algorithm, hash, kind of id, two lengths, three bytes of padding,
/// and the length of the signature, big-endian.
const HEADER: usize = 12;
/// `PKEY_ID_PKCS7`, the only kind that is made since Linux 4.3.
const CMS: u8 = 2;
/// A signature of the largest keys has some kilobytes with its certificates.
const LONGEST: usize = 64 << 10;

const WHAT: &str = "what is appended to the file";

/// What is appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended<'a> {
    /// The signer's name; it is not signed, and empty for Linux.
    pub signer: &'a [u8],
    /// The id of the signer's key; the same holds for it.
    pub key_id: &'a [u8],
    /// A CMS `SignedData`, in DER.
    pub signature: &'a [u8],
}

/// The file's own bytes, and what is appended; nothing if it does not end as a signed file does.
///
/// # Errors
///
/// [`TrustError::Malformed`] if the lengths lead out of the file or a field is not as it must be,
/// [`TrustError::Unsupported`] for a signature of another kind.
pub fn split(file: &[u8]) -> Result<Option<(&[u8], Appended<'_>)>, TrustError> {
    let Some(rest) = file.strip_suffix(MAGIC) else {
        return Ok(None);
    };
    let (rest, header) = rest
        .split_last_chunk::<HEADER>()
        .ok_or_else(|| malformed(WHAT, "it has no header"))?;
    let [algorithm, hash, kind, signer, key_id, a, b, c, length @ ..] = *header;
    if kind != CMS {
        return Err(TrustError::Unsupported(format!(
            "a signature of kind {kind}"
        )));
    }
    // In this kind the message itself tells both, so that a second truth would be one too many.
    if [algorithm, hash, a, b, c] != [0; 5] {
        return Err(malformed(WHAT, "a field of the header is not zero"));
    }
    let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
    if length > LONGEST {
        return Err(malformed(WHAT, format!("{length} bytes of signature")));
    }
    let before = |bytes: &'_ [u8], length: usize| bytes.len().checked_sub(length);
    let outside = || malformed(WHAT, "its lengths lead out of the file");
    let (rest, signature) = rest.split_at(before(rest, length).ok_or_else(outside)?);
    let (rest, key_id) = rest.split_at(before(rest, key_id.into()).ok_or_else(outside)?);
    let (bytes, signer) = rest.split_at(before(rest, signer.into()).ok_or_else(outside)?);
    Ok(Some((
        bytes,
        Appended {
            signer,
            key_id,
            signature,
        },
    )))
}

/// A file's bytes with something appended.
///
/// # Errors
///
/// [`TrustError::Malformed`] if a part of it is longer than its length can tell.
pub fn append(bytes: &[u8], appended: &Appended<'_>) -> Result<Vec<u8>, TrustError> {
    let short = |part: &[u8], what: &str| {
        u8::try_from(part.len()).map_err(|_| malformed(WHAT, format!("{what} is too long")))
    };
    let signer = short(appended.signer, "the signer's name")?;
    let key_id = short(appended.key_id, "the key's id")?;
    let length = u32::try_from(appended.signature.len())
        .ok()
        .filter(|&length| length as usize <= LONGEST)
        .ok_or_else(|| malformed(WHAT, "the signature is too long"))?;
    let header = [0, 0, CMS, signer, key_id, 0, 0, 0];
    Ok([
        bytes,
        appended.signer,
        appended.key_id,
        appended.signature,
        &header,
        &length.to_be_bytes(),
        MAGIC,
    ]
    .concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_appended_is_split_off() {
        let appended = Appended {
            signer: b"somebody",
            key_id: &[1, 2, 3],
            signature: &[4; 300],
        };
        let file = append(b"bytes", &appended).expect("it is short enough");
        assert_eq!(split(&file), Ok(Some((&b"bytes"[..], appended))));
        assert_eq!(split(b"bytes"), Ok(None));
        assert_eq!(
            split(MAGIC).map(|_| ()),
            Err(malformed(WHAT, "it has no header"))
        );
    }

    /// Each length that leads out of the file is told as such, wherever the file begins.
    #[test]
    fn lengths_that_lie_are_refused() {
        let appended = Appended {
            signer: b"somebody",
            key_id: &[1, 2, 3],
            signature: &[4; 30],
        };
        let file = append(b"", &appended).expect("it is short enough");
        for cut in 1..41 {
            assert!(split(&file[cut..]).is_err(), "{cut}");
        }
        for at in 0..HEADER {
            let mut file = file.clone();
            let at = file.len() - MAGIC.len() - HEADER + at;
            file[at] = 0xff;
            assert!(split(&file).is_err(), "{at}");
        }
    }
}
