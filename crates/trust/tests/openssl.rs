//! Signatures against OpenSSL, in both directions, and against people who change files.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use invivo_trust::{Appended, Certificate, Signer, TrustError, append, sign, split, verify};

/// What is signed: any bytes do.
const BYTES: &[u8] = b"\x7fELF and whatever follows it\0\x01\x02\xff";

/// What OpenSSL makes keys by.
const KINDS: [&[&str]; 4] = [
    &["-newkey", "rsa:2048"],
    &["-newkey", "rsa:3072"],
    &["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"],
    &["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:secp384r1"],
];

/// A folder with a key and its certificate.
struct Owner {
    folder: tempfile::TempDir,
}

impl Owner {
    fn new(kind: &[&str]) -> Owner {
        let folder = tempfile::tempdir().expect("a folder for the test");
        let owner = Owner { folder };
        let subject = ["-subj", "/O=Example/CN=Releases", "-set_serial", "4711"];
        let files = ["-keyout", "key.pem", "-out", "cert.pem"];
        let words = [
            &["req", "-x509", "-nodes", "-days", "30"],
            kind,
            &subject,
            &files,
        ]
        .concat();
        succeeds(&owner.openssl(&words));
        owner
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn openssl(&self, words: &[&str]) -> Output {
        let mut openssl = Command::new("openssl");
        openssl.args(words).current_dir(self.folder.path());
        openssl
            .output()
            .expect("openssl is installed: cargo xtask install")
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        std::fs::write(self.path(name), bytes).expect("a file can be written");
    }

    fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.path(name)).expect("the file was written")
    }

    fn certificates(&self) -> Vec<Certificate> {
        Certificate::load(&self.read("cert.pem")).expect("OpenSSL makes good certificates")
    }

    fn signer(&self) -> Signer {
        let certificate = self.certificates().remove(0);
        Signer::load(&self.read("key.pem"), certificate).expect("OpenSSL makes good keys")
    }

    /// A signature that OpenSSL makes over `BYTES`.
    fn signature(&self, words: &[&str]) -> Vec<u8> {
        self.write("bytes", BYTES);
        let sign = ["cms", "-sign", "-binary", "-in", "bytes", "-outform", "DER"];
        let with = ["-signer", "cert.pem", "-inkey", "key.pem", "-out", "made"];
        succeeds(&self.openssl(&[&sign, &with[..], words].concat()));
        self.read("made")
    }
}

fn succeeds(output: &Output) {
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{told}");
}

/// A file with such a signature behind it.
fn signed_by(signature: &[u8]) -> Vec<u8> {
    let (signer, key_id) = (&b""[..], &b""[..]);
    append(
        BYTES,
        &Appended {
            signer,
            key_id,
            signature,
        },
    )
    .expect("it is short enough")
}

#[test]
fn openssl_accepts_what_is_signed_here() {
    for kind in KINDS {
        let owner = Owner::new(kind);
        for named in [false, true] {
            let signed = sign(BYTES, &owner.signer(), named).expect("the key can sign");
            let (bytes, appended) = split(&signed).unwrap().expect("it is signed");
            assert_eq!(bytes, BYTES);
            let name = if named { "CN=Releases,O=Example" } else { "" };
            assert_eq!(appended.signer, name.as_bytes());
            assert_eq!(appended.key_id.len(), if named { 20 } else { 0 });
            owner.write("signature", appended.signature);
            for (bytes, agrees) in [(BYTES, true), (b"other bytes", false)] {
                owner.write("bytes", bytes);
                let words = [
                    "cms",
                    "-verify",
                    "-binary",
                    "-inform",
                    "DER",
                    "-in",
                    "signature",
                ];
                let by = [
                    "-content",
                    "bytes",
                    "-certfile",
                    "cert.pem",
                    "-CAfile",
                    "cert.pem",
                ];
                let output = owner.openssl(&[&words[..], &by, &["-purpose", "any"]].concat());
                assert_eq!(output.status.success(), agrees, "{kind:?} {output:?}");
            }
            let certificates = owner.certificates();
            let verified = verify(&signed, &certificates).expect("it was signed by this key");
            assert_eq!(verified.bytes, BYTES);
            assert_eq!(verified.certificate.subject(), "CN=Releases,O=Example");
            let again = sign(&signed, &owner.signer(), named);
            assert_eq!(again, Err(TrustError::AlreadySigned));
        }
    }
}

#[test]
fn what_openssl_signs_is_accepted_here() {
    for (kind, hashes) in [
        (KINDS[0], &["sha256", "sha384", "sha512"][..]),
        (KINDS[1], &["sha256"]),
        (KINDS[2], &["sha256"]),
        (KINDS[3], &["sha384"]),
    ] {
        let owner = Owner::new(kind);
        let certificates = owner.certificates();
        for hash in hashes {
            for more in [&["-nocerts"][..], &["-keyid"], &[]] {
                let words = [&["-noattr", "-md", hash], more].concat();
                let signed = signed_by(&owner.signature(&words));
                let verified = verify(&signed, &certificates);
                let verified = verified.unwrap_or_else(|error| unreachable!("{words:?} {error}"));
                assert_eq!(verified.digest.to_lowercase().replace('-', ""), *hash);
            }
        }
    }
}

#[test]
fn other_messages_are_refused() {
    let owner = Owner::new(KINDS[0]);
    let certificates = owner.certificates();
    let refused = |signature: &[u8]| verify(&signed_by(signature), &certificates).err();
    let attributes = refused(&owner.signature(&["-md", "sha256"]));
    assert!(attributes.is_some_and(|error| error.to_string().contains("signed attributes")));
    let inside = refused(&owner.signature(&["-noattr", "-nodetach"]));
    assert!(inside.is_some_and(|error| error.to_string().contains("data of its own")));
    let weak = refused(&owner.signature(&["-noattr", "-md", "sha1"]));
    assert!(matches!(weak, Some(TrustError::Unsupported(_))), "{weak:?}");
    let mut longer = owner.signature(&["-noattr"]);
    longer.push(0);
    assert!(matches!(
        refused(&longer),
        Some(TrustError::Malformed { .. })
    ));
    assert!(matches!(refused(b""), Some(TrustError::Malformed { .. })));
    assert_eq!(
        verify(BYTES, &certificates).err(),
        Some(TrustError::NotSigned)
    );
}

#[test]
fn other_keys_are_refused() {
    let (owner, other) = (Owner::new(KINDS[0]), Owner::new(KINDS[0]));
    let signed = sign(BYTES, &owner.signer(), false).expect("the key can sign");
    let nobody = verify(&signed, &[]).err();
    assert!(
        matches!(nobody, Some(TrustError::NotTrusted(_))),
        "{nobody:?}"
    );
    // It has the same name and serial number, so that only its key tells.
    let namesake = verify(&signed, &other.certificates()).err();
    assert_eq!(namesake, Some(TrustError::Changed));
    let curve = Owner::new(KINDS[2]);
    let unlike = verify(&signed, &curve.certificates()).err();
    assert!(
        matches!(unlike, Some(TrustError::Unsupported(_))),
        "{unlike:?}"
    );

    let mut certificates = other.certificates();
    let mixed = Signer::load(&owner.read("key.pem"), certificates.remove(0));
    assert!(matches!(mixed, Err(TrustError::Key(_))));
    succeeds(&owner.openssl(&[
        "pkcs8",
        "-topk8",
        "-in",
        "key.pem",
        "-passout",
        "pass:x",
        "-out",
        "secret.pem",
    ]));
    let secret = Signer::load(&owner.read("secret.pem"), owner.certificates().remove(0));
    assert_eq!(
        secret.err(),
        Some(TrustError::Key("it is encrypted".to_owned()))
    );
    succeeds(&owner.openssl(&["rsa", "-in", "key.pem", "-traditional", "-out", "old.pem"]));
    assert!(Signer::load(&owner.read("old.pem"), owner.certificates().remove(0)).is_ok());
}

/// Whatever is changed or cut off: either it is refused, or the bytes are those that were signed.
#[test]
fn no_change_goes_unseen() {
    let owner = Owner::new(KINDS[2]);
    let certificates = owner.certificates();
    let signed = sign(BYTES, &owner.signer(), true).expect("the key can sign");
    for at in 0..signed.len() {
        for bit in 0..8 {
            let mut changed = signed.clone();
            changed[at] ^= 1 << bit;
            match verify(&changed, &certificates) {
                Ok(verified) => assert_eq!(verified.bytes, BYTES, "{at}.{bit}"),
                Err(error) if at < BYTES.len() => assert_eq!(error, TrustError::Changed),
                Err(_) => {}
            }
        }
        assert!(verify(&signed[..at], &certificates).is_err(), "{at}");
        assert!(
            verify(&signed[at..], &certificates).is_err() || at == 0,
            "{at}"
        );
    }
    let whole = [&signed[..], b"\n"].concat();
    assert_eq!(
        verify(&whole, &certificates).err(),
        Some(TrustError::NotSigned)
    );
}

#[test]
fn files_that_are_no_certificates_are_told() {
    let owner = Owner::new(KINDS[0]);
    succeeds(&owner.openssl(&[
        "x509", "-in", "cert.pem", "-outform", "DER", "-out", "cert.der",
    ]));
    let der = Certificate::load(&owner.read("cert.der")).expect("DER is known by its first byte");
    assert_eq!(der, owner.certificates());
    let both = [owner.read("cert.pem"), owner.read("cert.pem")].concat();
    assert_eq!(Certificate::load(&both).map(|all| all.len()), Ok(2));
    // Its first bytes say that more follows than there is.
    let cut_off = b"-----BEGIN CERTIFICATE-----\nMIIG\n-----END CERTIFICATE-----\n";
    for bytes in [&b""[..], b"text", b"\x30", cut_off, &owner.read("key.pem")] {
        let refused = Certificate::load(bytes);
        assert!(
            matches!(refused, Err(TrustError::Malformed { .. })),
            "{refused:?}"
        );
    }
    let ed25519 = Owner::new(&["-newkey", "ed25519"]);
    let refused = Certificate::load(&ed25519.read("cert.pem"));
    assert!(
        matches!(refused, Err(TrustError::Unsupported(_))),
        "{refused:?}"
    );
    assert!(Path::new(&owner.path("key.pem")).is_file());
}
