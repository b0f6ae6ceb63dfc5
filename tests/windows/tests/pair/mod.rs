//! Two builds of a library, given to the tool on its command line.
#![allow(dead_code, reason = "each program of tests uses a part of it")]

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use live_tests::invivo::invivo;
use live_tests::run::Ran;
use serde_json::Value;
use windows_tests::{Build, build};

/// What runs, and its fixed build.
pub(crate) struct Pair {
    pub(crate) base: PathBuf,
    pub(crate) fixed: PathBuf,
}

impl Pair {
    /// The service, for x86-64, with room for every hook.
    pub(crate) fn new(dir: &Path) -> Result<Pair> {
        let (base, fixed) = (Build::base().roomy(), Build::fixed("answer").roomy());
        Pair::of(dir, "service", [&base, &fixed])
    }

    /// Any program, each of the two built in its own way.
    pub(crate) fn of(dir: &Path, program: &str, how: [&Build; 2]) -> Result<Pair> {
        let base = build(dir, "base", program, how[0])?.path;
        let fixed = build(dir, "fixed", program, how[1])?.path;
        Ok(Pair { base, fixed })
    }

    pub(crate) fn build(&self, out: &Path, more: &[&str]) -> Result<Ran> {
        let [base, fixed, out] = [&self.base, &self.fixed, &out.to_owned()].map(text);
        invivo(&[&["build", &base, &fixed, "-o", &out][..], more].concat())
    }
}

pub(crate) fn text(path: impl AsRef<Path>) -> String {
    path.as_ref().display().to_string()
}

/// What the tool shows of the hooks of a patch module: their types, in their order.
pub(crate) fn kinds(module: &Path) -> Result<Vec<String>> {
    let told = invivo(&["inspect", &text(module), "--json"])?;
    let told = told.expect_code(0)?.json("invivo.image/1")?;
    let hooks = told["hotp1"]["hooks"].as_array().context("hooks")?;
    let kind = |hook: &Value| hook["kind"].as_str().map(str::to_owned);
    let kinds: Option<Vec<String>> = hooks.iter().map(kind).collect();
    kinds.context("types of hooks")
}
