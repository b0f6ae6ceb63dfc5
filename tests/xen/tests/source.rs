//! Changes of the source of a real hypervisor, as its maintainer makes them: Debian's source of the Xen
//! that is booted, compiled without and with them, becomes payloads that it takes.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use xen_tests::hypervisor::SOURCE;
use xen_tests::source::Source;
use xen_tests::{Answer, End, Errno, Hypervisor, Machine, Run, Script, State, Step};

const KEYS: &str = "common/keyhandler.o";
const VERSION: &str = "common/kernel.o";

/// The payloads: for keys, on top of it for the version, and one with both for the place of all.
struct Payloads {
    keys: Vec<u8>,
    version: Vec<u8>,
    all: Vec<u8>,
}

impl Payloads {
    fn of(source: &Source) -> Result<Payloads> {
        let make = |name: &str, files: &[&str], below: Option<&Path>| {
            let (base, fixed) = source.compiled(name, files)?;
            source.payload((&base, &fixed), below)
        };
        let keys = make("keys", &[KEYS], None)?;
        let version = make("version", &[VERSION], Some(&keys))?;
        let all = make("all", &[KEYS, VERSION], None)?;
        Ok(Payloads {
            keys: std::fs::read(keys)?,
            version: std::fs::read(version)?,
            all: std::fs::read(all)?,
        })
    }
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
    assert_eq!(
        versions,
        [&own, &own, &fixed, &fixed, &own].map(String::clone)
    );
    let words = ["Nothing is bound to key 0x5c", "but to"];
    let keys: Vec<_> = consoles(&run)
        .into_iter()
        .map(|part| {
            // A key with a handler does what it did.
            assert!(part.contains("showing installed handlers"), "{part}");
            words.map(|words| part.contains(words))
        })
        .collect();
    let (none, one, other) = ([false, false], [true, false], [true, true]);
    assert_eq!(keys, [none, one, one, other, none], "{}", run.log);
    Ok(())
}

#[test]
fn changes_of_its_source_go_live_and_back_in_a_stock_hypervisor() -> Result<()> {
    let xen = Hypervisor::get(SOURCE)?;
    let source = Source::of(&xen, &[KEYS, VERSION])?;
    let payloads = Payloads::of(&source)?;
    std::thread::scope(|scope| {
        let one = scope.spawn(|| life(&xen, 1, &payloads));
        let two = life(&xen, 2, &payloads);
        one.join().expect("it does not panic").and(two)
    })?;
    let (base, fixed) = source.compiled("keys", &[KEYS])?;
    let (time, memory) = source.cost(&base, &fixed)?;
    // `cargo xtask bench xen` reads this line.
    println!(
        "payload of keyhandler.o: {} µs, {memory} MiB",
        time.as_micros()
    );
    assert!(time < Duration::from_secs(1), "{time:?}");
    assert!(memory < 200, "{memory} MiB");
    // The base of another fix is not this hypervisor, and is found out by its code.
    let (base, all) = source.compiled("all", &[KEYS, VERSION])?;
    let why = source.refusal(&all, &base)?;
    assert!(why.contains("handle_keypress"), "{why}");
    Ok(())
}
