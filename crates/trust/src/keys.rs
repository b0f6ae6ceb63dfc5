//! Certificates, and the keys of signers.

use der::{Decode, Document, Encode, SecretDocument};
use ring::rand::SystemRandom;
use ring::signature::{
    self, ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P384_SHA384_ASN1_SIGNING, EcdsaKeyPair, KeyPair,
    RsaKeyPair,
};
use x509_cert::der::asn1::ObjectIdentifier;
use x509_cert::ext::pkix::SubjectKeyIdentifier;

use crate::TrustError;
use crate::error::malformed;

/// `rsaEncryption` (RFC 8017)
pub(crate) const RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
/// `id-ecPublicKey` (RFC 5480)
const EC: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
/// `secp256r1`
const P256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
/// `secp384r1`
const P384: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.34");

/// Where a certificate begins and ends in a PEM file (RFC 7468).
const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
const END: &str = "-----END CERTIFICATE-----";

/// What a public key is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KeyKind {
    Rsa,
    P256,
    P384,
}

/// A certificate that is trusted as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    pub(crate) inner: x509_cert::Certificate,
    key_id: Option<Vec<u8>>,
    pub(crate) kind: KeyKind,
}

impl Certificate {
    /// The certificates of a PEM file, or the one of a DER file.
    ///
    /// # Errors
    ///
    /// [`TrustError::Malformed`] if there is none, [`TrustError::Unsupported`] if a key is neither
    /// RSA nor of the curves P-256 and P-384.
    pub fn load(file: &[u8]) -> Result<Vec<Certificate>, TrustError> {
        let fail = |error: der::Error| malformed("the certificate", error);
        let parsed = if file.starts_with(b"\x30") {
            vec![x509_cert::Certificate::from_der(file).map_err(fail)?]
        } else {
            let text = std::str::from_utf8(file);
            let text = text.map_err(|error| malformed("the certificate", error))?;
            // Text around them, as other tools leave it there, is nobody's.
            text.match_indices(BEGIN)
                .map(|(begin, _)| {
                    let text = &text[begin..];
                    let end = text.find(END).map_or(text.len(), |end| end + END.len());
                    // All of it is taken out of its letters first. Read while that is done, one
                    // whose length says more than there is ("MIIG" alone) is waited for for ever.
                    let (_, document) = Document::from_pem(&text[..end]).map_err(fail)?;
                    x509_cert::Certificate::from_der(document.as_bytes()).map_err(fail)
                })
                .collect::<Result<Vec<_>, _>>()?
        };
        if parsed.is_empty() {
            return Err(malformed("the certificate", "there is none in the file"));
        }
        parsed.into_iter().map(Certificate::new).collect()
    }

    fn new(inner: x509_cert::Certificate) -> Result<Certificate, TrustError> {
        let of = &inner.tbs_certificate;
        let algorithm = &of.subject_public_key_info.algorithm;
        let curve = algorithm.parameters.as_ref();
        let curve = curve.and_then(|any| any.decode_as::<ObjectIdentifier>().ok());
        let kind = match (algorithm.oid, curve) {
            (RSA, _) => KeyKind::Rsa,
            (EC, Some(P256)) => KeyKind::P256,
            (EC, Some(P384)) => KeyKind::P384,
            (other, _) => {
                let what = format!("a certificate with a key of kind {other}");
                return Err(TrustError::Unsupported(what));
            }
        };
        let fail = |error: der::Error| malformed("the certificate", error);
        let key_id = of.get::<SubjectKeyIdentifier>().map_err(fail)?;
        let key_id = key_id.map(|(_, id)| id.0.as_bytes().to_vec());
        Ok(Certificate {
            inner,
            key_id,
            kind,
        })
    }

    /// Whose it is, such as `CN=Releases,O=Example`.
    #[must_use]
    pub fn subject(&self) -> String {
        self.inner.tbs_certificate.subject.to_string()
    }

    /// The id of its key, if it tells one.
    #[must_use]
    pub fn key_id(&self) -> Option<&[u8]> {
        self.key_id.as_deref()
    }

    /// The SHA-256 of the certificate, by which people compare it.
    ///
    /// # Errors
    ///
    /// [`TrustError::Malformed`] if it cannot be written as it was read.
    pub fn fingerprint(&self) -> Result<Vec<u8>, TrustError> {
        let fail = |error: der::Error| malformed("the certificate", error);
        let bytes = self.inner.to_der().map_err(fail)?;
        let digest = ring::digest::digest(&ring::digest::SHA256, &bytes);
        Ok(digest.as_ref().to_vec())
    }

    /// The public key, as its kind writes it.
    pub(crate) fn public_key(&self) -> &[u8] {
        let info = &self.inner.tbs_certificate.subject_public_key_info;
        info.subject_public_key.raw_bytes()
    }
}

/// A private key, and the certificate that says whose it is.
#[derive(Debug)]
pub struct Signer {
    certificate: Certificate,
    key: Key,
}

#[derive(Debug)]
enum Key {
    Rsa(RsaKeyPair),
    Curve(EcdsaKeyPair),
}

impl Signer {
    /// A signer from a private key (PEM: PKCS #8, for RSA also PKCS #1) and its certificate.
    ///
    /// # Errors
    ///
    /// [`TrustError::Key`] if the key is encrypted, of another kind, or not the certificate's;
    /// [`TrustError::Malformed`] if it cannot be read.
    pub fn load(key: &[u8], certificate: Certificate) -> Result<Signer, TrustError> {
        let text = std::str::from_utf8(key).map_err(|error| malformed("the key", error))?;
        let (label, document) =
            SecretDocument::from_pem(text).map_err(|error| malformed("the key", error))?;
        let bytes = document.as_bytes();
        let rejected = |error: ring::error::KeyRejected| TrustError::Key(error.to_string());
        let curve = |algorithm| {
            EcdsaKeyPair::from_pkcs8(algorithm, bytes, &SystemRandom::new()).map_err(rejected)
        };
        let key = match (label, certificate.kind) {
            ("RSA PRIVATE KEY", KeyKind::Rsa) => {
                Key::Rsa(RsaKeyPair::from_der(bytes).map_err(rejected)?)
            }
            ("PRIVATE KEY", KeyKind::Rsa) => {
                Key::Rsa(RsaKeyPair::from_pkcs8(bytes).map_err(rejected)?)
            }
            ("PRIVATE KEY", KeyKind::P256) => Key::Curve(curve(&ECDSA_P256_SHA256_ASN1_SIGNING)?),
            ("PRIVATE KEY", KeyKind::P384) => Key::Curve(curve(&ECDSA_P384_SHA384_ASN1_SIGNING)?),
            ("ENCRYPTED PRIVATE KEY", _) => {
                return Err(TrustError::Key("it is encrypted".to_owned()));
            }
            (other, _) => return Err(TrustError::Key(format!("it is a {other}"))),
        };
        let public = match &key {
            Key::Rsa(key) => key.public_key().as_ref(),
            Key::Curve(key) => key.public_key().as_ref(),
        };
        if public != certificate.public_key() {
            return Err(TrustError::Key("it is not the certificate's".to_owned()));
        }
        Ok(Signer { certificate, key })
    }

    /// Whose key it is.
    #[must_use]
    pub fn certificate(&self) -> &Certificate {
        &self.certificate
    }

    /// The signature over these bytes; SHA-384 for P-384, else SHA-256.
    pub(crate) fn sign(&self, bytes: &[u8]) -> Result<Vec<u8>, TrustError> {
        let fail = |_| TrustError::Key("it does not sign".to_owned());
        let random = SystemRandom::new();
        match &self.key {
            Key::Rsa(key) => {
                let mut made = vec![0; key.public().modulus_len()];
                key.sign(&signature::RSA_PKCS1_SHA256, &random, bytes, &mut made)
                    .map_err(fail)?;
                Ok(made)
            }
            Key::Curve(key) => {
                let made = key.sign(&random, bytes).map_err(fail)?;
                Ok(made.as_ref().to_vec())
            }
        }
    }
}
