//! How two functions differ, and why a function is hot.

use invivo_image::LinkAddr;
use serde::Serialize;

/// A difference, and the two instructions that show it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Differing {
    /// In what way they differ.
    pub what: Difference,
    /// The instruction in the base and its counterpart; none where the functions differ as a
    /// whole.
    pub at: Option<(LinkAddr, LinkAddr)>,
}

/// One way in which two functions differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Difference {
    /// Other instructions.
    Instructions,
    /// The same instruction with another number in it.
    Number {
        /// In the base.
        base: u64,
        /// In the fixed image.
        fixed: u64,
    },
    /// The same instruction refers to something else.
    Reference {
        /// What the base refers to.
        base: String,
        /// What the fixed image refers to.
        fixed: String,
    },
    /// A constant without a name that the code reads has other contents.
    Constant {
        /// In the base, as text.
        base: String,
        /// In the fixed image, as text.
        fixed: String,
    },
    /// A constant that the code reads differs in nothing but a number that may be a line: a
    /// text such as `src/h1.c:612`, or the place that a panic of Rust reports.
    Line {
        /// In the base.
        base: u64,
        /// In the fixed image.
        fixed: u64,
    },
    /// A constant differs in nothing but line numbers, as the line in which it is declared shows.
    Record {
        /// One of them in the base.
        base: u64,
        /// In the fixed image.
        fixed: u64,
    },
    /// Nothing is known to differ, but a number that is the same in both images may be an
    /// address, and would then be that of something else.
    Doubt {
        /// The number, if it stands in the code; otherwise it stands in data.
        number: Option<u64>,
        /// What the base has there, or what data it stands in.
        base: String,
        /// The same of the fixed image.
        fixed: String,
    },
    /// One of them cannot be decoded, and their bytes differ.
    Undecoded,
    /// One has a cold part and the other has not.
    ColdPart,
    /// The language's table for exceptions differs.
    ExceptionTable,
    /// What a table beside the code says of it differs.
    Annex {
        /// The section, such as `.altinstructions`.
        table: String,
    },
}

/// The sort of a [`Reason`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ReasonKind {
    /// It is called in another way than before.
    Signature,
    /// Its own source changed.
    Source,
    /// The source of a function changed that is inlined in it.
    Inlined,
    /// It calls a function that is called in another way than before.
    Callee,
    /// A clone that the compiler made of it, or of a function that it calls, came or is gone.
    Clone,
    /// Its instructions differ, and no debug data say where they come from.
    Code,
    /// It refers to something else.
    Reference,
    /// A constant that it reads differs.
    Constant,
    /// Nothing is known to differ, but a number may be an address: nothing tells in an image
    /// with fixed addresses whose linker did not keep the relocations.
    Doubt,
    /// Only numbers differ, all by the same amount, as `__LINE__` does; no debug data prove it.
    Numbers,
    /// Only line numbers differ, as the debug data show.
    Lines,
    /// The same operations with other registers or in another order; no change of the source
    /// was seen.
    Compiler,
}

/// Why a function is in the hot set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, schemars::JsonSchema)]
pub struct Reason {
    /// The sort.
    pub kind: ReasonKind,
    /// For a person.
    pub text: String,
}

impl Reason {
    /// Nothing but line numbers differs, as the debug data show.
    pub(crate) fn lines(differences: &[Differing]) -> Reason {
        let numbers = differences.iter().filter_map(Differing::number);
        let mut moved: Vec<i128> = numbers
            .map(|(base, fixed)| i128::from(fixed) - i128::from(base))
            .collect();
        let times = moved.len();
        moved.sort_unstable();
        moved.dedup();
        let moved: Vec<String> = moved.iter().map(|by| format!("{by:+}")).collect();
        let plural = if times == 1 { "" } else { "s" };
        Reason {
            kind: ReasonKind::Lines,
            text: format!(
                "only {times} line number{plural} moved, by {}",
                moved.join(" and ")
            ),
        }
    }

    /// What a list of differences comes to, where no debug data say more.
    #[must_use]
    pub fn of(differences: &[Differing]) -> Vec<Reason> {
        let mut reasons = Vec::new();
        let mut say = |kind, text: String| reasons.push(Reason { kind, text });
        let numbers: Vec<i128> = differences
            .iter()
            .map_while(|difference| difference.number())
            .map(|(base, fixed)| i128::from(fixed) - i128::from(base))
            .collect();
        if let [first, rest @ ..] = &numbers[..]
            && numbers.len() == differences.len()
        {
            let times = numbers.len();
            // No file has a million lines, and no fix moves a line by thousands.
            let like_lines = differences
                .iter()
                .filter_map(Differing::number)
                .all(|(base, fixed)| base.max(fixed) < 1_000_000);
            let alone = rest.is_empty() && first.unsigned_abs() > 100;
            let together =
                rest.iter().all(|number| number == first) && first.unsigned_abs() < 2_000;
            if together && like_lines && !alone {
                say(
                    ReasonKind::Numbers,
                    format!(
                        "only numbers differ, {times} of them by {first:+}, as line numbers do"
                    ),
                );
            } else {
                say(
                    ReasonKind::Code,
                    format!("{times} numbers in its instructions differ"),
                );
            }
            return reasons;
        }
        for difference in differences {
            match &difference.what {
                Difference::Reference { base, fixed } if base == fixed => {
                    let text = format!("refers to {fixed}, which holds something else");
                    say(ReasonKind::Reference, text);
                }
                Difference::Reference { base, fixed } => {
                    say(
                        ReasonKind::Reference,
                        format!("refers to {fixed}, was {base}"),
                    );
                }
                Difference::Doubt {
                    number: Some(number),
                    base,
                    fixed,
                } => {
                    let text = format!(
                        "{number:#x} in it may be an address, of {fixed} now, of {base} before"
                    );
                    say(ReasonKind::Doubt, text);
                }
                Difference::Doubt { fixed, .. } => {
                    let text = format!(
                        "refers to {fixed}, which is the same, unless a number in it is an address"
                    );
                    say(ReasonKind::Doubt, text);
                }
                Difference::Constant { base, fixed } => {
                    say(ReasonKind::Constant, format!("reads {fixed}, was {base}"));
                }
                Difference::Instructions
                | Difference::Number { .. }
                | Difference::Line { .. }
                | Difference::Record { .. } => {
                    say(ReasonKind::Code, "its instructions differ".to_owned());
                }
                Difference::Undecoded => {
                    say(
                        ReasonKind::Code,
                        "its bytes differ and are not all instructions".to_owned(),
                    );
                }
                Difference::ColdPart => {
                    say(
                        ReasonKind::Code,
                        "its cold part appeared or vanished".to_owned(),
                    );
                }
                Difference::Annex { table } => {
                    say(ReasonKind::Code, format!("its entries in {table} differ"));
                }
                Difference::ExceptionTable => {
                    say(ReasonKind::Code, "its exception table differs".to_owned());
                }
            }
        }
        reasons.sort_by_key(|reason| reason.kind);
        reasons.dedup_by(|a, b| a.text == b.text);
        reasons
    }
}

impl Differing {
    /// The two numbers, where nothing but a number differs.
    #[must_use]
    pub fn number(&self) -> Option<(u64, u64)> {
        match self.what {
            Difference::Number { base, fixed }
            | Difference::Line { base, fixed }
            | Difference::Record { base, fixed } => Some((base, fixed)),
            _ => None,
        }
    }

    /// True if the instructions are the same but for what they refer to.
    pub(crate) fn keeps_instructions(&self) -> bool {
        matches!(
            self.what,
            Difference::Reference { .. }
                | Difference::Constant { .. }
                | Difference::Line { .. }
                | Difference::Record { .. }
                | Difference::Doubt { .. }
        )
    }
}
