//! The sum of everything that passed or failed.

use std::fmt;

/// How many checks passed and failed.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
    /// Tests that `cargo test` left out; there should be none.
    pub(crate) ignored: u64,
    /// What failed, as far as it has a name.
    named: Vec<String>,
}

impl Tally {
    /// Counts one check.
    pub(crate) fn check(&mut self, name: &str, passed: bool) {
        if passed {
            self.passed += 1;
        } else {
            self.failed += 1;
            self.named.push(name.to_owned());
        }
    }

    /// What failed, as far as it has a name.
    pub(crate) fn names(&self) -> &[String] {
        &self.named
    }

    /// Adds another tally.
    pub(crate) fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.ignored += other.ignored;
        self.named.extend(other.named);
    }

    /// Adds a line of a test program's output when it holds a result, such as
    /// `test result: ok. 3 passed; 0 failed; 0 ignored; …`; says whether it did. Keeps the name
    /// of a test that failed, which a line such as `test a::b ... FAILED` told before.
    pub(crate) fn read_line(&mut self, line: &str) -> bool {
        let failed = line
            .strip_prefix("test ")
            .and_then(|rest| rest.strip_suffix(" ... FAILED"));
        self.named.extend(failed.map(str::to_owned));
        let Some((_, numbers)) = line
            .trim_start()
            .strip_prefix("test result: ")
            .and_then(|rest| rest.split_once(". "))
        else {
            return false;
        };
        for part in numbers.split("; ") {
            match part
                .split_once(' ')
                .map(|(number, what)| (number.parse::<u64>(), what))
            {
                Some((Ok(number), "passed")) => self.passed += number,
                Some((Ok(number), "failed")) => self.failed += number,
                Some((Ok(number), "ignored")) => self.ignored += number,
                _ => (),
            }
        }
        true
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed", self.passed, self.failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_read() {
        let mut tally = Tally::default();
        assert!(!tally.read_line("test a::b ... ok"));
        tally.read_line("test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s");
        tally.read_line("test a::c ... FAILED");
        tally.read_line(
            "test result: FAILED. 3 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out",
        );
        assert_eq!(
            tally,
            Tally {
                passed: 15,
                failed: 2,
                ignored: 1,
                named: vec!["a::c".to_owned()],
            }
        );
        assert_eq!(tally.to_string(), "15 passed, 2 failed");
    }
}
