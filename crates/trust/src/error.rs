//! What is wrong with a signature, or with what is to make one.

/// Why something is not trusted, or not signed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TrustError {
    /// Nothing is appended.
    #[error("it is not signed")]
    NotSigned,
    /// Something is appended already.
    #[error("it is signed already")]
    AlreadySigned,
    /// What is appended, a certificate or a key does not have the form that it must have.
    #[error("{what}: {why}")]
    Malformed {
        /// What cannot be read.
        what: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// It is of a kind that is not known.
    #[error("{0} is not supported")]
    Unsupported(String),
    /// The signer is none of those that are trusted.
    #[error("it is signed by somebody else: {0}")]
    NotTrusted(String),
    /// The signer is trusted, and the bytes are not those that were signed.
    #[error("it was changed after it was signed, or its signature was")]
    Changed,
    /// The private key cannot be used.
    #[error("the key cannot be used: {0}")]
    Key(String),
}

/// What cannot be read, and why.
pub(crate) fn malformed(what: &'static str, why: impl ToString) -> TrustError {
    let why = why.to_string();
    TrustError::Malformed { what, why }
}
