//! Eight threads call a library without a pause while patches of it come, replace each other and
//! go: every answer is that of the old code or of the new, every call is counted once, and the
//! bytes are the same in the end.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use invivo_apply::hpat::PatchedImage;
use windows_tests::native::{Enlisted, Function, Here, Mapped};
use windows_tests::{Build, Folder, Library, build, final_image};

const THREADS: usize = 8;
const ROUNDS: u32 = 100;

/// What the callers saw.
#[derive(Default)]
struct Seen {
    calls: AtomicU64,
    /// Answers by what was added: 0 the base, 1 the first patch, 2 the second.
    added: [AtomicU32; 3],
    wrong: AtomicU32,
}

/// Calls both functions until `end`; each answer is 16 times the argument and what was added.
fn call(count: Function, weigh: Function, seen: &Seen, end: &AtomicBool) {
    let enlisted = Enlisted::new().expect("it takes part");
    let mut n = 0;
    while !end.load(Ordering::Relaxed) {
        n = (n + 1) % 1000;
        for (function, most) in [(count, 2), (weigh, 1)] {
            match function(n) - 16 * n {
                added @ 0..=2 if added <= most => {
                    let added = usize::try_from(added).expect("it is small");
                    seen.added[added].fetch_add(1, Ordering::Relaxed);
                }
                _ => {
                    seen.wrong.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
        seen.calls.fetch_add(1, Ordering::Relaxed);
    }
    // The handler of a stop may still look for it.
    drop(enlisted);
}

#[test]
fn threads_see_old_or_new_and_nothing_else() {
    story("threads", &[]);
}

/// A function that begins one byte before an 8-byte boundary: no store changes its first two bytes at
/// once, so that all threads stand while they are changed.
#[test]
fn functions_across_a_boundary() {
    story("threads-odd", &["count", "weigh"]);
}

fn story(name: &str, odd: &[&'static str]) {
    let folder = Folder::new(name);
    let library = |name: &str, how: &Build| -> Library {
        build(&folder, name, "steady", how).expect("it is built")
    };
    let how = Build {
        odd: odd.to_vec(),
        ..Build::base()
    };
    let base = library("base", &how);
    let first = library("first", &Build::fixed("count,weigh"));
    let second = Build::base().with("-DSECOND -fms-secure-hotpatch-functions-list=count");
    let second = library("second", &second);

    let mut here = Here::new().expect("a target");
    let image = base.image().expect("a Windows image");
    let mapped = Mapped::new(&here, image).expect("it can be mapped");
    let patch = |fixed: &Library, sequence| {
        let made = final_image(&base, fixed, sequence).expect("nothing stands in the way");
        Mapped::new(&here, made).expect("it can be mapped")
    };
    let (first, second) = (patch(&first, 1), patch(&second, 2));
    let mut state = PatchedImage::new(mapped.loaded.clone());
    let before = mapped.fixed_bytes();
    let [count, weigh] = ["count", "weigh"].map(|name| mapped.function(name).expect("a function"));
    for function in [count, weigh] {
        assert_eq!(
            function as usize % 8 == 7,
            !odd.is_empty(),
            "where it begins"
        );
    }
    let (seen, end) = (Seen::default(), AtomicBool::new(false));
    let mut left = 0;
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| call(count, weigh, &seen, &end));
        }
        // So that every caller takes part before the first stop.
        std::thread::sleep(Duration::from_millis(20));
        for round in 0..ROUNDS {
            for patch in [&first, &second] {
                let outcome = state
                    .apply(&mut here, &patch.loaded)
                    .expect("it is applied");
                let stood = outcome.stopped > Duration::ZERO;
                assert_eq!(stood, !odd.is_empty(), "threads stand where they must");
                std::thread::sleep(Duration::from_micros(200));
            }
            let outcome = state.revert(&mut here).expect("it is taken back");
            left += u32::from(outcome.left);
            if !outcome.left {
                assert!(
                    mapped.fixed_bytes() == before,
                    "round {round}: not byte for byte"
                );
            }
            std::thread::sleep(Duration::from_micros(200));
        }
        end.store(true, Ordering::Relaxed);
    });
    assert_eq!(seen.wrong.load(Ordering::Relaxed), 0, "an answer of nobody");
    for added in &seen.added {
        assert!(added.load(Ordering::Relaxed) > 0, "each version answered");
    }
    let calls = seen.calls.load(Ordering::Relaxed);
    for name in ["get_counted", "get_weighed", "get_helped"] {
        let counted = mapped.call(name, 0).expect("it can be called");
        assert_eq!(u64::from(counted.cast_unsigned()), calls, "{name}");
    }
    for patch in [&first, &second] {
        assert_eq!(
            patch.call("get_helped", 0).expect("it can be called"),
            0,
            "its own copy"
        );
    }
    assert!(
        left < ROUNDS / 10,
        "{left} times a thread was always on its way"
    );
    println!("{calls} calls of each function in {ROUNDS} rounds");
}
