//! Windows images on the command line: patch modules of older Windows, files that are patched on
//! disk, and their exchange, with the tool killed at every system call.

mod pair;

use std::fs;
use std::os::unix::fs::MetadataExt;

use anyhow::{Context, Result, ensure};
use invivo_format::hotp1::{Hook, HookKind};
use invivo_image::pe::PeImage;
use live_tests::exchanged::killed_at_every_system_call_of;
use live_tests::invivo::invivo;
use live_tests::workdir::in_workdir;
use pair::{Pair, text};
use windows_tests::wine::rust_library;
use windows_tests::{Build, build, by_hand};

#[test]
fn a_patch_module_is_built_shown_and_checked() -> Result<()> {
    in_workdir("hotp1", |dir| {
        let pair = Pair::new(dir)?;
        let out = dir.join("fix.dll");
        let ran = pair.build(&out, &["--format", "hotp1", "--hook", "triple"])?;
        ran.expect_code(0)?;
        ensure!(
            ran.stdout
                .contains("a patch module of older Windows; replaces 1 function of service.dll"),
            "{}",
            ran.told()
        );
        let module = out.display().to_string();
        let told = invivo(&["inspect", &module, "--json"])?;
        let told = told.expect_code(0)?.json("invivo.image/1")?;
        let patch = &told["hotp1"];
        ensure!(
            patch["target"] == "service.dll" && patch["broken"].is_null(),
            "{told}"
        );
        let kinds: Vec<_> = patch["hooks"]
            .as_array()
            .context("hooks")?
            .iter()
            .map(|hook| hook["kind"].clone())
            .collect();
        ensure!(kinds == ["VA64", "AMD64_IND", "X86_JMP2B"], "{kinds:?}");
        ensure!(told["cold"].is_null(), "{told}");
        let marked = PeImage::parse(fs::read(&out)?.into())?;
        let mark = marked.debug.iter().find(|entry| entry.kind == 10);
        let mark = mark.context("no mark")?;
        ensure!(marked.word(mark.at) == Some(0xd201_0001), "a hot patch");
        ensure!(marked.code_view().is_some(), "its own debug data");
        let base = text(&pair.base);
        let checked = invivo(&["check", &module, "--base", &base, "--json"])?;
        let checked = checked.expect_code(0)?.json("invivo.check/1")?;
        ensure!(checked["sound"] == true, "{checked}");
        // For another build it is not.
        let fixed = text(&pair.fixed);
        let other = invivo(&["check", &module, "--base", &fixed])?;
        other.expect_code(1)?;
        ensure!(other.stdout.contains("B14"), "{}", other.told());
        // ELF files are no such images.
        let program = std::env::current_exe()?.display().to_string();
        let ran = invivo(&[
            "build", &program, &program, "-o", &module, "--format", "hotp1",
        ])?;
        ran.expect_failure(2, &["Windows images only"])?;
        Ok(())
    })
}

/// Types of hooks that no system implements, those of IA64, and one that nobody knows: shown by name and
/// number, and not sound.
#[test]
fn hooks_that_are_never_applied_are_shown() -> Result<()> {
    in_workdir("hotp1-unknown", |dir| {
        let base = build(dir, "base", "places", &Build::base())?;
        let [case, ..] = by_hand::cases(&base);
        let known = [
            (0, "None"),
            (3, "PCREL32"),
            (32, "IA64_BRL"),
            (33, "IA64_BR"),
        ];
        for (code, name) in known.into_iter().chain([(77, "77")]) {
            let kind = HookKind::of(code);
            let hook = Hook {
                kind,
                ..case.hook.clone()
            };
            let module = dir.join("patch.dll");
            fs::write(&module, by_hand::module(&base, &[], &[hook], None).file())?;
            let module = text(&module);
            let shown = invivo(&["inspect", &module])?;
            shown.expect_code(0)?;
            let told = invivo(&["inspect", &module, "--json"])?;
            let told = told.expect_code(0)?.json("invivo.image/1")?;
            let hook = &told["hotp1"]["hooks"][0];
            ensure!(hook["kind"] == name, "{code}: {told}");
            ensure!(shown.stdout.contains(name), "{code}: {}", shown.told());
            let checked = invivo(&["check", &module])?;
            checked.expect_code(1)?;
            let finding = format!("({code}), not one for x86-64");
            ensure!(
                checked.stdout.contains("B08") && checked.stdout.contains(&finding),
                "{}",
                checked.told()
            );
        }
        Ok(())
    })
}

/// The same for x86, whose fixed build needs no list of functions.
#[test]
fn patches_for_x86_are_built_shown_and_checked() -> Result<()> {
    in_workdir("hotp1-x86", |dir| {
        let base = build(dir, "base", "service", &Build::base().narrow())?;
        let fixed = build(dir, "fixed", "service", &Build::fixed("").narrow())?;
        let (base, fixed) = (base.path, fixed.path);
        let pair = Pair { base, fixed };
        let [base, fixed] = [&pair.base, &pair.fixed].map(text);
        let told = invivo(&["diff", &base, &fixed, "--json"])?;
        let told = told.expect_code(0)?.json("invivo.diff/1")?;
        ensure!(told["hot"][0]["name"] == "_answer", "{told}");
        let out = dir.join("fix.dll");
        pair.build(&out, &["--format", "hotp1"])?.expect_code(0)?;
        let module = text(&out);
        let told = invivo(&["inspect", &module, "--json"])?;
        let told = told.expect_code(0)?.json("invivo.image/1")?;
        ensure!(told["machine"] == "x86", "{told}");
        let kinds = told["hotp1"]["hooks"].as_array().context("hooks")?;
        let kinds: Vec<_> = kinds.iter().map(|hook| hook["kind"].clone()).collect();
        ensure!(kinds == ["X86_JMP", "X86_JMP2B"], "{kinds:?}");
        let checked = invivo(&["check", &module, "--base", &base])?;
        checked.expect_code(0)?;
        let cold = dir.join("service.cold");
        pair.build(&cold, &["--format", "cold"])?.expect_code(0)?;
        let checked = invivo(&["check", &text(&cold), "--base", &base])?;
        checked.expect_code(0)?;
        // For modern Windows it does need one.
        let ran = pair.build(&out, &[])?;
        ran.expect_code(1)?;
        ensure!(
            ran.told().contains("-fms-secure-hotpatch-functions-list"),
            "{}",
            ran.told()
        );
        Ok(())
    })
}

#[test]
fn a_file_is_patched_on_disk_and_comes_back() -> Result<()> {
    in_workdir("cold", |dir| {
        let pair = Pair::new(dir)?;
        let out = dir.join("service.cold");
        let words = [
            "--format",
            "cold",
            "--label",
            "CVE-2024-0001",
            "--name",
            "answer",
        ];
        let ran = pair.build(&out, &words)?;
        ran.expect_code(0)?;
        ensure!(
            ran.stdout
                .contains("for service.dll on disk; replaces 1 function"),
            "{}",
            ran.told()
        );
        let first = fs::read(&out)?;
        pair.build(&out, &words)?.expect_code(0)?;
        ensure!(
            fs::read(&out)? == first,
            "the same input gives the same bytes"
        );

        let (image, base) = (text(&out), text(&pair.base));
        let told = invivo(&["inspect", &image, "--json"])?;
        let told = told.expect_code(0)?.json("invivo.image/1")?;
        let cold = &told["cold"];
        ensure!(
            cold["broken"].is_null() && cold["identity"]["name"] == "answer",
            "{told}"
        );
        ensure!(cold["identity"]["labels"][0] == "CVE-2024-0001", "{told}");
        ensure!(told["checksum_is_right"] == true, "{told}");
        let shown = invivo(&["inspect", &image])?;
        ensure!(shown.stdout.contains("patched on disk"), "{}", shown.told());
        let checked = invivo(&["check", &image, "--base", &base])?;
        ensure!(
            checked
                .expect_code(0)?
                .stdout
                .contains("sound, patched on disk"),
            "{}",
            checked.told()
        );
        let told = invivo(&["explain", "B17"])?;
        ensure!(
            told.expect_code(0)?.stdout.contains("patched on disk"),
            "{}",
            told.told()
        );
        // Another file than its base, and one that was changed on its way.
        let fixed = text(&pair.fixed);
        let other = invivo(&["check", &image, "--base", &fixed])?;
        ensure!(
            other.expect_code(1)?.stdout.contains("B17"),
            "{}",
            other.told()
        );
        let damaged = dir.join("damaged.dll");
        let mut bytes = first.clone();
        bytes[0x60] ^= 1;
        fs::write(&damaged, bytes)?;
        let ran = invivo(&["install", &text(&damaged), &base])?;
        ran.expect_failure(1, &["damaged"])?;

        let (old, before) = (fs::read(&pair.base)?, pair.base.metadata()?);
        let done = invivo(&["install", &image, &base, "--json"])?;
        let done = done.expect_code(0)?.json("invivo.exchange/1")?;
        ensure!(
            done["state"] == "installed" && done["name"] == "answer",
            "{done}"
        );
        ensure!(fs::read(&pair.base)? == first);
        let again = invivo(&["install", &image, &base, "--json"])?;
        let again = again.expect_code(0)?.json("invivo.exchange/1")?;
        ensure!(again["state"] == "installed already", "{again}");
        let back = invivo(&["uninstall", &base, "--json"])?;
        let back = back.expect_code(0)?.json("invivo.exchange/1")?;
        ensure!(back["state"] == "uninstalled", "{back}");
        let after = pair.base.metadata()?;
        ensure!(fs::read(&pair.base)? == old && before.ino() == after.ino());
        let ran = invivo(&["uninstall", &base])?;
        ran.expect_failure(1, &["no final image"])?;
        let ran = invivo(&["install", &image, &fixed])?;
        ran.expect_failure(1, &["is not the file that this was made for"])?;
        Ok(())
    })
}

/// What the fixed build was compiled for is told in a list, in a file or by its object files, and
/// held against what changed.
#[test]
fn lists_of_functions_are_held_against_what_changed() -> Result<()> {
    in_workdir("lists", |dir| {
        let pair = Pair::new(dir)?;
        let (out, list) = (
            dir.join("service_hotpatch.dll"),
            text(dir.join("functions")),
        );
        let object = text(pair.fixed.with_file_name("service.obj"));
        let words = ["--emit-functions-file", &list, "--object", &object];
        pair.build(&out, &words)?.expect_code(0)?;
        ensure!(fs::read_to_string(&list)? == "answer\nrefuse\n");
        pair.build(&out, &["--functions-file", &list])?
            .expect_code(0)?;
        fs::remove_file(&out)?;
        let surplus = ["--functions-file", &list, "--functions-list", "halve"];
        let surplus = pair.build(&out, &surplus)?;
        surplus.expect_failure(1, &["surplus: halve is the same in both builds"])?;
        ensure!(!surplus.stderr.contains("missing:"), "{}", surplus.told());
        let missing = pair.build(&out, &["--functions-list", "halve"])?;
        missing.expect_failure(1, &["missing: answer", "--emit-functions-file"])?;
        let no_object = pair.build(&out, &["--object", &text(&pair.base)])?;
        no_object.expect_failure(2, &["service.dll"])?;
        ensure!(!out.exists(), "what is refused writes nothing");
        Ok(())
    })
}

/// A patch module can be made part of the file, too, whoever made it.
#[test]
fn a_patch_module_becomes_a_cold_patch() -> Result<()> {
    in_workdir("cold-module", |dir| {
        let pair = Pair::new(dir)?;
        let (module, out) = (dir.join("fix.dll"), dir.join("service.cold"));
        pair.build(&module, &["--format", "hotp1"])?
            .expect_code(0)?;
        let [base, fix, image] = [&pair.base, &module, &out].map(text);
        let ran = invivo(&["build", &base, &fix, "-o", &image, "--format", "cold"])?;
        ran.expect_code(0)?;
        let checked = invivo(&["check", &image, "--base", &base])?;
        checked.expect_code(0)?;
        let other = text(&pair.fixed);
        let ran = invivo(&["build", &other, &fix, "-o", &image, "--format", "cold"])?;
        ran.expect_failure(1, &["the patch module breaks"])?;
        Ok(())
    })
}

#[test]
fn killed_at_every_system_call() -> Result<()> {
    in_workdir("cold-killed", |dir| {
        let pair = Pair::new(dir)?;
        let image = dir.join("service.cold");
        pair.build(&image, &["--format", "cold"])?.expect_code(0)?;
        killed_at_every_system_call_of(&image, &pair.base)
    })
}

/// A private function of Rust is known to its compiler by a name that no PDB file has.
#[test]
fn a_private_function_of_rust_is_named_to_its_compiler() -> Result<()> {
    in_workdir("private", |dir| {
        let base = rust_library(dir, "base", "", "")?;
        let plain = rust_library(dir, "plain", "private", "")?;
        let list = dir.join("functions");
        let out = text(dir.join("rusty_hotpatch.dll"));
        let [b, f] = [&base.path, &plain.path].map(text);
        let emit = ["--emit-functions-file", &text(&list)].map(str::to_owned);
        let emit = [&emit[0][..], &emit[1]];
        let ran = invivo(&[&["build", &b, &f, "-o", &out][..], &emit].concat())?;
        ran.expect_failure(1, &["rusty::twice is private", "--object"])?;
        ensure!(fs::read_to_string(&list)? == "rusty::twice\n");
        let object = text(plain.path.with_extension("obj"));
        let words = ["build", &b, &f, "-o", &out, "--object", &object];
        let ran = invivo(&[&words[..], &emit].concat())?;
        ran.expect_failure(1, &["reaches the variable"])?;
        let names = fs::read_to_string(&list)?;
        ensure!(
            names.starts_with("_RNv") || names.starts_with("_ZN"),
            "{names}"
        );
        // Built again with what was written, it becomes a patch; who made the list is believed.
        let fixed = rust_library(dir, "fixed", "private", names.trim())?;
        let [f, object] = [fixed.path.clone(), fixed.path.with_extension("obj")].map(text);
        let list = text(&list);
        for more in [["--object", &object], ["--functions-file", &list]] {
            let ran = invivo(&[&["build", &b, &f, "-o", &out][..], &more].concat())?;
            ran.expect_code(0)?;
            ensure!(ran.stdout.contains("replaces 1 function"), "{}", ran.told());
        }
        Ok(())
    })
}

/// So is one of C++; one of C has a single name.
#[test]
fn private_functions_of_c_and_cpp_are_named_to_their_compiler() -> Result<()> {
    in_workdir("privates", |dir| {
        let base = build(dir, "base", "privates", &Build::base())?;
        let plain = build(dir, "plain", "privates", &Build::fixed(""))?;
        let list = text(dir.join("functions"));
        let out = text(dir.join("privates_hotpatch.dll"));
        let [b, f] = [&base.path, &plain.path].map(text);
        let emit = ["build", &b, &f, "-o", &out, "--emit-functions-file", &list];
        invivo(&emit)?.expect_failure(1, &["inner::twice is private", "--object"])?;
        ensure!(fs::read_to_string(&list)? == "inner::twice\nthrice\n");
        let objects = ["inner.obj", "outer.obj"].map(|name| text(dir.join("plain").join(name)));
        let objects = ["--object", &objects[0], "--object", &objects[1]];
        let ran = invivo(&[&emit[..], &objects].concat())?;
        ran.expect_failure(1, &["reaches the variable"])?;
        let names = fs::read_to_string(&list)?;
        let lines: Vec<&str> = names.lines().collect();
        ensure!(lines.len() == 2 && lines[1] == "thrice", "{names}");
        ensure!(lines[0].starts_with("?twice@inner@@"), "{names}");
        let fixed = build(dir, "fixed", "privates", &Build::fixed(&lines.join(",")))?;
        let f = text(&fixed.path);
        let ran = invivo(&["build", &b, &f, "-o", &out, "--functions-file", &list])?;
        ran.expect_code(0)?;
        ensure!(
            ran.stdout.contains("replaces 2 functions"),
            "{}",
            ran.told()
        );
        Ok(())
    })
}

/// A final image is shown and held against the rules; what has no PDB file is shown and not compared.
#[test]
fn a_final_image_is_shown_and_checked() -> Result<()> {
    in_workdir("final", |dir| {
        let pair = Pair::new(dir)?;
        let out = dir.join("service_hotpatch.dll");
        pair.build(&out, &[])?.expect_code(0)?;
        let [out, base, fixed] = [&out, &pair.base, &pair.fixed].map(text);
        let told = invivo(&["inspect", &out, "--json"])?;
        let told = told.expect_code(0)?.json("invivo.image/1")?;
        let metadata = &told["hot_patch"];
        ensure!(
            metadata["broken"].is_null() && metadata["sequence"] == 1,
            "{told}"
        );
        let chunks = metadata["bases"][0]["chunks"]
            .as_array()
            .context("chunks")?;
        let forward = chunks
            .iter()
            .filter(|chunk| chunk["direction"] == "forward");
        ensure!(forward.count() == 1, "{told}");
        let checked = invivo(&["check", &out, "--base", &base, "--json"])?;
        let checked = checked.expect_code(0)?.json("invivo.check/1")?;
        ensure!(checked["sound"] == true, "{checked}");
        let other = invivo(&["check", &out, "--base", &fixed])?;
        other.expect_code(1)?;
        ensure!(other.stdout.contains("A28"), "{}", other.told());

        let audited = invivo(&["audit", &base, "--name", "answer", "--json"])?;
        let audited = audited.expect_code(0)?.json("invivo.audit/1")?;
        ensure!(audited["functions"][0]["name"] == "answer", "{audited}");
        ensure!(audited["unfit"]["count"] == 0, "{audited}");

        let bare = dir.join("bare");
        fs::create_dir(&bare)?;
        let alone = text(bare.join("service.dll"));
        fs::copy(&pair.base, &alone)?;
        let told = invivo(&["inspect", &alone, "--json"])?;
        let told = told.expect_code(0)?.json("invivo.image/1")?;
        ensure!(
            told["exports"]
                .as_array()
                .is_some_and(|all| !all.is_empty()),
            "{told}"
        );
        let remedy = ["service.pdb", "keep the PDB file beside the image"];
        invivo(&["diff", &alone, &fixed])?.expect_failure(2, &remedy)?;
        invivo(&["audit", &alone])?.expect_failure(2, &remedy)?;
        invivo(&["build", &base, &alone, "-o", &out])?.expect_failure(2, &remedy)?;
        // That of another build is none.
        fs::copy(pair.fixed.with_extension("pdb"), bare.join("service.pdb"))?;
        let other = ["belongs to another build"];
        invivo(&["diff", &alone, &fixed])?.expect_failure(1, &other)?;
        Ok(())
    })
}

/// Images for ARM64 are shown, compared, and made final images; nothing of them is applied.
#[test]
fn images_for_arm64_become_final_images() -> Result<()> {
    in_workdir("arm64", |dir| {
        let base = build(dir, "base", "service", &Build::base().arm64())?.path;
        let fixed = build(dir, "fixed", "service", &Build::fixed("answer").arm64())?.path;
        let [base, fixed, out] = [&base, &fixed, &dir.join("out.dll")].map(text);
        let told = invivo(&["inspect", &base, "--json"])?;
        let told = told.expect_code(0)?.json("invivo.image/1")?;
        ensure!(told["machine"] == "ARM64", "{told}");
        let same = invivo(&["diff", &base, &base, "--json"])?;
        let same = same.expect_code(0)?.json("invivo.diff/1")?;
        ensure!(same["hot"].as_array().is_some_and(Vec::is_empty), "{same}");
        let told = invivo(&["diff", &base, &fixed, "--json"])?;
        let told = told.json("invivo.diff/1")?;
        ensure!(
            told["hot"].as_array().is_some_and(|hot| hot.len() == 1),
            "{told}"
        );
        ensure!(told["hot"][0]["name"] == "answer", "{told}");
        invivo(&["build", &base, &fixed, "-o", &out])?.expect_code(0)?;
        invivo(&["check", &out, "--base", &base])?.expect_code(0)?;
        let told = invivo(&["inspect", &out, "--json"])?;
        let told = told.expect_code(0)?.json("invivo.image/1")?;
        ensure!(told["machine"] == "ARM64", "{told}");
        let audited = invivo(&["audit", &base, "--json"])?;
        let audited = audited.expect_code(0)?.json("invivo.audit/1")?;
        ensure!(audited["unfit"]["count"] == 0, "{audited}");
        // Older Windows was never there.
        for format in ["hotp1", "cold"] {
            let ran = invivo(&["build", &base, &fixed, "-o", &out, "--format", format])?;
            ran.expect_failure(1, &["ARM64"])?;
        }
        Ok(())
    })
}
