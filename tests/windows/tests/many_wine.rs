//! Every process of Windows that has a library at once, those too that start while the tool is at work.

use std::io::BufReader;
use std::path::Path;
use std::process::Stdio;
use std::thread::{sleep, spawn};
use std::time::{Duration, Instant};

use windows_tests::asked::Asked;
use windows_tests::wine::{self, Wine, name};
use windows_tests::{Build, Folder, asker, build, final_image};

const OLD: i32 = 6;
const NEW: i32 = 1005;

/// How long the first process may take to be patched; it takes a moment.
const PATIENCE: Duration = Duration::from_secs(100);

fn answer(asked: &mut Asked) -> i32 {
    asked.ask("answer 5").expect("an answer").0
}

/// What `invivo.exe` prints, where it does what it should.
fn done(tool: &Path, words: &[&str]) -> String {
    let wine = Wine::ready().expect("Wine");
    let ran = wine.output(wine.command(tool).args(words));
    let (text, code) = ran.expect("it runs");
    assert_eq!(code, 0, "{words:?}: {text}");
    text
}

/// Who asks of a process in which another tool is at work is told that, and of no tool that died.
fn at_work(tool: &Path, patch: &str, pid: i32) {
    let pid = pid.to_string();
    let text = done(tool, &["list", "--pid", &pid]);
    assert!(text.contains("a tool is at work"), "{text}");
    let wine = Wine::ready().expect("Wine");
    let words = ["plan", patch, "--pid", &pid];
    let ran = wine.output(wine.command(tool).args(words));
    let (text, code) = ran.expect("it runs");
    let told = format!("another tool is at work in process {pid}");
    assert!(code != 0 && text.contains(&told), "{code}: {text}");
}

/// While another tool is at work in one of three processes, `apply --all` waits there; another process
/// starts then. The look that found the three is over by then, since one of them is patched.
#[test]
fn processes_that_start_meanwhile() {
    let folder = Folder::new("many-wine");
    let library = |name: &str, how: Build| {
        let how = how.importing(&["Sleep"]);
        build(&folder, name, "held", &how).expect("it is built")
    };
    let base = library("base", Build::base());
    let fixed = library("fixed", Build::fixed("answer,reply"));
    let made = final_image(&base, &fixed, 1).expect("nothing stands in the way");
    let patch = folder.join("held_hotpatch.dll");
    std::fs::write(&patch, made.file()).expect("it is written");
    let patch = name(&patch);
    let tool = wine::invivo().expect("invivo.exe");
    let holds = wine::example("holds").expect("the other tool");
    let program = asker(&folder).expect("the program");
    // Each is there before the next one starts, so that they are found in this order, or the other way round.
    let start = || {
        let mut one = Asked::start(&program, &base.path).expect("it starts");
        assert_eq!(answer(&mut one), OLD);
        one
    };
    let mut all = [start(), start(), start()];
    // The one in the middle.
    let (pid, _) = all[1].ask("PID 0").expect("its number");
    let wine = Wine::ready().expect("Wine");
    let mut other = wine.command(&holds);
    other.arg(pid.to_string());
    other.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut other = other.spawn().expect("it starts");
    let mut said = BufReader::new(other.stdout.take().expect("its output"));
    assert_eq!(wine::line(&mut said).expect("it says something"), "ready");
    at_work(&tool, &patch, pid);

    let apply = spawn({
        let (tool, patch) = (tool.clone(), patch.clone());
        move || done(&tool, &["apply", &patch, "--all", "--timeout", "100"])
    });
    let begin = Instant::now();
    while answer(&mut all[0]) == OLD && answer(&mut all[2]) == OLD {
        assert!(begin.elapsed() < PATIENCE, "nobody is patched");
        sleep(Duration::from_millis(10));
    }
    let mut late = start();
    assert_eq!(answer(&mut late), OLD, "it is not looked for yet");
    assert_eq!(answer(&mut all[1]), OLD, "the other tool is at work");
    // It ends with its input.
    drop(other.stdin.take());
    assert!(other.wait().expect("it ends").success());
    let text = apply.join().expect("it does all");
    assert_eq!(text.matches(": applied in ").count(), 4, "{text}");
    for asked in all.iter_mut().chain([&mut late]) {
        assert_eq!(answer(asked), NEW, "{text}");
    }
    for asked in all.iter_mut().chain([&mut late]) {
        let (pid, _) = asked.ask("PID 0").expect("its number");
        done(&tool, &["revert", "--pid", &pid.to_string()]);
        assert_eq!(answer(asked), OLD);
    }
}
