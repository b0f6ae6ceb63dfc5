//! What a comparison says, in a form that tests can hold against what must be.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use invivo_compare::{Comparison, Severity};
use invivo_image::{Image, demangle};

/// Reads a linked file that has its symbols and debug data.
///
/// # Errors
/// When it is not one.
pub fn image(path: &Path) -> Result<Image> {
    let bytes = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let image = Image::parse(Arc::from(bytes), None)
        .with_context(|| format!("cannot use {}", path.display()))?;
    ensure!(image.has_symbols, "{} has no symbols", path.display());
    Ok(image)
}

/// Compares two linked files: exactly the functions `expected` may differ, and nothing
/// may be refused.
///
/// # Errors
/// With everything that is otherwise.
pub fn expect(base: &Path, fixed: &Path, expected: &[String]) -> Result<()> {
    expect_of(&image(base)?, &image(fixed)?, expected)
}

/// The same of two images that were read.
///
/// # Errors
/// As [`expect`].
pub fn expect_of(base: &Image, fixed: &Image, expected: &[String]) -> Result<()> {
    let c = Comparison::new(base, fixed);
    let mut wrong = Vec::new();
    for hot in &c.hot {
        if !expected.iter().any(|name| name == written(&hot.name)) {
            let reasons: Vec<_> = hot.reasons.iter().map(|r| r.text.as_str()).collect();
            wrong.push(format!("differs: {}: {}", hot.name, reasons.join("; ")));
        }
    }
    for name in expected {
        if !c.hot.iter().any(|hot| written(&hot.name) == name) {
            wrong.push(format!("not seen: {name}"));
        }
    }
    for (what, image, ids) in [("added", fixed, &c.added), ("removed", base, &c.removed)] {
        for id in ids {
            wrong.push(format!("{what}: {}", demangle(image.entity(*id).name())));
        }
    }
    for finding in &c.findings {
        if finding.severity == Severity::Refuse {
            wrong.push(format!(
                "{} {}: {}",
                finding.rule.id(),
                finding.subject,
                finding.text
            ));
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

/// A name as it stands in the source: link-time optimisation makes names of single files
/// unique (`step.lto_priv.1`, `step.3`).
fn written(name: &str) -> &str {
    let name = name
        .split_once(".lto_priv.")
        .map_or(name, |(written, _)| written);
    match name.rsplit_once('.') {
        Some((written, number)) if number.bytes().all(|byte| byte.is_ascii_digit()) => written,
        _ => name,
    }
}
