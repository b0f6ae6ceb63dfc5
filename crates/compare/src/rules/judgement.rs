//! What a person has judged: a finding that would forbid the patch, and why it does not.

use serde::{Deserialize, Serialize};

use super::{Finding, Rule, Severity};
use crate::Comparison;

/// A refusal that a person has found to be harmless.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Judgement {
    /// The rule.
    pub rule: Rule,
    /// The subject of the finding.
    pub name: String,
    /// Why it does no harm.
    pub because: String,
}

/// A judgement that judges nothing.
#[derive(Clone, Debug, thiserror::Error)]
pub enum NotJudged {
    /// The rule is none of those that are left to a person.
    #[error("{} is no matter of judgement", .0.id())]
    Rule(Rule),
    /// No refusal has that rule and subject; those that there are.
    #[error("no refusal is {rule}={name}{}", listed(.refusals), rule = .rule.id())]
    Nothing {
        /// The rule that was named.
        rule: Rule,
        /// The subject that was named.
        name: String,
        /// What could be named.
        refusals: Vec<Finding>,
    },
}

fn listed(refusals: &[Finding]) -> String {
    let lines = refusals
        .iter()
        .map(|finding| format!("\n  {}={}", finding.rule.id(), finding.subject));
    lines.collect()
}

impl Comparison<'_> {
    /// Turns refusals into allowed findings.
    ///
    /// # Errors
    /// When the rule cannot be allowed, or no refusal has that rule and subject.
    pub fn allow(&mut self, judgements: Vec<Judgement>) -> Result<(), NotJudged> {
        for judgement in judgements {
            let Judgement {
                rule,
                name,
                because,
            } = &judgement;
            if !rule.may_be_allowed() {
                return Err(NotJudged::Rule(*rule));
            }
            let mut judged = false;
            for finding in &mut self.findings {
                // One judgement may stand for several findings of one subject.
                if finding.severity == Severity::Refuse
                    && (finding.rule, &finding.subject) == (*rule, name)
                {
                    finding.severity = Severity::Allowed;
                    finding.because = Some(because.clone());
                    judged = true;
                }
            }
            if !judged {
                let is_refusal = |finding: &&Finding| {
                    finding.severity == Severity::Refuse && finding.rule.may_be_allowed()
                };
                return Err(NotJudged::Nothing {
                    rule: *rule,
                    name: name.clone(),
                    refusals: self.findings.iter().filter(is_refusal).cloned().collect(),
                });
            }
            self.judgements.push(judgement);
        }
        super::sort(&mut self.findings);
        Ok(())
    }
}
