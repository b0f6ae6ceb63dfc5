//! What a tool that died had written in part is put back before anybody goes on: while the threads
//! still stand that it had stopped, nobody has run any of it.

use invivo_image::LiveAddr;

use crate::hpat::{self, Host, WordRecord};
use crate::pe::Instance;
use crate::{ApplyError, hotp1};

/// Puts back what was to be written in one step, and was only in part, in a process of Windows whose
/// threads stand since a tool died. It does nothing where not all of them do.
///
/// What belongs to nobody any more is left to whoever settles the record, and refuses it with its
/// reason; the record is settled as if the step had not begun.
///
/// # Errors
/// When the process is gone, or its memory cannot be read or written.
pub fn put_back_left(host: &mut dyn Host) -> Result<(), ApplyError> {
    let mut back = Vec::new();
    let images = host.images()?;
    for (.., record) in hotp1::blocks(host)? {
        // What is in the place of another image is nobody's of ours.
        if record.instance(host, &images)? == Instance::Gone {
            continue;
        }
        // All of its places are one step, so that all of them go back.
        back.extend(changed(host, &record.words)?);
    }
    for patched in hpat::list(host)? {
        if patched.instance == Instance::Gone {
            continue;
        }
        for word in &patched.record.words {
            // Each of these is a step of its own.
            let at = LiveAddr(word.at);
            if !host.holds(at, &word.new)? {
                back.extend(changed(host, std::slice::from_ref(word))?);
            }
        }
    }
    if back.is_empty() {
        return Ok(());
    }
    host.stop(&[], &mut |stopped| {
        if !stopped.as_left() {
            return Ok(());
        }
        let mut back = back.iter();
        back.try_for_each(|(at, old)| stopped.write(*at, old))
    })?;
    Ok(())
}

/// What of `words` is not as it was, the last first; nothing where somebody else changed one.
fn changed(host: &dyn Host, words: &[WordRecord]) -> Result<Vec<(LiveAddr, Vec<u8>)>, ApplyError> {
    let mut back = Vec::new();
    for word in words.iter().rev() {
        let at = LiveAddr(word.at);
        let mut now = vec![0; word.old.len()];
        host.read(at, &mut now)?;
        if !word.may_be(&now) {
            return Ok(Vec::new());
        }
        if now != word.old {
            back.push((at, word.old.clone()));
        }
    }
    Ok(back)
}
