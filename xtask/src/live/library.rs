//! Shared libraries, inside drivers whose threads call them without pause.

use std::path::Path;
use std::process::Command;

use anyhow::{Result, bail};

use super::{Answer, Apart, Case, Expectation};
use crate::invivo::Judgement;
use crate::load::{Clients, library};
use crate::process::{self, Server};

const THREADS: &str = "2";

fn start(driver: &str, programs: &Path, run: &Path) -> Result<Server> {
    let port = process::free_port()?;
    let mut command = Command::new(programs.join(driver));
    command
        .args([&port.to_string(), THREADS])
        .env("LD_LIBRARY_PATH", programs);
    Server::start(&mut command, port, &run.join("log"))
}

fn load(port: u16, clients: &mut Clients) -> Result<()> {
    clients.start("driver".to_owned(), move |client| {
        library::work(client, port)
    })
}

/// CVE-2024-45490: a negative length was taken as it came.
#[derive(Debug)]
pub(crate) struct Expat;

impl Case for Expat {
    fn name(&self) -> &'static str {
        "expat-45490"
    }

    fn label(&self) -> &'static str {
        "CVE-2024-45490"
    }

    fn image(&self) -> &'static str {
        "libexpat.so.1"
    }

    fn changed(&self) -> &'static [&'static str] {
        &["XML_ParseBuffer"]
    }

    fn start(&self, programs: &Path, run: &Path) -> Result<Server> {
        start("expatloop", programs, run)
    }

    fn load(&self, port: u16, clients: &mut Clients) -> Result<()> {
        load(port, clients)
    }

    fn probe(&self, port: u16) -> Result<(Answer, String)> {
        let seen = library::ask(port, "negative")?;
        // XML_ERROR_INVALID_ARGUMENT is the answer that the fix brought.
        let answer = if seen == "status=0 error=41" {
            Answer::New
        } else {
            Answer::Old
        };
        Ok((answer, format!("a length of -1 gives {seen}")))
    }

    fn requests(&self) -> u64 {
        5_000
    }
}

/// CVE-2025-6965: more aggregate terms than the parser can count.
#[derive(Debug)]
pub(crate) struct Sqlite;

impl Case for Sqlite {
    fn name(&self) -> &'static str {
        "sqlite3-6965"
    }

    fn label(&self) -> &'static str {
        "CVE-2025-6965"
    }

    fn image(&self) -> &'static str {
        "libsqlite3.so.0"
    }

    fn changed(&self) -> &'static [&'static str] {
        &["analyzeAggregate", "sqlite3ExprCodeTarget", "sqlite3Select"]
    }

    /// Two members of each column of an aggregate grow from 16 to 32 bits, and the
    /// second of them moves. Such columns live in the heap while a statement is
    /// being prepared, which nobody but a person can know to be over.
    fn expectation(&self) -> Expectation {
        Expectation::Refused {
            rule: "R-LAYOUT",
            subject: "AggInfo_col",
        }
    }

    /// Who reads `sqlite3Select` knows: it makes each such object and gives it back before it
    /// returns, and it is itself replaced. So none is there while no thread is inside.
    fn judgement(&self) -> Option<Judgement> {
        Some(Judgement {
            allow: &["R-LAYOUT=AggInfo", "R-LAYOUT=AggInfo_col"],
            because: "sqlite3Select makes them and frees them, and the patch is applied while no \
                      thread is inside it",
        })
    }

    fn apart(&self) -> Apart {
        Apart::Person
    }

    fn start(&self, programs: &Path, run: &Path) -> Result<Server> {
        start("sqlloop", programs, run)
    }

    fn load(&self, port: u16, clients: &mut Clients) -> Result<()> {
        load(port, clients)
    }

    fn probe(&self, port: u16) -> Result<(Answer, String)> {
        const COLUMNS: usize = 1300;
        for table in ["p", "q"] {
            let columns: Vec<_> = (0..COLUMNS)
                .map(|column| format!("{table}{column}"))
                .collect();
            for line in [
                format!("drop table if exists {table}"),
                format!("create table {table}({})", columns.join(",")),
            ] {
                let answer = library::ask(port, &line)?;
                if !answer.starts_with("OK") {
                    bail!("the probe's tables cannot be made: {answer}");
                }
            }
        }
        let terms: Vec<_> = ["p", "q"]
            .iter()
            .flat_map(|table| (0..COLUMNS).map(move |column| format!("{table}{column}")))
            .collect();
        let seen = library::ask(port, &format!("select sum({}) from p,q", balanced(&terms)))?;
        let answer = if seen.contains("aggregate terms") {
            Answer::New
        } else {
            Answer::Old
        };
        Ok((answer, seen.chars().take(60).collect()))
    }

    fn requests(&self) -> u64 {
        5_000
    }
}

/// A sum as a balanced tree, so that the parser's limit of depth is not met.
fn balanced(terms: &[String]) -> String {
    match terms {
        [] => "0".to_owned(),
        [term] => term.clone(),
        _ => {
            let (left, right) = terms.split_at(terms.len() / 2);
            format!("({}+{})", balanced(left), balanced(right))
        }
    }
}
