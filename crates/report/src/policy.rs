//! The style, the script, and the policy that lets a browser use these and nothing else.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};

/// The style sheet of the report.
pub(crate) const STYLE: &str = include_str!("../templates/report.css");
/// The script of the report.
pub(crate) const SCRIPT: &str = include_str!("../templates/report.js");

/// The content security policy: no request to anybody, and of inline code only what has
/// these hashes. A name that broke out of its place would still be no script.
pub(crate) fn policy() -> String {
    let hash = |text: &str| STANDARD.encode(Sha256::digest(text));
    format!(
        "default-src 'none'; style-src 'sha256-{}'; script-src 'sha256-{}'; base-uri 'none'; \
         form-action 'none'",
        hash(STYLE),
        hash(SCRIPT)
    )
}
