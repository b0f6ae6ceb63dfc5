//! `invivo sign`, `invivo verify`

use std::path::{Path, PathBuf};

use invivo_format::livepatch;
use invivo_trust::{Certificate, Signer, TrustError, sign, verify};
use owo_colors::OwoColorize;
use schemars::JsonSchema;
use serde::Serialize;

use crate::arguments::{Sign, Verify};
use crate::failure::{Failure, REFUSED, TRUST, USAGE};
use crate::images::read_file;
use crate::output::Output;
use crate::patch_file::{is_patch, store};

/// `sign --json` and `verify --json`.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Signature {
    schema: &'static str,
    /// The signed file.
    file: String,
    /// The subject of the certificate.
    signer: String,
    /// The SHA-256 of the certificate.
    fingerprint: String,
    /// Bytes that are signed: all but the signature itself.
    size: usize,
}

pub(crate) fn sign_file(asked: &Sign, output: &Output) -> Result<u8, Failure> {
    let bytes = read_file(&asked.file)?;
    if !livepatch::is_payload(&bytes) && !is_patch(&bytes) {
        let file = asked.file.display();
        let text = format!("{file}: is neither a patch for processes nor a payload for Xen");
        return Err(Failure::new(REFUSED, text)
            .hint("give a file that invivo build or invivo livepatch wrote; what it is, tells: invivo inspect FILE"));
    }
    let mut certificates = certificates(&asked.cert)?;
    if certificates.len() > 1 {
        let text = format!("{}: has several certificates", asked.cert.display());
        return Err(Failure::new(USAGE, text).hint("give a file with that of the key alone"));
    }
    let certificate = certificates.swap_remove(0);
    let key = read_file(&asked.key)?;
    let signer = Signer::load(&key, certificate).map_err(|error| told(&asked.key, &error))?;
    let signed = sign(&bytes, &signer, asked.named).map_err(|error| told(&asked.file, &error))?;
    store(&asked.output, &signed)?;
    show(
        &asked.output,
        signer.certificate(),
        bytes.len(),
        "signed",
        output,
    )
}

pub(crate) fn verify_file(asked: &Verify, output: &Output) -> Result<u8, Failure> {
    let bytes = read_file(&asked.file)?;
    let trusted = trusted(&asked.cert)?;
    let verified = verify(&bytes, &trusted).map_err(|error| told(&asked.file, &error))?;
    let (certificate, size) = (verified.certificate, verified.bytes.len());
    show(&asked.file, certificate, size, "was signed", output)
}

/// Refuses a file that none of these certificates' keys signed; without any there is nothing to
/// verify.
pub(crate) fn require(path: &Path, bytes: &[u8], certificates: &[PathBuf]) -> Result<(), Failure> {
    if certificates.is_empty() {
        return Ok(());
    }
    let trusted = trusted(certificates)?;
    verify(bytes, &trusted).map_err(|error| told(path, &error))?;
    Ok(())
}

fn show(
    file: &Path,
    certificate: &Certificate,
    size: usize,
    what: &str,
    output: &Output,
) -> Result<u8, Failure> {
    let fingerprint = certificate.fingerprint();
    let fingerprint = fingerprint.map_err(|error| Failure::new(70, error.to_string()))?;
    let signature = Signature {
        schema: "invivo.signature/1",
        file: file.display().to_string(),
        signer: certificate.subject(),
        fingerprint: fingerprint
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect(),
        size,
    };
    output.data(&signature, || {
        let signer = signature.signer.escape_debug().to_string();
        anstream::println!("{}: {what} by {}", signature.file, signer.bold());
        anstream::println!("    certificate {}", signature.fingerprint);
    })?;
    Ok(0)
}

fn trusted(files: &[PathBuf]) -> Result<Vec<Certificate>, Failure> {
    let mut all = Vec::new();
    for file in files {
        all.extend(certificates(file)?);
    }
    Ok(all)
}

fn certificates(file: &Path) -> Result<Vec<Certificate>, Failure> {
    let loaded = Certificate::load(&read_file(file)?);
    loaded.map_err(|error| {
        Failure::new(USAGE, format!("{}: {error}", file.display()))
            .hint("give a certificate of X.509, as openssl req -x509 writes one")
    })
}

fn told(file: &Path, error: &TrustError) -> Failure {
    let text = format!("{}: {error}", file.display());
    match error {
        TrustError::NotSigned => Failure::new(TRUST, text)
            .hint("sign it with: invivo sign FILE --key KEY --cert CERT -o SIGNED"),
        TrustError::AlreadySigned => {
            Failure::new(REFUSED, text).hint("sign the file that it was made of")
        }
        TrustError::NotTrusted(_) => Failure::new(TRUST, text)
            .hint("if you trust the signer, give its certificate with --cert FILE"),
        TrustError::Changed => {
            Failure::new(TRUST, text).hint("get the file again from where it was made")
        }
        TrustError::Key(_) => Failure::new(USAGE, text).hint(
            "give the key of the certificate; write it anew, and not encrypted, with: openssl pkey \
             -in KEY -out NEW",
        ),
        _ => Failure::new(TRUST, text).hint(
            "sign it with invivo sign, or with openssl cms -sign -binary -noattr -outform DER",
        ),
    }
}
