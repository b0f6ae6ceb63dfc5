//! Changes of the source of a real hypervisor, as its maintainer makes them: Debian's source of the Xen
//! that is booted, compiled without and with them, becomes payloads that it takes.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use invivo_format::livepatch::read;
use xen_tests::hypervisor::SOURCE;
use xen_tests::source::{Asked, Built, Source};
use xen_tests::{Answer, End, Errno, Hypervisor, Machine, Run, Script, State, Step};

const KEYS: &str = "common/keyhandler.o";
const VERSION: &str = "common/kernel.o";

/// The payloads: for keys, on top of it for the version, and one with both for the place of all.
struct Payloads {
    keys: Vec<u8>,
    version: Vec<u8>,
    all: Vec<u8>,
    /// Without a jump: the calls lead to the new code. With a list of names alone. With a pointer
    /// that leads to the new code beside the jump.
    others: [(&'static str, Vec<u8>); 3],
    /// For keys, in the `xen.efi` of the same build.
    efi: Vec<u8>,
    /// Of the changes for keys and for both: the folders without and with them.
    folders: [(PathBuf, PathBuf); 2],
}

impl Payloads {
    fn of(xen: &Hypervisor, source: &Source) -> Result<Payloads> {
        let make = |folders: &(PathBuf, PathBuf), asked: Asked| {
            source.payload((&folders.0, &folders.1), asked)
        };
        let plain = Asked::default();
        let spliced = |what| Asked {
            splice: Some(what),
            ..plain
        };
        let change = source.compiled("keys", &[KEYS])?;
        let keys = make(&change, plain)?;
        let on_top = Asked {
            after: Some(&keys.file),
            ..plain
        };
        let version = make(&source.compiled("version", &[VERSION])?, on_top)?;
        let whole = source.compiled("all", &[KEYS, VERSION])?;
        let all = make(&whole, plain)?;
        let callers = make(&change, spliced("callers"))?;
        for words in ["5 calls and 0 pointers lead to", "it has no jump"] {
            assert!(callers.said.contains(words), "{callers:?}");
        }
        let tables = make(&source.compiled("handlers", &[KEYS])?, spliced("tables"))?;
        for words in ["0 calls and 1 pointers lead to", "the jump stays"] {
            assert!(tables.said.contains(words), "{tables:?}");
        }
        let by_map = Asked {
            by_map: true,
            ..plain
        };
        let by_map = make(&change, by_map)?;
        // It tells neither the build id nor the code, and so it is said.
        for words in ["sound as far as", "X14, X44 could not be looked at"] {
            assert!(by_map.checked.contains(words), "{by_map:?}");
        }
        let efi = make(&change, Asked { efi: true, ..plain })?;
        for_efi(xen, &efi)?;
        let bytes = |built: Built| std::fs::read(built.file);
        Ok(Payloads {
            keys: bytes(keys)?,
            version: bytes(version)?,
            all: bytes(all)?,
            others: [
                ("callers", bytes(callers)?),
                ("by-map", bytes(by_map)?),
                ("tables", bytes(tables)?),
            ],
            efi: bytes(efi)?,
            folders: [change, whole],
        })
    }
}

/// It names the 16 bytes by which the real `xen.efi` knows itself, and expects no code: that has other
/// operands there.
fn for_efi(xen: &Hypervisor, built: &Built) -> Result<()> {
    let efi = std::fs::read(xen.efi())?;
    let mark = efi.windows(4).position(|bytes| bytes == b"RSDS");
    let own = mark.and_then(|at| efi.get(at + 4..at + 20));
    let payload = read(&std::fs::read(&built.file)?)?.payload;
    assert_eq!(payload.xen_depends.as_ref().map(|id| &*id.0), own);
    assert_eq!(Some(&*payload.depends.0), own);
    let mut functions = payload.functions.iter();
    assert!(functions.all(|function| function.expectation.is_none()));
    let words = "Xen does not hold its code";
    assert!(built.said.contains(words), "{}", built.said);
    Ok(())
}

/// What was asked for at one moment: the hypercall for the version, and before it two keys.
struct Seen {
    version: Step,
}

/// Presses a key that nothing is bound to, and one that something is; asks for the version.
fn look(script: &mut Script) -> Seen {
    script.key('\\');
    script.key('h');
    Seen {
        version: script.extra_version(),
    }
}

/// What the console has between two looks.
fn consoles(run: &Run) -> Vec<&str> {
    let log = run.log.split("> key \\").skip(1);
    log.map(|part| part.split("> extra").next().unwrap_or(part))
        .collect()
}

fn text(run: &Run, seen: &Seen) -> String {
    match &run[seen.version] {
        Answer::Text(text) => text.clone(),
        other => unreachable!("{other:?}"),
    }
}

/// The whole life of them on one machine.
fn life(xen: &Hypervisor, processors: u32, payloads: &Payloads) -> Result<()> {
    let mut script = Script::new();
    let mut seen = vec![look(&mut script)];
    let mut done = vec![script.upload("keys", &payloads.keys), script.apply("keys")];
    seen.push(look(&mut script));
    // On top of the first, which stays below as long as it is there.
    done.push(script.upload("version", &payloads.version));
    done.push(script.apply("version"));
    seen.push(look(&mut script));
    let below = script.revert("keys");
    let live = script.unload("keys");
    // One with both takes the place of the two.
    done.push(script.upload("all", &payloads.all));
    done.push(script.replace("all"));
    seen.push(look(&mut script));
    let replaced = [script.get("keys"), script.get("version")];
    // What it was built upon is not there any more.
    let early = script.apply("version");
    done.extend([script.unload("version"), script.unload("keys")]);
    done.push(script.revert("all"));
    seen.push(look(&mut script));
    done.push(script.unload("all"));
    for (name, payload) in &payloads.others {
        done.extend([script.upload(name, payload), script.apply(name)]);
        seen.push(look(&mut script));
        done.push(script.revert(name));
        seen.push(look(&mut script));
        done.push(script.unload(name));
    }
    let listed = script.list();
    let run = Machine::of(xen).processors(processors).run(&script)?;
    assert_eq!(run.end, End::Finished, "{}", run.log);
    for step in done {
        assert!(run[step].is_done(), "{:?}\n{}", run[step], run.log);
    }
    assert_eq!(run[below].errno(), Some(Errno::EBUSY));
    assert_eq!(run[live].errno(), Some(Errno::EINVAL));
    assert_eq!(run[early].errno(), Some(Errno::EINVAL));
    for step in replaced {
        let Answer::Status(status) = &run[step] else {
            unreachable!("{:?}", run[step])
        };
        assert_eq!(status.state, State::Checked);
    }
    let Answer::Listed(listing) = &run[listed] else {
        unreachable!("{:?}", run[listed])
    };
    assert_eq!(listing.payloads, []);

    let own = text(&run, &seen[0]);
    let fixed = format!("{own}+fix");
    let versions: Vec<String> = seen.iter().map(|seen| text(&run, seen)).collect();
    let later = vec![&own; 2 * payloads.others.len()];
    assert_eq!(
        versions.iter().collect::<Vec<_>>(),
        [vec![&own, &own, &fixed, &fixed, &own], later].concat()
    );
    let words = [
        "Nothing is bound to key 0x5c",
        "but to",
        "There is room for 128",
    ];
    let keys: Vec<_> = consoles(&run)
        .into_iter()
        .map(|part| {
            // A key with a handler does what it did.
            assert!(part.contains("showing installed handlers"), "{part}");
            words.map(|words| part.contains(words))
        })
        .collect();
    let none = [false, false, false];
    let (one, other) = ([true, false, false], [true, true, false]);
    let table = [false, false, true];
    let first = [none, one, one, other, none];
    let later = [one, none, one, none, table, none];
    assert_eq!(keys, [&first[..], &later].concat(), "{}", run.log);
    Ok(())
}

/// The same hypervisor as firmware of UEFI boots it, which has the same names and variables elsewhere.
fn life_by_uefi(xen: &Hypervisor, payloads: &Payloads) -> Result<()> {
    let mut script = Script::new();
    let id = script.build_id();
    look(&mut script);
    let other = script.upload("other", &payloads.keys);
    let mut done = vec![script.upload("keys", &payloads.efi), script.apply("keys")];
    look(&mut script);
    done.push(script.revert("keys"));
    look(&mut script);
    done.push(script.unload("keys"));
    let machine = Machine::of(xen).by_uefi();
    let run = machine.limit(Duration::from_secs(180)).run(&script)?;
    assert_eq!(run.end, End::Finished, "{}", run.log);
    for step in done {
        assert!(run[step].is_done(), "{:?}\n{}", run[step], run.log);
    }
    // It is another hypervisor.
    assert_eq!(run[other].errno(), Some(Errno::EINVAL));
    let own = read(&payloads.efi)?.payload.xen_depends;
    let own = own.context("it is for a hypervisor")?.to_string();
    assert_eq!(run[id], Answer::Text(own));
    let keys = consoles(&run);
    let keys = keys.iter().map(|part| part.contains("Nothing is bound"));
    let keys: Vec<bool> = keys.collect();
    assert_eq!(keys, [false, true, false], "{}", run.log);
    Ok(())
}

#[test]
fn changes_of_its_source_go_live_and_back_in_a_stock_hypervisor() -> Result<()> {
    let xen = Hypervisor::get(SOURCE)?;
    let source = Source::of(&xen, &[KEYS, VERSION])?;
    let payloads = Payloads::of(&xen, &source)?;
    std::thread::scope(|scope| {
        let one = scope.spawn(|| life(&xen, 1, &payloads));
        let uefi = scope.spawn(|| life_by_uefi(&xen, &payloads));
        let two = life(&xen, 2, &payloads);
        let ended = [one, uefi].map(|run| run.join().expect("it does not panic"));
        ended.into_iter().chain([two]).collect::<Result<()>>()
    })?;
    let [(base, fixed), (whole, all)] = &payloads.folders;
    let (time, memory) = source.cost(base, fixed)?;
    // `cargo xtask bench xen` reads this line.
    println!(
        "payload of keyhandler.o: {} µs, {memory} MiB",
        time.as_micros()
    );
    assert!(time < Duration::from_secs(1), "{time:?}");
    assert!(memory < 200, "{memory} MiB");
    // The base of another fix is not this hypervisor, and is found out by its code.
    let why = source.refusal(all, whole)?;
    assert!(why.contains("handle_keypress"), "{why}");
    Ok(())
}
