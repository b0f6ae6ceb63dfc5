//! How two functions differ, and why a function is hot.

use serde::Serialize;

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
    /// One of them cannot be decoded, and their bytes differ.
    Undecoded,
    /// One has a cold part and the other has not.
    ColdPart,
    /// The language's table for exceptions differs.
    ExceptionTable,
}

/// The sort of a [`Reason`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ReasonKind {
    /// Its instructions differ.
    Code,
    /// Only numbers in its instructions differ, all by the same amount, as `__LINE__` does.
    Numbers,
    /// It refers to something else.
    Reference,
    /// A constant that it reads differs.
    Constant,
}

/// Why a function is in the hot set.
#[derive(Clone, Debug, Serialize, schemars::JsonSchema)]
pub struct Reason {
    /// The sort.
    pub kind: ReasonKind,
    /// For a person.
    pub text: String,
}

impl Reason {
    /// What a list of differences comes to.
    #[must_use]
    pub fn of(differences: &[Difference]) -> Vec<Reason> {
        let mut reasons = Vec::new();
        let mut say = |kind, text: String| reasons.push(Reason { kind, text });
        let numbers: Vec<i128> = differences
            .iter()
            .map_while(|difference| match difference {
                Difference::Number { base, fixed } => Some(i128::from(*fixed) - i128::from(*base)),
                _ => None,
            })
            .collect();
        if let [first, rest @ ..] = &numbers[..]
            && numbers.len() == differences.len()
        {
            let times = numbers.len();
            // No file has a million lines, and no fix moves a line by thousands.
            let like_lines = differences.iter().all(|difference| {
                matches!(difference, Difference::Number { base, fixed } if base.max(fixed) < &1_000_000)
            });
            let together =
                rest.iter().all(|number| number == first) && first.unsigned_abs() < 2_000;
            if together && like_lines {
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
            match difference {
                Difference::Reference { base, fixed } => {
                    say(
                        ReasonKind::Reference,
                        format!("refers to {fixed}, was {base}"),
                    );
                }
                Difference::Constant { base, fixed } => {
                    say(ReasonKind::Constant, format!("reads {fixed}, was {base}"));
                }
                Difference::Instructions | Difference::Number { .. } => {
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
                Difference::ExceptionTable => {
                    say(ReasonKind::Code, "its exception table differs".to_owned());
                }
            }
        }
        reasons.sort_by_key(|reason| reason.kind as u8);
        reasons.dedup_by(|a, b| a.text == b.text);
        reasons
    }
}
