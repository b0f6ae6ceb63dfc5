//! A browser without a window, driven over WebDriver.
//!
//! The protocol is W3C WebDriver; what goes beyond it (`goog/…`, `se/log`) is chromedriver's own.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use ureq::Agent;

/// The keys that have no letter, as WebDriver writes them.
pub mod key {
    /// Enter.
    pub const ENTER: &str = "\u{e007}";
    /// Escape.
    pub const ESCAPE: &str = "\u{e00c}";
    /// Tab.
    pub const TAB: &str = "\u{e004}";
    /// The arrow that points down.
    pub const DOWN: &str = "\u{e015}";
}

/// The user's wish for light or dark pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// Dark letters on light ground.
    Light,
    /// Light letters on dark ground.
    Dark,
}

/// A browser with one page.
#[derive(Debug)]
pub struct Browser {
    driver: Child,
    agent: Agent,
    /// Of the driver, and then of the session.
    address: String,
    /// What the browser keeps while it runs.
    profile: PathBuf,
}

impl Browser {
    /// Starts a browser that keeps its files in `folder`.
    ///
    /// # Errors
    /// When the driver or the browser does not start.
    pub fn start(folder: &Path) -> Result<Browser> {
        let mut driver = Command::new("chromedriver")
            .arg("--port=0")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .context("chromedriver does not start (cargo xtask install)")?;
        let output = driver.stdout.take().context("the driver has no output")?;
        let port = BufReader::new(output)
            .lines()
            .map_while(Result::ok)
            .find_map(|line| {
                let port = line
                    .strip_suffix('.')?
                    .rsplit_once("successfully on port ")?
                    .1;
                port.parse::<u16>().ok()
            });
        // A proxy for the way out must not see requests to the own machine.
        let agent = Agent::config_builder()
            .proxy(None)
            .http_status_as_error(false)
            .timeout_global(Some(Duration::from_secs(120)))
            .build();
        let mut browser = Browser {
            driver,
            agent: agent.into(),
            address: String::new(),
            profile: folder.join("profile"),
        };
        browser.address = format!(
            "http://127.0.0.1:{}/session",
            port.context("the driver has no port")?
        );
        let profile = format!("--user-data-dir={}", browser.profile.display());
        let session = browser.ask(
            "",
            &json!({"capabilities": {"alwaysMatch": {
                "goog:loggingPrefs": {"browser": "ALL"},
                "goog:chromeOptions": {"args": [
                    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
                    "--disable-background-networking", "--disable-component-update", "--disable-sync",
                    "--disable-dev-shm-usage", "--hide-scrollbars", "--window-size=1360,1000", profile,
                ]},
            }}}),
        )?;
        let id = session["sessionId"].as_str().context("no session")?;
        browser.address = format!("{}/{id}", browser.address);
        Ok(browser)
    }

    fn ask(&self, command: &str, body: &Value) -> Result<Value> {
        let address = format!("{}{command}", self.address);
        let mut answer = self.agent.post(&address).send_json(body)?;
        let mut answer: Value = answer
            .body_mut()
            .with_config()
            .limit(64 << 20)
            .read_json()?;
        if !answer["value"]["error"].is_null() {
            bail!("{command}: {}", answer["value"]);
        }
        Ok(answer["value"].take())
    }

    /// Opens a file.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn open(&self, file: &Path) -> Result<()> {
        let address = format!("file://{}", file.canonicalize()?.display());
        self.ask("/url", &json!({"url": address})).map(drop)
    }

    /// What a script returns.
    ///
    /// # Errors
    /// When the script fails, or an alert is open.
    pub fn script(&self, script: &str) -> Result<Value> {
        self.ask("/execute/sync", &json!({"script": script, "args": []}))
    }

    /// Presses keys, one after the other.
    ///
    /// # Errors
    /// When the browser does not take them.
    pub fn press(&self, keys: &str) -> Result<()> {
        let strokes: Vec<Value> = keys
            .chars()
            .flat_map(|key| ["keyDown", "keyUp"].map(|what| json!({"type": what, "value": key})))
            .collect();
        let keyboard = json!({"type": "key", "id": "keyboard", "actions": strokes});
        self.ask("/actions", &json!({"actions": [keyboard]}))
            .map(drop)
    }

    /// Clicks on the first element that fits.
    ///
    /// # Errors
    /// When there is none, or it cannot be clicked on.
    pub fn click(&self, selector: &str) -> Result<()> {
        let element = self.ask(
            "/element",
            &json!({"using": "css selector", "value": selector}),
        )?;
        let id = element
            .as_object()
            .and_then(|parts| parts.values().next()?.as_str());
        let id = id.with_context(|| format!("no element {selector}"))?;
        self.ask(&format!("/element/{id}/click"), &json!({}))
            .map(drop)
    }

    /// Lets the page know whether the user wants it light or dark.
    ///
    /// # Errors
    /// When the browser does not take it.
    pub fn prefer(&self, scheme: Scheme) -> Result<()> {
        let value = match scheme {
            Scheme::Light => "light",
            Scheme::Dark => "dark",
        };
        let features = json!([{"name": "prefers-color-scheme", "value": value}]);
        let command =
            json!({"cmd": "Emulation.setEmulatedMedia", "params": {"features": features}});
        self.ask("/goog/cdp/execute", &command).map(drop)
    }

    /// What the browser's console holds, since it was last asked.
    ///
    /// # Errors
    /// When the driver does not tell.
    pub fn console(&self) -> Result<Vec<String>> {
        let entries = self.ask("/se/log", &json!({"type": "browser"}))?;
        let entries = entries.as_array().context("the console is no list")?;
        Ok(entries.iter().map(ToString::to_string).collect())
    }

    /// Keeps a picture of the whole page.
    ///
    /// # Errors
    /// When it cannot be taken or written.
    pub fn picture(&self, file: &Path) -> Result<()> {
        let command =
            json!({"cmd": "Page.captureScreenshot", "params": {"captureBeyondViewport": true}});
        let picture = self.ask("/goog/cdp/execute", &command)?;
        let bytes = STANDARD.decode(picture["data"].as_str().context("no picture")?)?;
        std::fs::write(file, bytes).with_context(|| format!("cannot write {}", file.display()))
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // The driver ends the browser that it started; only then may it go itself.
        let _ = self.agent.delete(&self.address).call();
        let _ = self.driver.kill();
        let _ = self.driver.wait();
        let _ = std::fs::remove_dir_all(&self.profile);
    }
}
