//! Who made a file: signatures that are appended to it, as Linux has them for its modules.
//!
//! Behind the file's own bytes lie the signer's name and key id (both may be empty), a signature,
//! 12 bytes that tell the lengths, and the text `~Module signature appended~`. The signature is a
//! CMS `SignedData` (RFC 5652) without signed attributes and without the data: what is signed are
//! the file's own bytes, all of them, and nothing else. So a verifier needs no more than to hash
//! them, and can do that before it reads anything of the file itself.
//!
//! [`verify`] takes certificates that are trusted as they are: the signature was made by the key of
//! one of them. Neither chains nor times are looked at; who no longer trusts a key takes its
//! certificate away.
//!
//! Source: Linux, `include/linux/module_signature.h`, `scripts/sign-file.c`.

mod appended;
mod error;
mod keys;
mod message;

pub use appended::{Appended, MAGIC, append, split};
pub use error::TrustError;
pub use keys::{Certificate, Signer};

/// A file whose signature was verified.
#[derive(Clone, Debug)]
pub struct Verified<'f, 'c> {
    /// The file's own bytes, without what was appended.
    pub bytes: &'f [u8],
    /// Whose key signed them.
    pub certificate: &'c Certificate,
    /// The hash that was signed, such as `SHA-256`.
    pub digest: &'static str,
}

/// Verifies what is appended to a file: its own bytes were signed with the key of one of these
/// certificates.
///
/// # Errors
///
/// [`TrustError::NotSigned`] if there is nothing appended, [`TrustError::NotTrusted`] if another
/// key signed it, [`TrustError::Changed`] if the bytes are not those that were signed, and
/// [`TrustError::Malformed`] or [`TrustError::Unsupported`] for what cannot be read.
pub fn verify<'f, 'c>(
    file: &'f [u8],
    trusted: &'c [Certificate],
) -> Result<Verified<'f, 'c>, TrustError> {
    let (bytes, appended) = split(file)?.ok_or(TrustError::NotSigned)?;
    let message = message::read(appended.signature)?;
    let certificate = trusted
        .iter()
        .find(|certificate| message.is_of(certificate))
        .ok_or_else(|| TrustError::NotTrusted(message.signer()))?;
    let digest = message.verify(bytes, certificate)?;
    Ok(Verified {
        bytes,
        certificate,
        digest,
    })
}

/// Signs a file: its bytes, and the signature behind them. With `named` the signer's name and key
/// id lie there too; Linux takes only files without.
///
/// # Errors
///
/// [`TrustError::AlreadySigned`], or [`TrustError::Key`] if the key cannot sign.
pub fn sign(file: &[u8], signer: &Signer, named: bool) -> Result<Vec<u8>, TrustError> {
    if split(file)?.is_some() {
        return Err(TrustError::AlreadySigned);
    }
    let signature = message::write(signer, &signer.sign(file)?)?;
    let (name, key_id) = match named {
        true => (
            signer.certificate().subject(),
            signer.certificate().key_id(),
        ),
        false => (String::new(), None),
    };
    append(
        file,
        &Appended {
            signer: name.as_bytes(),
            key_id: key_id.unwrap_or_default(),
            signature: &signature,
        },
    )
}
