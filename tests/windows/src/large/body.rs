//! Functions, statement by statement.

use std::fmt::Write as _;

use super::header::{RECORDS, STATICS, WEIGHTS};
use super::{FUNCTIONS, Numbers, UNITS};

/// The record that a function or variable is about.
pub(super) fn record_of(unit: usize, number: usize) -> usize {
    (unit * 7 + number * 13) % RECORDS
}

/// Whether other files may call it.
pub(super) fn is_public(number: usize) -> bool {
    !number.is_multiple_of(3)
}

/// One function.
pub(super) struct Body<'n> {
    unit: usize,
    number: usize,
    numbers: &'n mut Numbers,
    deep: usize,
}

impl Body<'_> {
    pub(super) fn new(unit: usize, number: usize, numbers: &mut Numbers) -> Body<'_> {
        Body {
            unit,
            number,
            numbers,
            deep: 1,
        }
    }

    pub(super) fn write(mut self, text: &mut String) {
        let (unit, number) = (self.unit, self.number);
        let linkage = if is_public(number) { "" } else { "static " };
        let record = record_of(unit, number);
        let _ = writeln!(
            text,
            "{linkage}int f_{unit}_{number}(struct record_{record} *r, int x) {{\n    int a = x * {}, b = r->count, c = {};\n    u64 m = {}ull;",
            self.numbers.below(70) + 2,
            self.numbers.below(9_000),
            self.numbers.0,
        );
        for _ in 0..4 + self.numbers.below(7) {
            self.statement(text);
        }
        text.push_str("    return a + b * 3 - c + (int)(m >> 40);\n}\n");
    }

    fn line(&self, line: &str, text: &mut String) {
        for _ in 0..self.deep {
            text.push_str("    ");
        }
        text.push_str(line);
        text.push('\n');
    }

    fn block(&mut self, head: &str, text: &mut String) {
        self.line(&format!("{head} {{"), text);
        self.deep += 1;
        for _ in 0..1 + self.numbers.below(3) {
            self.statement(text);
        }
        self.deep -= 1;
        self.line("}", text);
    }

    /// A variable of the file, of one of the six kinds.
    fn variable(&mut self, kind: usize) -> usize {
        self.numbers.below(STATICS / 6) * 6 + kind
    }

    /// A number that can be read.
    fn value(&mut self) -> String {
        let unit = self.unit;
        match self.numbers.below(9) {
            0 => self.numbers.below(100_000).to_string(),
            1 => format!("r->slots[{}]", self.numbers.below(8)),
            2 => format!("counter_{unit}_{}", self.variable(0)),
            3 => format!("table_{unit}_{}[x & 15]", self.variable(1)),
            4 => format!("state_{unit}_{}.count", self.variable(2)),
            5 => format!("room_{unit}_{}[b & 15]", self.variable(3)),
            6 => "r->kind".to_owned(),
            7 => "(int)m".to_owned(),
            _ => ["a", "b", "c", "x"][self.numbers.below(4)].to_owned(),
        }
    }

    fn expression(&mut self) -> String {
        let (one, other) = (self.value(), self.value());
        let operator = ["+", "-", "*", "^", "&", "|"][self.numbers.below(6)];
        match self.numbers.below(4) {
            0 => format!(
                "({one} {operator} {other}) / {}",
                self.numbers.below(60) + 2
            ),
            1 => format!("({one} {operator} {other}) << {}", self.numbers.below(7)),
            _ => format!("{one} {operator} {other}"),
        }
    }

    fn place(&mut self) -> String {
        let unit = self.unit;
        match self.numbers.below(6) {
            0 => format!("r->slots[{}]", self.numbers.below(8)),
            1 => format!("counter_{unit}_{}", self.variable(0)),
            2 => format!("room_{unit}_{}[a & 15]", self.variable(3)),
            _ => ["a", "b", "c"][self.numbers.below(3)].to_owned(),
        }
    }

    fn condition(&mut self) -> String {
        let (one, other) = (self.value(), self.value());
        let relation = ["<", ">", "==", "!=", "<="][self.numbers.below(5)];
        format!("{one} {relation} {other}")
    }

    fn statement(&mut self, text: &mut String) {
        let unit = self.unit;
        let may_nest = self.deep < 4;
        match self.numbers.below(14) {
            0 | 1 if may_nest => {
                let condition = self.condition();
                self.block(&format!("if ({condition})"), text);
                if self.numbers.one_in(3) {
                    self.block("else", text);
                }
            }
            2 if may_nest => {
                let deep = self.deep;
                let end = self.value();
                self.block(
                    &format!("for (int i{deep} = 0; i{deep} < {end}; i{deep}++)"),
                    text,
                );
            }
            3 if may_nest => self.choice(text),
            4 => {
                let called = self.called();
                self.line(&called, text);
            }
            5 => {
                let weight = self.numbers.below(WEIGHTS);
                let line = format!(
                    "b += weigh_{weight}((const struct record_{} *)r, {});",
                    weight * 5,
                    self.value()
                );
                self.line(&line, text);
            }
            6 => {
                let (names, value) = (self.variable(4), self.value());
                let line = if self.numbers.one_in(2) {
                    format!("note(names_{unit}_{names}[x & 3], {value});")
                } else {
                    format!(
                        "note(\"{} {unit} step {}\", {value});",
                        ["cannot read", "too long in", "closed by", "again"][self.numbers.below(4)],
                        self.numbers.below(400)
                    )
                };
                self.line(&line, text);
            }
            7 => {
                let share = self.variable(5);
                let line = format!(
                    "share_{unit}_{share} = share_{unit}_{share} * {}.125 + r->share / (b | 1);",
                    self.numbers.below(70)
                );
                self.line(&line, text);
            }
            8 => self.line("if (r->act) c ^= r->act(r, a);", text),
            9 => {
                let line = format!(
                    "m = (m << {}) ^ (m >> 7) ^ (u64)(unsigned){};",
                    self.numbers.below(30) + 1,
                    self.value()
                );
                self.line(&line, text);
            }
            10 => self.line(
                "while (r->next && r->count < b) { r = r->next; b--; }",
                text,
            ),
            _ => {
                let (place, value) = (self.place(), self.expression());
                let sign = ["=", "+=", "^=", "-="][self.numbers.below(4)];
                self.line(&format!("{place} {sign} {value};"), text);
            }
        }
    }

    fn choice(&mut self, text: &mut String) {
        let value = self.value();
        let many = 4 + self.numbers.below(9);
        self.line(&format!("switch (({value}) & 15) {{"), text);
        for case in 0..many {
            let (place, expression) = (self.place(), self.expression());
            self.line(
                &format!("case {case}: {place} += {expression}; break;"),
                text,
            );
        }
        self.line("default: c--; }", text);
    }

    /// A call of a function that is declared already.
    fn called(&mut self) -> String {
        let value = self.value();
        let other = self.numbers.below(8);
        let (unit, number) = if self.numbers.one_in(3) && self.number > 0 {
            (self.unit, self.numbers.below(self.number))
        } else {
            let number = self.numbers.below(FUNCTIONS / 15) * 15 + 1;
            ((self.unit + other * 37 + 1) % UNITS, number)
        };
        format!(
            "c += f_{unit}_{number}((struct record_{} *)r, {value});",
            record_of(unit, number)
        )
    }
}
