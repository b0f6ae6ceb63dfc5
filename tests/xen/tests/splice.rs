//! Payloads that redirect calls and pointers instead of jumping, on real hypervisors.

use anyhow::{Context, Result, bail};
use invivo_format::livepatch::{
    Expectation, Finding, Hypervisor as Symbols, New, Options, Payload, Rule, Splice, Spliced,
    XenVersion, bypassed, predict, read, redirections, splice,
};
use xen_tests::kept::write;
use xen_tests::payload::{compile, size_of, tagged};
use xen_tests::{Answer, End, Errno, Hypervisor, Machine, Run, Script, State};

const KEY: &str = "common/keyhandler.c#do_toggle_alt_key";

/// A payload that was compiled by hand, and what became of the only function that it replaces.
fn redirected(xen: &Hypervisor, file: &[u8], what: Splice) -> Result<(Payload, Spliced)> {
    let symbols = std::fs::read(xen.symbols())?;
    let symbols = Symbols::parse(&symbols).map_err(anyhow::Error::msg)?;
    let mut payload = read(file)?.payload;
    let mut told = splice(&mut payload, &symbols, &[what])?;
    let one = told.pop().filter(|_| told.is_empty());
    Ok((payload, one.context("one function")?))
}

fn foreseen(xen: &Hypervisor, file: &[u8]) -> Result<Vec<Finding>> {
    let symbols = std::fs::read(xen.symbols())?;
    let symbols = Symbols::parse(&symbols).map_err(anyhow::Error::msg)?;
    let version: XenVersion = xen.version.parse().map_err(anyhow::Error::msg)?;
    let options = Options {
        version,
        xen: Some(&symbols),
        running: None,
        loaded: &[],
    };
    Ok(predict(file, &options).findings)
}

/// The program that answers to the key.
fn toggle(xen: &Hypervisor) -> Result<Vec<u8>> {
    let id = xen.build_id()?;
    let symbols = std::fs::read(xen.symbols())?;
    let symbols = Symbols::parse(&symbols).map_err(anyhow::Error::msg)?;
    let size = symbols
        .find(KEY.as_bytes())
        .context("the key's function")?
        .size;
    let size = format!("-DOLD_SIZE={size}");
    let words = ["-fcf-protection=branch", "-mmanual-endbr", &size];
    compile("toggle.c", &id, &id, &words)
}

fn has_jumps(payload: &Payload) -> bool {
    let mut functions = payload.functions.iter();
    functions.any(|function| matches!(function.new, New::Code { .. }))
}

fn finished(run: &Run) {
    assert_eq!(run.end, End::Finished, "{}", run.log);
}

#[test]
fn calls_lead_to_new_code_and_back_without_a_jump() -> Result<()> {
    for xen in Hypervisor::all()? {
        let (payload, told) =
            redirected(&xen, &tagged(&xen, "fixed", None, &[])?, Splice::Callers)?;
        // `do_xen_version`, its compat twin or second call, the console after a crash, kexec; and at boot.
        let calls = 4;
        assert_eq!(
            (told.calls, told.pointers, told.dead),
            (calls, 0, 2),
            "{told:?}"
        );
        assert_eq!(told.jump, None);
        assert!(!has_jumps(&payload));
        assert_eq!(payload.functions.len(), calls);
        let file = write(&payload)?.file;
        assert_eq!(foreseen(&xen, &file)?, []);
        let again = read(&file)?.payload;
        assert_eq!(redirections(&again).len(), calls);
        assert_eq!(bypassed(&again), ["xen_extra_version"].into());
        let plain = tagged(&xen, "plain", None, &[])?;
        for processors in [1, 2] {
            let mut script = Script::new();
            let before = script.extra_version();
            let mut done = vec![script.upload("fix", &file), script.apply("fix")];
            let during = script.extra_version();
            done.push(script.revert("fix"));
            let between = script.extra_version();
            // Nothing of it is writable: it can be applied again. Others take its place at one moment.
            done.push(script.apply("fix"));
            let again = script.extra_version();
            done.push(script.upload("plain", &plain));
            done.push(script.replace("plain"));
            let replaced = script.extra_version();
            done.push(script.replace("fix"));
            let back = script.extra_version();
            done.push(script.revert("fix"));
            let after = script.extra_version();
            done.push(script.unload("fix"));
            let last = script.extra_version();
            let run = Machine::of(&xen).processors(processors).run(&script)?;
            finished(&run);
            for step in done {
                assert!(run[step].is_done(), "{:?}\n{}", run[step], run.log);
            }
            let text = |text: &str| Answer::Text(text.to_owned());
            for step in [during, again, back] {
                assert_eq!(run[step], text("fixed"), "{}", run.log);
            }
            assert_eq!(run[replaced], text("plain"));
            for step in [between, after, last] {
                assert_eq!(run[step], run[before]);
            }
        }
    }
    Ok(())
}

#[test]
fn a_pointer_of_a_table_leads_to_new_code_and_back() -> Result<()> {
    for xen in Hypervisor::all()? {
        let (mut payload, told) = redirected(&xen, &toggle(&xen)?, Splice::Tables)?;
        assert_eq!((told.calls, told.pointers), (0, 1), "{told:?}");
        // Pointers are copied.
        let why = told.jump.context("the jump stays")?;
        assert!(why.contains("key_table"), "{why}");
        let whole = write(&payload)?.file;
        // The same without it: then the pointer alone leads there.
        payload
            .functions
            .retain(|function| !matches!(function.new, New::Code { .. }));
        let alone = write(&payload)?.file;
        for file in [whole, alone] {
            assert_eq!(foreseen(&xen, &file)?, []);
            let mut script = Script::new();
            script.key('A');
            let mut done = vec![script.upload("keys", &file), script.apply("keys")];
            script.key('A');
            done.push(script.revert("keys"));
            script.key('A');
            done.push(script.apply("keys"));
            script.key('A');
            done.push(script.revert("keys"));
            done.push(script.unload("keys"));
            script.key('A');
            let run = Machine::of(&xen).run(&script)?;
            finished(&run);
            for step in done {
                assert!(run[step].is_done(), "{:?}\n{}", run[step], run.log);
            }
            let seen = run.log.lines().filter_map(|line| {
                let words = [("toggled A", true), ("pressed -> using", false)];
                words
                    .into_iter()
                    .find(|(word, _)| line.contains(word))
                    .map(|(_, new)| new)
            });
            let seen: Vec<bool> = seen.collect();
            assert_eq!(seen, [false, true, false, true, false], "{}", run.log);
        }
    }
    Ok(())
}

/// Where a place is not as expected, nothing of it is applied, and that is known before.
#[test]
fn other_code_than_expected_is_refused_by_xen() -> Result<()> {
    for xen in Hypervisor::all()? {
        let file = tagged(&xen, "fixed", None, &[])?;
        for (file, what) in [(file, Splice::Callers), (toggle(&xen)?, Splice::Tables)] {
            let (mut payload, _) = redirected(&xen, &file, what)?;
            let looked = payload.functions.last_mut().context("what is looked at")?;
            let expected = looked.expectation.take().context("its bytes")?;
            let mut bytes = expected.bytes().to_vec();
            bytes[1] ^= 1;
            looked.expectation = Expectation::new(bytes);
            let file = write(&payload)?.file;
            let rules: Vec<Rule> = foreseen(&xen, &file)?.iter().map(|one| one.rule).collect();
            assert_eq!(rules, [Rule::X47]);
            let mut script = Script::new();
            let before = script.extra_version();
            let uploaded = script.upload("fix", &file);
            let applied = script.apply("fix");
            script.key('A');
            let after = script.extra_version();
            let run = Machine::of(&xen).run(&script)?;
            finished(&run);
            assert!(run[uploaded].is_done());
            let is_refused = matches!(
                run[applied],
                Answer::Refused(Errno::EINVAL) | Answer::Failed(Errno::EINVAL, State::Checked)
            );
            assert!(is_refused, "{:?}", run[applied]);
            assert_eq!(run[after], run[before]);
            assert!(!run.log.contains("toggled"), "{}", run.log);
        }
    }
    Ok(())
}

/// The payload of `file`, if it replaced another function: why it is not spliced, or why the jump stays.
fn why(xen: &Symbols<'_>, file: &[u8], name: &str, what: &[Splice]) -> Result<String> {
    let mut payload = read(file)?.payload;
    let function = payload.functions.first_mut().context("a function")?;
    name.clone_into(&mut function.name);
    let known = xen
        .find(name.as_bytes())
        .with_context(|| format!("Xen has {name}"))?;
    function.old_size = u32::try_from(known.size)?;
    let before = payload.clone();
    match splice(&mut payload, xen, what) {
        Ok(told) => told[0].jump.clone().context("the jump is left out"),
        Err(error) => {
            if payload != before {
                bail!("a refused payload is changed");
            }
            Ok(error.why)
        }
    }
}

#[test]
fn what_is_not_proved_keeps_the_jump_or_is_refused() -> Result<()> {
    use Splice::{Callers, Tables};
    for xen in Hypervisor::all()? {
        let file = tagged(&xen, "fixed", None, &[])?;
        let symbols = std::fs::read(xen.symbols())?;
        let symbols = Symbols::parse(&symbols).map_err(anyhow::Error::msg)?;
        for (name, what, words) in [
            // Only a pointer leads to it, and its new code here begins without `ENDBR64`.
            (KEY, &[Callers][..], "key_table"),
            (KEY, &[Tables], "ENDBR64"),
            ("xen_extra_version", &[Tables], "calls it"),
            ("_start", &[Callers], "a part of Xen begins"),
            // Called at entries, by everybody, by NMIs, with its address taken.
            ("printk", &[Callers], "places lead"),
            ("do_nmi", &[Callers], "entry"),
        ] {
            let why = why(&symbols, &file, name, what)?;
            assert!(why.contains(words), "{} {name}: {why}", xen.version);
        }
        // On top of another payload, whose code may lead to the old one.
        let id = xen.build_id()?;
        let on_top = tagged(&xen, "second", Some(&[7; 20]), &[])?;
        let why = why(&symbols, &on_top, "xen_extra_version", &[Callers])?;
        assert!(why.contains("applied below"), "{why}");
        // For another hypervisor, or twice.
        let size = size_of(&xen, "xen_extra_version")?;
        let words = ["-DTAG=x", "-DTEXT=\"x\"", &format!("-DOLD_SIZE={size}")];
        let other = compile("extra_version.c", &[7; 20], &id, &words)?;
        let mut other = read(&other)?.payload;
        let error = splice(&mut other, &symbols, &[Callers])
            .err()
            .context("another Xen")?;
        assert!(error.to_string().contains("another hypervisor"), "{error}");
        let (mut twice, _) = redirected(&xen, &file, Callers)?;
        assert!(splice(&mut twice, &symbols, &[Callers]).is_err());
        let map = std::fs::read(xen.map())?;
        let map = Symbols::parse(&map).map_err(anyhow::Error::msg)?;
        assert!(splice(&mut read(&file)?.payload, &map, &[Callers]).is_err());
    }
    Ok(())
}

/// A part of a function, `ud2` alone: there is no room for a jump, and only calls lead there.
#[test]
fn a_function_without_room_for_a_jump_is_replaced() -> Result<()> {
    const PART: &str = "drivers/char/ehci-dbgp.c#_ehci_dbgp_flush.part.0";
    for xen in Hypervisor::all()? {
        let id = xen.build_id()?;
        let symbols = std::fs::read(xen.symbols())?;
        let symbols = Symbols::parse(&symbols).map_err(anyhow::Error::msg)?;
        let part = symbols.find(PART.as_bytes()).context("the part")?;
        assert_eq!(symbols.code(part), Some(&[0x0f, 0x0b][..]));
        let words = [&format!("-DNAME=\"{PART}\"")[..], "-DOLD_SIZE=2"];
        let file = compile("part.c", &id, &id, &words)?;
        // With a jump Xen refuses it, as is known before.
        let rules: Vec<Rule> = foreseen(&xen, &file)?.iter().map(|one| one.rule).collect();
        assert_eq!(rules, [Rule::X33]);
        let (payload, told) = redirected(&xen, &file, Splice::Callers)?;
        assert_eq!((told.calls, told.jump), (2, None));
        let spliced = write(&payload)?.file;
        assert_eq!(foreseen(&xen, &spliced)?, []);
        // What is where one of the calls leads, before and while it is live.
        let place = redirections(&payload)[0].place;
        let holder = payload.symbols[place.symbol as usize].name.clone();
        let offset = format!("-DOFFSET={}", place.addend - 1);
        let looks = [("before", id.clone()), ("while", read(&spliced)?.id.0)];
        let mut script = Script::new();
        let refused = script.upload("jump", &file);
        let mut done = Vec::new();
        for (name, below) in looks {
            if name == "while" {
                done.push(script.upload("part", &spliced));
                done.push(script.apply("part"));
            }
            let look = compile("part.c", &id, &below, &["-DLOOK", &offset])?;
            let mut look = read(&look)?.payload;
            let symbol = look.symbols.iter_mut().find(|one| one.name == "place");
            symbol.context("the place")?.name.clone_from(&holder);
            done.push(script.upload(name, &write(&look)?.file));
            done.push(script.apply(name));
            done.push(script.revert(name));
            done.push(script.unload(name));
        }
        done.push(script.revert("part"));
        done.push(script.unload("part"));
        let run = Machine::of(&xen).run(&script)?;
        finished(&run);
        assert_eq!(run[refused].errno(), Some(Errno::EINVAL));
        for step in done {
            assert!(run[step].is_done(), "{:?}\n{}", run[step], run.log);
        }
        let seen = run
            .log
            .lines()
            .filter_map(|line| line.split_once("leads to "));
        let seen: Vec<&str> = seen.map(|(_, code)| code).collect();
        let [before, during] = seen[..] else {
            bail!("{seen:?}\n{}", run.log)
        };
        assert!(before.starts_with("0f 0b"), "{before}");
        assert!(!during.starts_with("0f 0b"), "{during}");
    }
    Ok(())
}
