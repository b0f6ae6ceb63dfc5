//! Signed payloads: by the command line, and on real hypervisors, which pass over what is appended.

use std::path::Path;
use std::process::{Command, Output};

use anyhow::{Context, Result, ensure};
use object::{Object, ObjectSection};
use xen_tests::kept::keep;
use xen_tests::linux::built;
use xen_tests::payload::tagged;
use xen_tests::{Answer, Hypervisor, Machine, Script};

fn run(program: impl AsRef<Path>, folder: &Path, words: &str) -> Result<Output> {
    let mut command = Command::new(program.as_ref());
    Ok(command
        .args(words.split(' '))
        .current_dir(folder)
        .output()?)
}

/// A key of somebody, and its certificate.
fn owner(folder: &Path, name: &str) -> Result<()> {
    let words = format!(
        "req -x509 -nodes -newkey rsa:2048 -subj /O=Example/CN={name} -keyout {name}.key -out {name}.pem"
    );
    let made = run("openssl", folder, &words)?;
    ensure!(made.status.success(), "{made:?}");
    Ok(())
}

/// The payload with a structure of a version that there is none of.
fn broken(payload: &[u8]) -> Result<Vec<u8>> {
    let file = object::File::parse(payload)?;
    let functions = file.section_by_name(".livepatch.funcs");
    let range = functions.and_then(|section| section.file_range());
    let at = usize::try_from(range.context("it replaces something")?.0)?;
    let mut broken = payload.to_vec();
    broken[at + 32] = 9;
    keep(&broken);
    Ok(broken)
}

#[test]
fn a_signed_payload_is_known_and_taken() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let folder = folder.path();
    let invivo = built()?;
    let told = |words: &str, code: i32, said: &str| -> Result<()> {
        let output = run(&invivo, folder, words)?;
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        let text = String::from_utf8_lossy(&output.stdout) + &*error;
        ensure!(output.status.code() == Some(code), "{words}: {text}");
        ensure!(text.contains(said), "{words}: {text}");
        let hinted = code == 0 || error.contains("hint: ");
        ensure!(hinted, "{words}: {text}");
        Ok(())
    };
    owner(folder, "vendor")?;
    owner(folder, "other")?;
    for xen in Hypervisor::all()? {
        let payload = tagged(&xen, "signed", None, &[])?;
        std::fs::write(folder.join("fix"), &payload)?;
        let with = "--key vendor.key --cert vendor.pem -o signed";
        told(
            &format!("sign fix {with}"),
            0,
            "signed by CN=vendor,O=Example",
        )?;
        told(
            "verify signed --cert other.pem --cert vendor.pem",
            0,
            "was signed by CN=vendor",
        )?;
        told(
            "verify signed --cert vendor.pem --json",
            0,
            "invivo.signature/1",
        )?;
        told(
            "verify signed --cert other.pem",
            4,
            "signed by somebody else",
        )?;
        told("verify fix --cert vendor.pem", 4, "it is not signed")?;
        // Who made it is asked before anybody reads what is in it: of what is broken, too.
        std::fs::write(folder.join("broken"), broken(&payload)?)?;
        std::fs::write(folder.join("cut"), &payload[..200])?;
        told("apply broken", 1, "X28")?;
        for verb in ["apply broken", "replace broken", "xen upload cut"] {
            let words = format!("{verb} --cert vendor.pem");
            told(&words, 4, "it is not signed")?;
        }
        told(
            "verify signed --cert vendor.key",
            2,
            "vendor.key: the certificate",
        )?;
        told(
            "xen upload signed --cert other.pem",
            4,
            "signed by somebody else",
        )?;
        told(
            "xen upload signed --cert vendor.pem",
            6,
            "does not run on Xen",
        )?;
        told(&format!("sign signed {with}"), 1, "signed already")?;
        told(&format!("sign vendor.pem {with}"), 1, "neither a patch")?;
        told(
            "sign fix --key other.key --cert vendor.pem -o signed",
            2,
            "the certificate's",
        )?;
        let signed = std::fs::read(folder.join("signed"))?;
        keep(&signed);
        let mut changed = signed.clone();
        changed[payload.len() / 2] ^= 1;
        keep(&changed);
        std::fs::write(folder.join("signed"), changed)?;
        told(
            "verify signed --cert vendor.pem",
            4,
            "changed after it was signed",
        )?;

        let mut script = Script::new();
        let (uploaded, applied) = (script.upload("fix", &signed), script.apply("fix"));
        let version = script.extra_version();
        let run = Machine::of(&xen).run(&script)?;
        assert!(
            run[uploaded].is_done() && run[applied].is_done(),
            "{}",
            run.log
        );
        assert_eq!(run[version], Answer::Text("signed".to_owned()));
    }
    Ok(())
}
