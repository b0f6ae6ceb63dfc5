//! Clients that ask all the time and check every answer.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};

/// An answer takes this long only if it is lost.
const PATIENCE: Duration = Duration::from_secs(10);
/// A short pause between two questions: the target is to be busy, not the machine.
const PAUSE: Duration = Duration::from_micros(300);
/// What each version of the fixture `served` adds to a number.
const ADDED: [i32; 3] = [0, 2, 3];

/// Clients at work; they end when this goes out of scope.
#[derive(Debug)]
pub struct Clients {
    running: Vec<JoinHandle<Result<()>>>,
    over: Arc<AtomicBool>,
    answers: Arc<AtomicU64>,
}

impl Clients {
    /// Starts `count` clients of the server at `port`.
    ///
    /// # Errors
    ///
    /// When there is no server.
    pub fn start(count: usize, port: u16) -> Result<Self> {
        let (over, answers) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicU64::new(0)),
        );
        let mut running = Vec::new();
        for _ in 0..count {
            let stream = TcpStream::connect(("127.0.0.1", port)).context("no server")?;
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.set_nodelay(true)?;
            let (over, answers) = (Arc::clone(&over), Arc::clone(&answers));
            running.push(thread::spawn(move || ask(stream, &over, &answers)));
        }
        Ok(Self {
            running,
            over,
            answers,
        })
    }

    /// No client may have ended.
    ///
    /// # Errors
    ///
    /// What ended it.
    pub fn are_well(&mut self) -> Result<()> {
        match self.running.iter().position(JoinHandle::is_finished) {
            None => Ok(()),
            Some(ended) => {
                let ended = self.running.remove(ended).join();
                ended.map_err(|_| anyhow!("a client failed"))??;
                Err(anyhow!("a client ended"))
            }
        }
    }

    /// Ends them, and tells how many answers they had; all were right.
    ///
    /// # Errors
    ///
    /// At a wrong or missing answer.
    pub fn end(mut self) -> Result<u64> {
        self.over.store(true, Ordering::Relaxed);
        for client in std::mem::take(&mut self.running) {
            client.join().map_err(|_| anyhow!("a client failed"))??;
        }
        let answers = self.answers.load(Ordering::Relaxed);
        ensure!(answers > 0, "nobody was answered");
        Ok(answers)
    }
}

impl Drop for Clients {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
    }
}

fn ask(mut stream: TcpStream, over: &AtomicBool, answers: &AtomicU64) -> Result<()> {
    for question in (0..1_000_000_i32).cycle() {
        if over.load(Ordering::Relaxed) {
            break;
        }
        stream
            .write_all(&question.to_le_bytes())
            .context("a question was not taken")?;
        let mut answer = [0; 4];
        stream
            .read_exact(&mut answer)
            .context("an answer is lost")?;
        let added = i32::from_le_bytes(answer) - question;
        ensure!(
            ADDED.contains(&added),
            "{question} became {}",
            question + added
        );
        answers.fetch_add(1, Ordering::Relaxed);
        thread::sleep(PAUSE);
    }
    Ok(())
}
