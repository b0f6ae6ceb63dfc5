//! Unwind data of new code are made known to the language's runtime.

use std::time::Duration;

use invivo_image::LiveAddr;

use crate::record::{Record, State, rewrite};
use crate::{ApplyError, Target};

/// Makes the patch's unwind data known to the language's runtime. The record says so
/// before, for the memory, and after, for the next apply of the patch.
pub(crate) fn register(
    target: &mut dyn Target,
    record: &mut Record,
    registrar: LiveAddr,
    unwind: LiveAddr,
) -> Result<Duration, ApplyError> {
    let object = record.data.0;
    record.registering = true;
    let bytes = record.to_bytes(State::Prepared);
    let bytes = bytes.ok_or_else(|| ApplyError::Refused("the record is too long".to_owned()))?;
    let mut started = false;
    let called = target.visit_outside_runtime(&mut |visit| {
        visit.write(record.region.0, &bytes)?;
        started = true;
        visit.call(registrar, [unwind.0, object.0])
    });
    record.registering = started;
    let visited = called?;
    record.registered = true;
    Ok(visited)
}

/// Makes the unwind data of a patch that is live known to `backtrace(3)`, where that can be done at
/// once and without any doubt; otherwise a way back ends at the patch. Returns how long one
/// thread was held.
///
/// It is not taken back at a revert: threads may still be inside new code then.
pub(crate) fn tell_backtraces(target: &mut dyn Target, record: &mut Record) -> Duration {
    let known = record.registering || record.registered;
    let (Some((unwind, _)), false) = (record.unwind, known) else {
        return Duration::ZERO;
    };
    let Ok(Some(registrar)) = target.backtrace_registrar() else {
        return Duration::ZERO;
    };
    let object = record.data.0;
    let before = record.clone();
    record.registering = true;
    let Some(bytes) = record.to_bytes(State::Applied) else {
        *record = before;
        return Duration::ZERO;
    };
    let mut started = false;
    let visited = target.visit_outside_runtime_now(&mut |visit| {
        visit.write(record.region.0, &bytes)?;
        started = true;
        visit.call(registrar, [unwind.0, object.0])
    });
    // Where it is not known what became of the call, the record goes on to say so.
    if let Ok(Some(_)) = visited {
        record.registered = true;
    } else if !started {
        *record = before;
    }
    let _ = rewrite(target, record, State::Applied);
    visited.ok().flatten().unwrap_or_default()
}
