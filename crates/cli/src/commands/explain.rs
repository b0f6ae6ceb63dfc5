//! `invivo explain`

use invivo_compare::Rule;
use owo_colors::OwoColorize;
use schemars::JsonSchema;
use serde::Serialize;

use crate::arguments::Explain;
use crate::failure::Failure;
use crate::output::Output;

/// `explain --json`.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Rules {
    schema: &'static str,
    rules: Vec<Explained>,
}

#[derive(Debug, Serialize, JsonSchema)]
struct Explained {
    id: Rule,
    /// What it demands, in one line.
    meaning: &'static str,
    /// Why it matters.
    why: &'static str,
    /// What to do where it is broken.
    remedy: &'static str,
    /// A change that breaks it.
    example: &'static str,
    /// True if `--allow` may set it aside.
    may_be_allowed: bool,
}

impl Explained {
    fn of(rule: Rule) -> Explained {
        let about = rule.about();
        Explained {
            id: rule,
            meaning: about.meaning,
            why: about.why,
            remedy: about.remedy,
            example: about.example,
            may_be_allowed: rule.may_be_allowed(),
        }
    }
}

pub(crate) fn run(explain: &Explain, output: &Output) -> Result<u8, Failure> {
    let rules = match explain.rule {
        Some(rule) => vec![Explained::of(rule)],
        None => Rule::ALL.into_iter().map(Explained::of).collect(),
    };
    let rules = Rules {
        schema: "invivo.explain/1",
        rules,
    };
    output.data(&rules, || match explain.rule {
        Some(_) => rules.rules.iter().for_each(print),
        None => rules.rules.iter().for_each(print_line),
    })?;
    Ok(0)
}

fn print_line(rule: &Explained) {
    anstream::println!("{:<14} {}", rule.id.id().bold(), rule.meaning);
}

fn print(rule: &Explained) {
    anstream::println!("{}  {}\n", rule.id.id().bold(), rule.meaning);
    anstream::println!("{} {}", "why:    ".cyan(), rule.why);
    anstream::println!("{} {}", "remedy: ".cyan(), rule.remedy);
    anstream::println!("{} {}", "example:".cyan(), rule.example);
    let allowed = if rule.may_be_allowed {
        format!("--allow {}=NAME --because \"…\"", rule.id.id())
    } else {
        "never: it is no matter of judgement".to_owned()
    };
    anstream::println!("{} {allowed}", "allowed:".cyan());
}
