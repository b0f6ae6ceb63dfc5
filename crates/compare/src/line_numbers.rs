//! Is a line number all that differs?
//!
//! A fix that adds six lines changes every `__LINE__` behind them in its file: assertions
//! and log calls of functions that it does not concern. Leaving such functions out keeps a
//! patch small, and often possible: a thread's main loop that never returns may be among
//! them. Leaving out one that really changed would lose the fix, so each number is held
//! against the source lines of the very instruction that carries it. Looking for equal
//! distances alone is the tempting wrong way: two time-outs that grow by the same amount
//! look like that, too.

use invivo_image::{DebugData, LinkAddr, SourceFunction, SourcePlace};

use crate::{Difference, Differing};

/// One side: the debug data, and the function.
pub(crate) type Side<'d, 's> = (&'d DebugData<'s>, &'d SourceFunction);

/// True if all `differences` are numbers that moved exactly as the lines did which their
/// instructions come from.
pub(crate) fn are_all(differences: &[Differing], base: Side<'_, '_>, fixed: Side<'_, '_>) -> bool {
    differences.iter().all(|difference| {
        // Held against the line of the record itself.
        if let Difference::Record { .. } = difference.what {
            return true;
        }
        let (Some((old, new)), Some((at, there))) = (difference.number(), difference.at) else {
            return false;
        };
        let (before, after) = (places(base, at), places(fixed, there));
        before.len() == after.len()
            && before
                .iter()
                .zip(&after)
                .any(|(before, after)| moved(old, new, before, after))
    })
}

/// The line of the instruction itself, and the lines that call what is inlined there.
fn places((debug, function): Side<'_, '_>, at: LinkAddr) -> Vec<SourcePlace> {
    let called = function.chain(at).into_iter();
    let called = called.filter_map(|inlined| inlined.called.clone());
    debug.place_of(at).into_iter().chain(called).collect()
}

/// True if the number is the line, and moved as far as the line did.
pub(crate) fn moved(old: u64, new: u64, before: &SourcePlace, after: &SourcePlace) -> bool {
    // `__LINE__` in the arguments of a macro is the line where the call ends; the
    // instruction's line is where it begins. A number before that is another number.
    const LONGEST_CALL: i128 = 12;
    let (old, new) = (i128::from(old), i128::from(new));
    let (from, to) = (i128::from(before.line), i128::from(after.line));
    before.file == after.file
        && new - old == to - from
        && (0..=LONGEST_CALL).contains(&(old - from))
}

/// The two numbers, if two texts differ in nothing but one decimal number.
pub(crate) fn line_in_text(base: &[u8], fixed: &[u8]) -> Option<(u64, u64)> {
    let same = base.iter().zip(fixed).take_while(|(a, b)| a == b).count();
    // The number begins before the first digit that differs.
    let digits = base[..same].iter().rev().take_while(|b| b.is_ascii_digit());
    let start = same - digits.count();
    let number = |text: &[u8]| {
        let end = text[start..].iter().take_while(|b| b.is_ascii_digit());
        let (digits, rest) = text[start..].split_at(end.count());
        let number: u64 = std::str::from_utf8(digits).ok()?.parse().ok()?;
        Some((number, rest.to_vec()))
    };
    let ((base, rest), (fixed, other)) = (number(base)?, number(fixed)?);
    (rest == other && base != fixed).then_some((base, fixed))
}

#[cfg(test)]
mod tests {
    use super::moved;
    use invivo_image::SourcePlace;

    fn line(line: u32) -> SourcePlace {
        let file = "server.c".to_owned();
        SourcePlace { file, line }
    }

    #[test]
    fn a_number_that_moves_as_its_line_does_is_a_line() {
        assert!(moved(120, 126, &line(120), &line(126)));
        assert!(moved(122, 128, &line(120), &line(126)));
    }

    #[test]
    fn a_number_that_moves_otherwise_is_a_number() {
        assert!(!moved(120, 127, &line(120), &line(126)));
        assert!(!moved(60, 66, &line(120), &line(126)));
        assert!(!moved(120, 126, &line(120), &line(120)));
        assert!(!moved(3, 1, &line(14), &line(12)));
    }
}
