//! Programs for Windows, run by Wine, whose threads call a library without a pause, and `invivo.exe`
//! beside them. What does not work ends the test that asks for it.

use std::io::{BufReader, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use invivo_image::pe::PeImage;

use crate::Library;
use crate::wine::{self, Wine, name};

/// Rounds of calls after which it is known what the functions answer.
const ENOUGH: u64 = 1000;

/// How long the threads may take for them; they take a moment.
const PATIENCE: Duration = Duration::from_secs(60);

/// A program that runs, and the files of its library.
#[derive(Debug)]
pub struct Caller {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
    /// The number that Windows knows it by.
    pub pid: u32,
    invivo: PathBuf,
}

/// What a caller counted.
#[derive(Debug)]
pub struct Seen {
    /// Rounds of calls.
    pub calls: u64,
    /// Of them by what the first function had added.
    pub added: Vec<u64>,
    /// Answers of nobody.
    pub wrong: u64,
}

impl Caller {
    /// Starts `program` with its library.
    #[must_use]
    pub fn start(program: &Path, library: &Library) -> Caller {
        let wine = Wine::ready().expect("Wine");
        // Built before anything runs that would share the processor.
        let invivo = wine::invivo().expect("invivo.exe");
        let mut command = wine.command(program);
        command.arg(name(&library.path));
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("it starts");
        let input = child.stdin.take();
        let output = BufReader::new(child.stdout.take().expect("its output"));
        let mut caller = Caller {
            child,
            input,
            output,
            pid: 0,
            invivo,
        };
        let line = caller.line();
        assert!(line.starts_with("ready"), "{line}");
        caller.pid = u32::try_from(numbers(&line)[0]).expect("a number");
        caller
    }

    fn line(&mut self) -> String {
        wine::line(&mut self.output).expect("it says something")
    }

    /// What it counted so far.
    pub fn seen(&mut self) -> Seen {
        let input = self.input.as_mut().expect("it listens");
        input.write_all(b"tell\n").expect("it listens");
        input.flush().expect("it listens");
        let line = self.line();
        parse(&line)
    }

    /// Which answers came since the last question, after some time.
    #[must_use]
    pub fn answers(&mut self) -> Vec<bool> {
        let before = self.seen();
        let end = Instant::now() + PATIENCE;
        loop {
            std::thread::sleep(Duration::from_millis(100));
            let after = self.seen();
            assert_eq!(after.wrong, 0, "an answer of nobody");
            // Where others use the machine its threads may have had no turn.
            if after.calls - before.calls >= ENOUGH || Instant::now() > end {
                let pairs = before.added.iter().zip(&after.added);
                // A call or two of each thread may have been under way.
                return pairs.map(|(before, after)| after - before > 64).collect();
            }
        }
    }

    /// Lets it end; gives what it saw and what its library counted.
    #[must_use]
    pub fn end(mut self) -> (Seen, Vec<u64>) {
        drop(self.input.take());
        let seen = parse(&self.line());
        let counted = numbers(&self.line());
        assert!(self.child.wait().expect("it ends").success());
        (seen, counted)
    }

    /// What `invivo.exe` prints, and its exit code.
    #[must_use]
    pub fn invivo(&self, words: &[&str]) -> (String, i32) {
        let wine = Wine::ready().expect("Wine");
        let mut command: Command = wine.command(&self.invivo);
        command.args(words);
        wine.output(&mut command).expect("invivo.exe runs")
    }

    /// Where a file is mapped in it, as Linux tells it.
    #[must_use]
    pub fn mapped(&self, file: &str) -> Option<u64> {
        mapped(self.child.id(), file)
    }

    /// Processor time that it took so far, in the clock ticks of Linux.
    #[must_use]
    pub fn ticks(&self) -> u64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id()));
        let stat = stat.expect("it runs");
        let behind = stat.rsplit(')').next().expect("its name");
        let fields: Vec<&str> = behind.split_whitespace().collect();
        // User and system time are fields 14 and 15, of which the name is the second.
        [11, 12]
            .map(|at| fields[at].parse::<u64>().expect("a number"))
            .iter()
            .sum()
    }

    /// The number that Linux knows it by.
    #[must_use]
    pub fn linux_pid(&self) -> u32 {
        self.child.id()
    }

    /// What `invivo.exe` prints, where it does what it should.
    pub fn done(&self, words: &[&str]) -> String {
        let (text, code) = self.invivo(words);
        assert_eq!(code, 0, "{words:?}: {text}");
        text
    }
}

impl Drop for Caller {
    fn drop(&mut self) {
        // It is ours; where it has ended nothing happens.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// All bytes of a library in a process of Linux that nobody writes while it runs.
#[must_use]
pub fn fixed_bytes(pid: u32, library: &Library) -> Vec<u8> {
    let file = library.path.file_name().expect("a name").to_string_lossy();
    let at = mapped(pid, &file).expect("it is loaded");
    let memory = std::fs::File::open(format!("/proc/{pid}/mem")).expect("it runs");
    let image = library.image().expect("a Windows image");
    let mut all = Vec::new();
    for section in image.sections.iter().filter(|s| !s.is_writable()) {
        let size = usize::try_from(section.range.end.0 - section.range.start.0).expect("small");
        let mut bytes = vec![0; size];
        let place = at + section.range.start.0;
        memory.read_exact_at(&mut bytes, place).expect("its memory");
        all.extend(bytes);
    }
    all
}

/// Where a process of Linux has mapped a file first.
#[must_use]
pub fn mapped(pid: u32, file: &str) -> Option<u64> {
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).ok()?;
    let end = format!("/{file}");
    let line = maps.lines().find(|line| line.trim_end().ends_with(&end))?;
    u64::from_str_radix(line.split('-').next()?, 16).ok()
}

/// Lines of what Linux tells of the pages of a library in a process that can be written and executed.
#[must_use]
pub fn open_pages(pid: u32, library: &Library) -> Vec<String> {
    let file = library.path.file_name().expect("a name").to_string_lossy();
    let start = mapped(pid, &file).expect("it is loaded");
    let end = start + u64::from(library.image().expect("a Windows image").size);
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).expect("it runs");
    let is_in = |line: &&str| {
        let at = line.split('-').next();
        let at = at.and_then(|at| u64::from_str_radix(at, 16).ok());
        at.is_some_and(|at| (start..end).contains(&at)) && line.contains("rwx")
    };
    maps.lines().filter(is_in).map(str::to_owned).collect()
}

/// Lines of what Linux tells of the memory of an image in a process that can be written, though the
/// section there cannot.
///
/// # Errors
/// When the file is no Windows image, or not loaded.
pub fn writable_constants(pid: u32, path: &Path) -> anyhow::Result<Vec<String>> {
    let file = path.file_name().unwrap_or_default().to_string_lossy();
    let start = mapped(pid, &file).with_context(|| format!("{file} is not loaded"))?;
    let image = PeImage::parse(std::fs::read(path)?.into())?;
    let constants = image
        .sections
        .iter()
        .filter(|section| !section.is_writable());
    let constants: Vec<_> = constants
        .map(|section| start + section.range.start.0..start + section.range.end.0)
        .collect();
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps"))?;
    let is_open = |line: &&str| {
        let mut words = line.split(' ');
        let range = words.next().and_then(|range| range.split_once('-'));
        let number = |hex: &str| u64::from_str_radix(hex, 16).ok();
        let range = range.and_then(|(from, to)| Some(number(from)?..number(to)?));
        let meets = range.is_some_and(|range| {
            let mut constants = constants.iter();
            constants.any(|held| held.start < range.end && range.start < held.end)
        });
        meets && words.next().is_some_and(|access| access.contains('w'))
    };
    Ok(maps.lines().filter(is_open).map(str::to_owned).collect())
}

/// The numbers in a line.
#[must_use]
pub fn numbers(line: &str) -> Vec<u64> {
    let words = line.split(|c: char| !c.is_ascii_digit());
    words.filter_map(|word| word.parse().ok()).collect()
}

fn parse(line: &str) -> Seen {
    let found = numbers(line);
    assert_eq!(found.len(), 5, "{line}");
    Seen {
        calls: found[0],
        added: found[1..4].to_vec(),
        wrong: found[4],
    }
}
