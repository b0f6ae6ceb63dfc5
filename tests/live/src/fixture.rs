//! Fixtures: annotated sources, one behaviour each.
//!
//! Lines that start with `//#` say how to build and what must hold:
//!
//! ```text
//! //#behaviour TEXT             what is shown and why it is hard (required)
//! //#ask QUESTION => OLD => NEW what base and fixed answer (required, repeatable, repeatable at run time too)
//! //#hot NAME…                  functions that must be in the patch
//! //#refused NAME               no patch may be built; the refusal must name this
//! //#flags FLAG…                compiler flags beside `-O2 -g`
//! //#args ARG…                  arguments of the program
//! //#once                       the answers count something: the questions can be asked only once
//! //#own-main                   does not use the line protocol of parts/serve.c
//! //#library NAME linked|opened parts/NAME.c becomes a shared library beside the program, and is what gets patched
//! ```

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

/// Names the folder of the fixtures, for programs that run where that of the sources cannot be read.
const VARIABLE: &str = "INVIVO_LIVE_FIXTURES";

/// The folder of the fixtures.
pub fn folder() -> PathBuf {
    std::env::var_os(VARIABLE).map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures"),
        PathBuf::from,
    )
}

/// A question and what the two versions answer.
#[derive(Debug, Clone)]
pub struct Ask {
    /// The line that is sent.
    pub question: String,
    /// What the base answers.
    pub old: String,
    /// What the fixed version answers.
    pub new: String,
}

/// A shared library that belongs to a fixture.
#[derive(Debug, Clone)]
pub struct Library {
    /// Its name: built from `parts/NAME.c` as `libNAME.so`.
    pub name: String,
    /// Whether the linker is told about it; otherwise the program opens it.
    pub linked: bool,
}

/// An annotated source file.
#[derive(Debug, Clone, Default)]
pub struct Fixture {
    /// File name without the ending.
    pub name: String,
    /// The source file, relative to [`folder`].
    pub source: String,
    /// What is shown.
    pub behaviour: String,
    /// Questions and answers.
    pub asks: Vec<Ask>,
    /// Functions that the patch must contain.
    pub hot: Vec<String>,
    /// The name that a refusal must give, if the fix must be refused.
    pub refused: Option<String>,
    /// Compiler flags.
    pub flags: Vec<String>,
    /// Arguments of the program.
    pub args: Vec<String>,
    /// Whether the answers depend on what was asked before.
    pub once: bool,
    /// Whether the source has its own `main`.
    pub own_main: bool,
    /// The library that gets patched.
    pub library: Option<Library>,
}

impl Fixture {
    /// Reads the fixture `source`, for example `args20.c`.
    ///
    /// # Errors
    ///
    /// When the file cannot be read or an annotation is unknown or incomplete.
    pub fn load(source: &str) -> Result<Self> {
        let path = folder().join(source);
        let text =
            fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let name = source.split('.').next().unwrap_or(source).to_owned();
        let mut fixture = Self {
            name,
            source: source.to_owned(),
            ..Self::default()
        };
        for line in text.lines().filter_map(|line| line.strip_prefix("//#")) {
            let (key, value) = line.split_once(' ').unwrap_or((line, ""));
            fixture
                .annotate(key, value.trim())
                .with_context(|| format!("{source}: //#{line}"))?;
        }
        ensure!(
            !fixture.behaviour.is_empty(),
            "{source} does not say which behaviour it shows"
        );
        ensure!(!fixture.asks.is_empty(), "{source} asks nothing");
        ensure!(
            fixture.asks.iter().any(|ask| ask.old != ask.new),
            "{source}: base and fixed answer alike, so nothing would be shown"
        );
        Ok(fixture)
    }

    /// Every fixture there is, in the order of their names.
    ///
    /// # Errors
    ///
    /// When the folder cannot be listed or a fixture cannot be read.
    pub fn all() -> Result<Vec<Self>> {
        let mut sources = Vec::new();
        for entry in fs::read_dir(folder())? {
            let entry = entry?;
            if entry.file_type()?.is_file() {
                sources.push(entry.file_name().to_string_lossy().into_owned());
            }
        }
        sources.sort();
        sources.iter().map(|source| Self::load(source)).collect()
    }

    fn annotate(&mut self, key: &str, value: &str) -> Result<()> {
        let words = || value.split_whitespace().map(str::to_owned);
        match key {
            "behaviour" => value.clone_into(&mut self.behaviour),
            "ask" => match value.split(" => ").collect::<Vec<_>>()[..] {
                [question, old, new] => {
                    self.asks.push(Ask {
                        question: question.into(),
                        old: old.into(),
                        new: new.into(),
                    });
                }
                _ => bail!("an ask is QUESTION => OLD => NEW"),
            },
            "hot" => self.hot.extend(words()),
            "refused" => self.refused = Some(value.to_owned()),
            "flags" => self.flags.extend(words()),
            "args" => self.args.extend(words()),
            "once" => self.once = true,
            "own-main" => self.own_main = true,
            "library" => match value.split_once(' ') {
                Some((name, how @ ("linked" | "opened"))) => {
                    self.library = Some(Library {
                        name: name.to_owned(),
                        linked: how == "linked",
                    });
                }
                _ => bail!("a library is NAME linked or NAME opened"),
            },
            _ => bail!("unknown annotation"),
        }
        Ok(())
    }
}
