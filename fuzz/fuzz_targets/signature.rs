//! Any bytes as a signed file, and as a certificate. What is verified are the bytes that were
//! signed, whatever lies around them.

#![no_main]

use std::sync::OnceLock;

use invivo_trust::{Certificate, split, verify};
use libfuzzer_sys::fuzz_target;

static TRUSTED: OnceLock<Vec<Certificate>> = OnceLock::new();

fuzz_target!(|data: &[u8]| {
    let trusted = TRUSTED.get_or_init(|| {
        let seed = include_bytes!("../seeds/signature/certificate");
        Certificate::load(seed).expect("the seed is a certificate")
    });
    let _ = split(data);
    if let Ok(verified) = verify(data, trusted) {
        assert_eq!(verified.bytes, b"bytes");
    }
    for certificate in Certificate::load(data).unwrap_or_default() {
        let _ = certificate.fingerprint();
        let _ = certificate.subject();
    }
});
