//! How functions of Windows images are hooked, on the command line: which shape is chosen, asked for and
//! refused.

mod pair;

use std::path::Path;

use anyhow::{Result, ensure};
use live_tests::invivo::invivo;
use live_tests::workdir::in_workdir;
use pair::{Pair, kinds, text};
use windows_tests::Build;

/// The types of the hooks of one function, in the order in which they are written.
type Types = &'static [&'static str];
const SHORT: Types = &["X86_JMP", "X86_JMP2B"];
const TRIPLE: Types = &["VA64", "AMD64_IND", "X86_JMP2B"];
const INDIRECT: Types = &["VA64", "AMD64_IND"];
const JUMP: Types = &["X86_JMP"];

/// Builds with each hook, or the one that is chosen, and holds what is shown of it against its types, of which
/// each function has as many.
fn each_hook(pair: &Pair, dir: &Path, wanted: &[(Option<&str>, Types)]) -> Result<()> {
    let base = text(&pair.base);
    for (hook, types) in wanted {
        let out = dir.join("hooked.dll");
        let mut words = vec!["--format", "hotp1"];
        words.extend(hook.iter().flat_map(|hook| ["--hook", *hook]));
        pair.build(&out, &words)?.expect_code(0)?;
        let found = kinds(&out)?;
        let alike = found.chunks(types.len()).all(|one| one == *types);
        ensure!(!found.is_empty() && alike, "{hook:?}: {found:?}");
        // For a person they are named, too, and the module keeps all rules.
        let shown = invivo(&["inspect", &text(&out)])?;
        shown.expect_code(0)?;
        for one in *types {
            ensure!(shown.stdout.contains(one), "{hook:?}: {}", shown.told());
        }
        invivo(&["check", &text(&out), "--base", &base])?.expect_code(0)?;
    }
    Ok(())
}

#[test]
fn each_hook_for_x86_64_is_chosen_and_shown() -> Result<()> {
    in_workdir("hooks-x86-64", |dir| {
        let pair = Pair::new(dir)?;
        let wanted = [
            (None, SHORT),
            (Some("short"), SHORT),
            (Some("triple"), TRIPLE),
            (Some("indirect"), INDIRECT),
            (Some("jump"), JUMP),
        ];
        each_hook(&pair, dir, &wanted)?;
        // One instruction in the middle, where the begin has no room.
        let plain = Build::default().with("-Os -falign-functions=1");
        let fixed = Build::fixed("digits,both").with("-Os").roomy();
        let tight = Pair::of(dir, "begins", [&plain, &fixed])?;
        each_hook(&tight, dir, &[(None, JUMP), (Some("middle"), JUMP)])?;
        // What has no room says so, with what would give it some.
        let out = dir.join("none.dll");
        let ran = tight.build(&out, &["--format", "hotp1", "--hook", "triple"])?;
        let remedy = ["cannot be hooked: triple needs", "/functionpadmin:16"];
        ran.expect_failure(1, &remedy)?;
        ensure!(!out.exists(), "what is refused writes nothing");
        Ok(())
    })
}

#[test]
fn each_hook_for_x86_is_chosen_and_shown_or_refused() -> Result<()> {
    in_workdir("hooks-x86", |dir| {
        let plain = Build::default().narrow().with("-mno-sse");
        let semi = plain
            .clone()
            .with("-fno-omit-frame-pointer -falign-functions=64");
        let pair = Pair::of(dir, "elder", [&semi, &semi.clone().with("-DFIXED")])?;
        let wanted = [(None, SHORT), (Some("short"), SHORT), (Some("jump"), JUMP)];
        each_hook(&pair, dir, &wanted)?;
        let tight = plain.with("-Os -falign-functions=1");
        let tight = Pair::of(dir, "begins", [&tight, &tight.clone().with("-DFIXED")])?;
        each_hook(&tight, dir, &[(None, JUMP), (Some("middle"), JUMP)])?;
        // Code of 32 bits does not jump through a place that it names by a distance.
        for format in ["hotp1", "cold"] {
            for hook in ["triple", "indirect"] {
                let out = dir.join("none.dll");
                let ran = pair.build(&out, &["--format", format, "--hook", hook])?;
                let told = format!("hooks of the shape {hook} are not for x86:");
                let remedy = "let the hook be chosen, or take one of short, jump, middle";
                ran.expect_failure(1, &[told.as_str(), remedy])?;
                ensure!(!ran.stderr.contains("functionpadmin"), "{}", ran.told());
                ensure!(!out.exists(), "what is refused writes nothing");
            }
        }
        Ok(())
    })
}
