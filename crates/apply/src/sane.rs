//! A record is read from memory that the target itself may have written. What it says is a
//! stranger's word until it makes sense.

use invivo_image::LiveAddr;

use crate::Record;

/// End of user space with the largest page tables.
const HIGHEST: u64 = 1 << 56;
/// The longest code that a hook is.
const LONGEST_HOOK: usize = 256;

/// True if no range in the record is one that no process has, and none is larger than what it lies in.
pub(crate) fn is_sane(record: &Record) -> bool {
    let ends = |at: LiveAddr, size: u64| at.0.checked_add(size).is_some_and(|end| end <= HIGHEST);
    let aside = [record.scratch, record.text, record.spare];
    let ranges = [record.region, record.data];
    let hooks = record.hooks.iter().all(|hook| {
        let (old, new) = (hook.old.0.len(), hook.new.0.len());
        old == new && (1..=LONGEST_HOOK).contains(&new) && ends(hook.at, new as u64)
    });
    let replaced = &record.replaced;
    hooks
        && ranges
            .iter()
            .chain(&aside)
            .chain(replaced)
            .all(|(at, size)| ends(*at, *size))
        && record.room <= record.region.1
        && ends(record.module, 0)
}

/// The record with texts that can be shown.
pub(crate) fn cleaned(mut record: Record) -> Record {
    let own = record.own.iter_mut().map(|function| &mut function.name);
    let called = record.callouts.iter_mut().flat_map(|c| &mut c.all);
    let texts = [&mut record.name, &mut record.applied_by].into_iter();
    texts
        .chain(&mut record.labels)
        .chain(&mut record.functions)
        .chain(own)
        .chain(called.map(|placed| &mut placed.function))
        .filter(|text| text.chars().any(char::is_control))
        .for_each(|text| *text = shown(text));
    record
}

/// `text` as it can be shown: what would move the cursor of a terminal, or worse, is written out.
#[must_use]
pub fn shown(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() {
            shown.extend(c.escape_default());
        } else {
            shown.push(c);
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use invivo_patch::Hex;

    use super::*;
    use crate::record::sample;

    #[test]
    fn a_place_at_the_end_of_all_memory_is_no_place() {
        assert!(is_sane(&sample()));
        let broken: [fn(&mut Record); 8] = [
            |record| record.hooks[0].at = LiveAddr(u64::MAX - 1),
            |record| record.hooks[0].new = Hex(Vec::new()),
            |record| record.hooks[0].old = Hex(vec![0; 2]),
            |record| record.room = u64::MAX,
            |record| record.data.1 = u64::MAX,
            |record| record.scratch.0 = LiveAddr(u64::MAX),
            |record| record.text.1 = u64::MAX,
            |record| record.spare.1 = u64::MAX,
        ];
        for damage in broken {
            let mut record = sample();
            damage(&mut record);
            assert!(!is_sane(&record), "{record:?}");
        }
    }

    #[test]
    fn texts_of_a_record_can_be_shown() {
        let escape = "\u{1b}[31m".to_owned();
        let record = cleaned(Record {
            name: escape.clone(),
            labels: vec!["CVE-1".to_owned(), escape.clone()],
            functions: vec![escape],
            ..sample()
        });
        let plain = "\\u{1b}[31m";
        assert_eq!(record.name, plain);
        assert_eq!(record.labels, ["CVE-1", plain]);
        assert_eq!(record.functions, [plain]);
        assert_eq!(cleaned(sample()), sample());
    }

    #[test]
    fn what_a_terminal_obeys_is_written_out() {
        assert_eq!(shown("a\u{1b}[2J b\u{9b}\n"), "a\\u{1b}[2J b\\u{9b}\\n");
        assert_eq!(shown("price \u{e4}"), "price \u{e4}");
    }
}
