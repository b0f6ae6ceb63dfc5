//! The CMS message: `SignedData` with one signer, no data, no certificates of its own and no
//! signed attributes.

use cms::cert::IssuerAndSerialNumber;
use cms::content_info::{CmsVersion, ContentInfo};
use cms::signed_data::{
    EncapsulatedContentInfo, SignedData, SignerIdentifier, SignerInfo, SignerInfos,
};
use der::asn1::{OctetString, SetOfVec};
use der::{Any, AnyRef, Decode, Encode};
use ring::signature::{self, UnparsedPublicKey, VerificationAlgorithm};
use x509_cert::der::asn1::ObjectIdentifier;
use x509_cert::spki::AlgorithmIdentifierOwned;

use crate::TrustError;
use crate::error::malformed;
use crate::keys::{Certificate, KeyKind, RSA, Signer};

/// `id-data` and `id-signedData` (RFC 5652)
const DATA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.7.1");
const SIGNED_DATA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.7.2");
/// Hashes (RFC 5754)
const SHA256: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.1");
const SHA384: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.2");
const SHA512: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.3");
/// RSA with PKCS #1 padding and one of these hashes (RFC 4055); plain `rsaEncryption` says the
/// same, with the hash told elsewhere.
const RSA_SHA256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.11");
const RSA_SHA384: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.12");
const RSA_SHA512: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.13");
/// ECDSA (RFC 5758)
const ECDSA_SHA256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.2");
const ECDSA_SHA384: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.3");

const WHAT: &str = "the signature";

/// A message with one signer.
#[derive(Debug)]
pub(crate) struct Message {
    signer: SignerInfo,
}

/// Reads a message, all of whose bytes must belong to it.
pub(crate) fn read(bytes: &[u8]) -> Result<Message, TrustError> {
    let fail = |error: der::Error| malformed(WHAT, error);
    let info = ContentInfo::from_der(bytes).map_err(fail)?;
    if info.content_type != SIGNED_DATA {
        return Err(malformed(WHAT, "it is no message of signed data"));
    }
    let data: SignedData = info.content.decode_as().map_err(fail)?;
    let content = &data.encap_content_info;
    // Data inside would be signed, and not the file.
    if content.econtent_type != DATA || content.econtent.is_some() {
        return Err(malformed(WHAT, "it has data of its own"));
    }
    let mut signers = data.signer_infos.0.into_vec().into_iter();
    let (Some(signer), None) = (signers.next(), signers.next()) else {
        return Err(malformed(WHAT, "it has not exactly one signer"));
    };
    // With them the signature is one of the attributes, which a simple verifier does not read.
    if signer.signed_attrs.is_some() {
        return Err(malformed(WHAT, "it has signed attributes"));
    }
    Ok(Message { signer })
}

impl Message {
    /// Whether the message says that the key of this certificate made it.
    pub(crate) fn is_of(&self, certificate: &Certificate) -> bool {
        match &self.signer.sid {
            SignerIdentifier::IssuerAndSerialNumber(id) => {
                let of = &certificate.inner.tbs_certificate;
                id.issuer == of.issuer && id.serial_number == of.serial_number
            }
            SignerIdentifier::SubjectKeyIdentifier(id) => {
                certificate.key_id() == Some(id.0.as_bytes())
            }
        }
    }

    /// What the message says of its signer.
    pub(crate) fn signer(&self) -> String {
        match &self.signer.sid {
            SignerIdentifier::IssuerAndSerialNumber(id) => {
                format!("serial number {} of {}", id.serial_number, id.issuer)
            }
            SignerIdentifier::SubjectKeyIdentifier(id) => {
                let id = id.0.as_bytes().iter().map(|byte| format!("{byte:02x}"));
                format!("key {}", id.collect::<String>())
            }
        }
    }

    /// Verifies that the key of the certificate signed these bytes; the hash's name.
    pub(crate) fn verify(
        &self,
        bytes: &[u8],
        certificate: &Certificate,
    ) -> Result<&'static str, TrustError> {
        let hash = self.signer.digest_alg.oid;
        let kind = self.signer.signature_algorithm.oid;
        let (algorithm, digest): (&dyn VerificationAlgorithm, _) =
            match (certificate.kind, kind, hash) {
                (KeyKind::Rsa, RSA | RSA_SHA256, SHA256) => {
                    (&signature::RSA_PKCS1_2048_8192_SHA256, "SHA-256")
                }
                (KeyKind::Rsa, RSA | RSA_SHA384, SHA384) => {
                    (&signature::RSA_PKCS1_2048_8192_SHA384, "SHA-384")
                }
                (KeyKind::Rsa, RSA | RSA_SHA512, SHA512) => {
                    (&signature::RSA_PKCS1_2048_8192_SHA512, "SHA-512")
                }
                (KeyKind::P256, ECDSA_SHA256, SHA256) => {
                    (&signature::ECDSA_P256_SHA256_ASN1, "SHA-256")
                }
                (KeyKind::P384, ECDSA_SHA384, SHA384) => {
                    (&signature::ECDSA_P384_SHA384_ASN1, "SHA-384")
                }
                _ => {
                    let what = format!("a signature of kind {kind} over a hash of kind {hash}");
                    return Err(TrustError::Unsupported(what));
                }
            };
        let key = UnparsedPublicKey::new(algorithm, certificate.public_key());
        key.verify(bytes, self.signer.signature.as_bytes())
            .map_err(|_| TrustError::Changed)?;
        Ok(digest)
    }
}

/// Writes the message with a signature that was made; the signer is named by issuer and serial
/// number, as version 1 of `SignerInfo` wants it.
pub(crate) fn write(signer: &Signer, made: &[u8]) -> Result<Vec<u8>, TrustError> {
    let fail = |error: der::Error| malformed(WHAT, error);
    let certificate = signer.certificate();
    let of = &certificate.inner.tbs_certificate;
    let plain = |oid, parameters| AlgorithmIdentifierOwned { oid, parameters };
    let (hash, kind) = match certificate.kind {
        KeyKind::Rsa => (SHA256, plain(RSA, Some(Any::from(AnyRef::NULL)))),
        KeyKind::P256 => (SHA256, plain(ECDSA_SHA256, None)),
        KeyKind::P384 => (SHA384, plain(ECDSA_SHA384, None)),
    };
    let info = SignerInfo {
        version: CmsVersion::V1,
        sid: SignerIdentifier::IssuerAndSerialNumber(IssuerAndSerialNumber {
            issuer: of.issuer.clone(),
            serial_number: of.serial_number.clone(),
        }),
        digest_alg: plain(hash, None),
        signed_attrs: None,
        signature_algorithm: kind,
        signature: OctetString::new(made).map_err(fail)?,
        unsigned_attrs: None,
    };
    let data = SignedData {
        version: CmsVersion::V1,
        digest_algorithms: SetOfVec::try_from(vec![plain(hash, None)]).map_err(fail)?,
        encap_content_info: EncapsulatedContentInfo {
            econtent_type: DATA,
            econtent: None,
        },
        certificates: None,
        crls: None,
        signer_infos: SignerInfos(SetOfVec::try_from(vec![info]).map_err(fail)?),
    };
    let content = Any::encode_from(&data).map_err(fail)?;
    let info = ContentInfo {
        content_type: SIGNED_DATA,
        content,
    };
    info.to_der().map_err(fail)
}
