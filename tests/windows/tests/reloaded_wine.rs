//! Processes of Windows whose loader does not stand still: libraries that are unloaded and loaded again,
//! and a loader that lets no thread begin.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use windows_tests::asked::Asked;
use windows_tests::caller::{mapped, open_pages};
use windows_tests::wine::{self, Wine, name};
use windows_tests::{Build, Folder, Library, asker, build, final_image};

/// Exit code of a command that can be given again in a moment.
const NOT_NOW: i32 = 3;

/// How long a thread may take to end that nothing holds up any more; it takes no time.
const PATIENCE: Duration = Duration::from_secs(60);

struct Scene {
    _folder: Folder,
    patch: PathBuf,
    tool: PathBuf,
    asked: Asked,
    pid: String,
    base: Library,
}

impl Scene {
    fn new(test: &str) -> Scene {
        let folder = Folder::new(test);
        let library = |name: &str, how: Build| {
            let how = how.importing(&["Sleep"]);
            build(&folder, name, "held", &how).expect("it is built")
        };
        let base = library("base", Build::base());
        let fixed = library("fixed", Build::fixed("answer,reply"));
        let made = final_image(&base, &fixed, 1).expect("nothing stands in the way");
        let patch = folder.join("held_hotpatch.dll");
        std::fs::write(&patch, made.file()).expect("it is written");
        let tool = wine::invivo().expect("invivo.exe");
        let program = asker(&folder).expect("the program");
        let mut asked = Asked::start(&program, &base.path).expect("it starts");
        let (pid, _) = asked.ask("PID 0").expect("its number");
        let mut scene = Scene {
            _folder: folder,
            patch,
            tool,
            asked,
            pid: pid.to_string(),
            base,
        };
        // The program asks its loader for a function once, and not while that is at work.
        assert_eq!(scene.answers(), OLD);
        scene
    }

    fn answers(&mut self) -> [i32; 2] {
        ["answer 5", "reply 5"].map(|question| self.asked.ask(question).expect("an answer").0)
    }

    fn ask(&mut self, question: &str) -> i32 {
        self.asked.ask(question).expect("an answer").0
    }

    fn invivo(&self, words: &[&str]) -> (String, i32) {
        let wine = Wine::ready().expect("Wine");
        let ran = wine.output(wine.command(&self.tool).args(words));
        ran.expect("it runs")
    }

    fn apply(&self, patch: &Path) -> (String, i32) {
        self.invivo(&["apply", &name(patch), "--pid", &self.pid])
    }

    fn done(&self, words: &[&str]) -> String {
        let (text, code) = self.invivo(words);
        assert_eq!(code, 0, "{words:?}: {text}");
        text
    }

    fn mapped(&self, file: &str) -> Option<u64> {
        mapped(self.asked.linux_pid(), file)
    }

    fn open_pages(&self) -> Vec<String> {
        open_pages(self.asked.linux_pid(), &self.base)
    }

    /// What `status` says of this process; others may have the same library.
    fn status(&self) -> String {
        let text = self.done(&["status", &name(&self.patch)]);
        let own = format!("{} ", self.pid);
        let lines = text.lines().filter(|line| line.starts_with(&own));
        lines.collect::<Vec<_>>().join("\n")
    }

    fn list(&self) -> String {
        self.done(&["list", "--pid", &self.pid])
    }

    /// True if there is memory at this address, as the process itself is told by Windows.
    fn has_memory(&mut self, at: u64) -> bool {
        const COMMITTED: i32 = 0x1000;
        const FREE: i32 = 0x1_0000;
        match self.ask(&format!("STATE {}", at >> 16)) {
            COMMITTED => true,
            FREE => false,
            other => unreachable!("{other:#x} at {at:#x}"),
        }
    }

    /// Waits until there is another thread than those, which waits again and again: whoever makes one lets
    /// it begin only then.
    fn wait_for_another(&self, known: &[PathBuf]) {
        let begin = Instant::now();
        let is_at_work = |task: &PathBuf| {
            let status = std::fs::read_to_string(task.join("status")).unwrap_or_default();
            let waits = status
                .lines()
                .find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
            let waits = waits.and_then(|waits| waits.trim().parse::<u32>().ok());
            waits.is_some_and(|waits| waits > 100)
        };
        let is_new = |task: &PathBuf| !known.contains(task) && is_at_work(task);
        while !self.tasks().iter().any(is_new) {
            assert!(begin.elapsed() < PATIENCE, "no thread begins");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn tasks(&self) -> Vec<PathBuf> {
        let pid = self.asked.linux_pid();
        let all = std::fs::read_dir(format!("/proc/{pid}/task"));
        let all = all
            .expect("it runs")
            .filter_map(|task| Some(task.ok()?.path()));
        all.collect()
    }

    fn threads(&self) -> usize {
        self.tasks().len()
    }

    /// Waits until no thread is there but those that were: whoever was to come late has come.
    fn wait_for(&self, threads: usize) {
        let begin = Instant::now();
        while self.threads() > threads {
            assert!(begin.elapsed() < PATIENCE, "a thread does not end");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

const OLD: [i32; 2] = [6, 15];
const NEW: [i32; 2] = [1005, 5000];

/// A program unloads a patched library and loads it again, mostly at the same place: that is known, and
/// everything can be done anew.
#[test]
fn a_library_that_is_loaded_again() {
    let mut scene = Scene::new("again");
    let patch = scene.patch.clone();
    for round in 0..2 {
        let (text, code) = scene.apply(&patch);
        // Wine leaves addresses of the patch in memory that any program can write, so that it may
        // have to stay; then its copy is another one.
        let copy = patch.with_file_name(format!("copy{round}.dll"));
        if code != 0 {
            assert!(
                round > 0 && text.contains("copy it to another name"),
                "{text}"
            );
            std::fs::copy(&patch, &copy).expect("a copy");
            let (text, code) = scene.apply(&copy);
            assert_eq!(code, 0, "{text}");
        }
        assert_eq!(scene.answers(), NEW, "round {round}");
        let text = scene.status();
        assert!(text.contains("running: patched; on disk: old"), "{text}");
        assert_eq!(scene.ask("FREE 0"), 1, "it is unloaded");
        assert!(scene.mapped("held.dll").is_none(), "it is gone");
        let text = scene.status();
        assert_eq!(text, "", "it has no such library");
        let text = scene.list();
        assert!(!text.contains("patch 1 is live"), "{text}");
        assert_eq!(scene.ask("LOAD 0"), 1, "at the same place");
        assert_eq!(scene.answers(), OLD, "round {round}: it is new");
        let text = scene.status();
        assert!(text.contains("running: not patched"), "{text}");
        let text = scene.list();
        assert!(!text.contains("patch 1 is live"), "{text}");
        if round == 0 {
            let text = scene.done(&["recover", "--pid", &scene.pid]);
            assert!(text.contains("settled"), "{text}");
            assert_eq!(scene.done(&["recover", "--pid", &scene.pid]), "");
        }
    }
    let text = scene.done(&["revert", "--pid", &scene.pid, "--unload"]);
    assert!(
        text.contains("settled") || text.contains("reverted"),
        "{text}"
    );
    assert_eq!(scene.answers(), OLD);
}

/// A patch that nothing leads to any more is given back, whether or not its code ever ran: the process has
/// nothing at its place, by its own look and by that of Linux, and everything can be done anew.
#[test]
fn what_nobody_uses_is_given_back() {
    let mut scene = Scene::new("given-back");
    let patch = scene.patch.clone();
    for has_run in [false, true, true] {
        let (text, code) = scene.apply(&patch);
        assert_eq!(code, 0, "{text}");
        let at = scene.mapped("held_hotpatch.dll").expect("it is loaded");
        assert!(scene.has_memory(at), "{at:#x}");
        if has_run {
            assert_eq!(scene.answers(), NEW);
            // As long as it is live nobody gives it back.
            let text = scene.list();
            assert!(text.contains("patch 1 is live"), "{text}");
        }
        // A word that a call has left below the stack may look like a use of it, until another call comes.
        let end = Instant::now() + PATIENCE;
        let text = loop {
            let text = scene.done(&["revert", "--pid", &scene.pid, "--unload"]);
            if text.contains("held_hotpatch.dll was unloaded") {
                break text;
            }
            assert!(Instant::now() < end, "{text}");
            assert_eq!(scene.answers(), OLD, "{text}");
        };
        assert!(!scene.has_memory(at), "{at:#x} after {text}");
        assert_eq!(scene.mapped("held_hotpatch.dll"), None, "{text}");
        let text = scene.status();
        assert!(text.contains("running: not patched"), "{text}");
        let text = scene.list();
        assert!(!text.contains("held_hotpatch"), "{text}");
        assert_eq!(scene.answers(), OLD);
    }
}

/// A loader that lets no thread begin: what was asked of one is taken back, nothing comes late, and the
/// process lives.
#[test]
fn a_loader_that_is_at_work() {
    let mut scene = Scene::new("held");
    let patch = scene.patch.clone();
    let refused = |scene: &mut Scene, what: &str| {
        let threads = scene.threads();
        scene.ask("hold 1");
        let (text, code) = scene.apply(&patch);
        assert_eq!(code, NOT_NOW, "{what}: {text}");
        assert!(text.contains("lets no new thread begin"), "{what}: {text}");
        assert_eq!(scene.answers(), OLD, "{what}: while it is held");
        assert!(scene.threads() > threads, "{what}: somebody is late");
        scene.ask("hold 0");
        // Whoever came late comes now.
        scene.wait_for(threads);
        let text = scene.status();
        assert!(text.contains("running: not patched"), "{what}: {text}");
        assert_eq!(scene.done(&["recover", "--pid", &scene.pid]), "", "{what}");
        assert_eq!(scene.answers(), OLD, "{what}: afterwards");
        assert!(
            scene.open_pages().is_empty(),
            "{what}: {:?}",
            scene.open_pages()
        );
    };
    refused(&mut scene, "a load");
    assert!(
        scene.mapped("held_hotpatch.dll").is_none(),
        "nothing is loaded"
    );
    let (text, code) = scene.apply(&patch);
    assert_eq!((code, scene.answers()), (0, NEW), "{text}");
    scene.done(&["revert", "--pid", &scene.pid]);
    assert_eq!(scene.answers(), OLD);
    // Now only stores are left to be made.
    assert!(
        scene.mapped("held_hotpatch.dll").is_some(),
        "it stays loaded"
    );
    refused(&mut scene, "a store");
    let (text, code) = scene.apply(&patch);
    assert_eq!((code, scene.answers()), (0, NEW), "{text}");
}

/// A tool that is killed while a thread that it made waits for the loader: the next one takes back what that
/// thread was asked for, which comes when nobody expects it.
#[test]
fn a_tool_that_is_killed_while_a_loader_is_at_work() {
    let mut scene = Scene::new("held-killed");
    let patch = scene.patch.clone();
    let killed = |scene: &mut Scene, what: &str| {
        let known = scene.tasks();
        scene.ask("hold 1");
        let wine = Wine::ready().expect("Wine");
        let mut command = wine.command(&scene.tool);
        command.args(["apply", &name(&patch), "--pid", &scene.pid]);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = command.spawn().expect("it starts");
        scene.wait_for_another(&known);
        // It is ours.
        child.kill().expect("it is at work");
        child.wait().expect("it ended");
        scene.done(&["recover", "--pid", &scene.pid]);
        scene.ask("hold 0");
        // Whoever came late comes now.
        scene.wait_for(known.len());
        assert_eq!(scene.answers(), OLD, "{what}");
        let text = scene.status();
        assert!(text.contains("running: not patched"), "{what}: {text}");
        let open = scene.open_pages();
        assert!(open.is_empty(), "{what}: {open:?}");
    };
    killed(&mut scene, "a load");
    let loaded = scene.mapped("held_hotpatch.dll");
    assert!(loaded.is_none(), "nothing is loaded");
    let (text, code) = scene.apply(&patch);
    assert_eq!((code, scene.answers()), (0, NEW), "{text}");
    scene.done(&["revert", "--pid", &scene.pid]);
    // Now only stores are left to be made.
    killed(&mut scene, "a store");
    let (text, code) = scene.apply(&patch);
    assert_eq!((code, scene.answers()), (0, NEW), "{text}");
}
