//! What the hypervisor, and the code that drives it, said to one step.

use std::time::Duration;

use anyhow::{Context, Result};
use invivo_xen::{Errno, Listed, Listing, State, Status};

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It was done.
    Done {
        /// With so many attempts; none if there was nothing to do.
        attempts: u32,
        /// In that time.
        took: Duration,
    },
    /// The call was refused.
    Refused(Errno),
    /// The call was taken, and the action failed; the payload is in that state.
    Failed(Errno, State),
    /// The hypervisor was busy each time.
    Busy {
        /// So often.
        attempts: u32,
        /// True if the action was begun.
        begun: bool,
    },
    /// The action had not ended after that time.
    Pending(Duration),
    /// A payload's status.
    Status(Status),
    /// All payloads.
    Listed(Listing),
    /// A text.
    Text(String),
    /// What a raw call returned.
    Number(i64),
    /// Another error of the code that drives the hypervisor, in its words.
    Error(String),
}

impl Answer {
    /// Whether it was done.
    #[must_use]
    pub fn is_done(&self) -> bool {
        matches!(self, Answer::Done { .. })
    }

    /// The error number, if the answer is one: of the call, or of the action.
    #[must_use]
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Answer::Refused(errno) | Answer::Failed(errno, _) => Some(*errno),
            Answer::Busy { .. } => Some(Errno::EBUSY),
            _ => None,
        }
    }

    /// Reads a line of the console, what follows `R `. Entries of a list are kept until it ends.
    pub(crate) fn read(line: &str, entries: &mut Vec<Listed>) -> Result<Option<Answer>> {
        let (kind, rest) = line.split_once(' ').unwrap_or((line, ""));
        let words: Vec<&str> = rest.split(' ').collect();
        let word = |at: usize| words.get(at).copied().context("a word is missing");
        let answer = match kind {
            "done" => Answer::Done {
                attempts: word(0)?.parse()?,
                took: Duration::from_micros(word(1)?.parse()?),
            },
            "refused" => Answer::Refused(Errno(word(0)?.parse()?)),
            "failed" => {
                let state = State::from_number(word(1)?.parse()?);
                Answer::Failed(Errno(word(0)?.parse()?), state)
            }
            "busy" => Answer::Busy {
                attempts: word(0)?.parse()?,
                begun: word(1)?.parse()?,
            },
            "pending" => Answer::Pending(Duration::from_micros(word(0)?.parse()?)),
            "status" => Answer::Status(status(word(0)?, word(1)?)?),
            "entry" => {
                let status = status(word(0)?, word(1)?)?;
                let texts = rest.splitn(3, ' ').nth(2).context("no name")?;
                let mut texts = texts.split('\t').map(str::to_owned);
                entries.push(Listed {
                    name: texts.next().context("no name")?,
                    status,
                    metadata: texts.collect(),
                });
                return Ok(None);
            }
            "listed" => Answer::Listed(Listing {
                version: word(0)?.parse()?,
                payloads: std::mem::take(entries),
            }),
            "text" => Answer::Text(rest.to_owned()),
            "number" => Answer::Number(word(0)?.parse()?),
            "error" | "panic" => Answer::Error(rest.to_owned()),
            _ => anyhow::bail!("not an answer: {line}"),
        };
        Ok(Some(answer))
    }
}

fn status(state: &str, result: &str) -> Result<Status> {
    Ok(Status {
        state: State::from_number(state.parse()?),
        result: result.parse()?,
    })
}
