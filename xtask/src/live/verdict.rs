//! What came of the cases: one line for each, in one table.

use super::Case;
use crate::invivo::Diff;
use crate::paint;

/// What came of one case.
#[derive(Debug)]
pub(crate) struct Verdict {
    case: String,
    /// How many functions the source changes, how many are replaced, and how many
    /// are left as they are because only line numbers differ.
    functions: Option<[usize; 3]>,
    /// What happened, in a few words.
    pub(crate) said: String,
    /// Whether that is what had to happen.
    pub(crate) holds: bool,
    /// The size of the patch, in bytes.
    pub(crate) patch: Option<u64>,
    /// What the clients and the tool saw, where the fix went live.
    pub(crate) seen: Option<Seen>,
}

/// What was seen of a fix that went live.
#[derive(Debug)]
pub(crate) struct Seen {
    /// How long the longest apply to a process took, in microseconds.
    pub(crate) apply_us: u64,
    /// The longest wait for an answer while a patch was being applied, in
    /// microseconds.
    pub(crate) stall_us: u64,
    /// Requests that were answered.
    pub(crate) requests: u64,
    /// Wrong answers and lost connections.
    pub(crate) errors: u64,
}

impl Verdict {
    pub(super) fn new(case: &dyn Case, diff: &Diff) -> Self {
        Self {
            case: case.name().to_owned(),
            functions: Some([case.changed().len(), diff.hot.len(), diff.left_out.len()]),
            said: String::new(),
            holds: false,
            patch: None,
            seen: None,
        }
    }

    /// A case that could not be taken to its end.
    pub(crate) fn failed(name: &str, error: &anyhow::Error) -> Self {
        println!("  {}", paint::bad(format!("{error:#}")));
        Self {
            case: name.to_owned(),
            functions: None,
            said: "failed, see above".to_owned(),
            holds: false,
            patch: None,
            seen: None,
        }
    }
}

/// Prints all verdicts as a table.
pub(crate) fn print(verdicts: &[Verdict]) {
    const HEAD: [&str; 10] = [
        "case", "source", "hot", "lines", "patch", "apply", "stall", "requests", "errors",
        "verdict",
    ];
    println!("\n  {}", paint::dim(line(&HEAD.map(str::to_owned))));
    for verdict in verdicts {
        let functions = verdict
            .functions
            .map(|counts| counts.map(|n| n.to_string()));
        let [source, hot, lines] = functions.unwrap_or_default();
        let patch = verdict.patch.map(paint::count).unwrap_or_default();
        let seen = verdict.seen.as_ref().map(|seen| {
            [
                paint::micros(seen.apply_us),
                paint::micros(seen.stall_us),
                paint::count(seen.requests),
                paint::count(seen.errors),
            ]
        });
        let [apply, stall, requests, errors] = seen.unwrap_or_default();
        let (mark, said) = if verdict.holds {
            (paint::good("✓"), verdict.said.clone())
        } else {
            (paint::bad("✗"), paint::bad(&verdict.said))
        };
        let case = verdict.case.clone();
        let cells = [
            case, source, hot, lines, patch, apply, stall, requests, errors, said,
        ];
        println!("{mark} {}", line(&cells));
    }
    println!(
        "\n  source: functions that the fix changes; hot: functions that are replaced; lines: left as they\n  \
         are, only line numbers differ; patch: bytes; stall: longest wait of a client during an apply"
    );
}

fn line(
    [
        case,
        source,
        hot,
        lines,
        patch,
        apply,
        stall,
        requests,
        errors,
        said,
    ]: &[String; 10],
) -> String {
    format!(
        "{case:18}{source:>7}{hot:>5}{lines:>7}{patch:>9}{apply:>9}{stall:>9}{requests:>12}{errors:>8}  {said}"
    )
}
