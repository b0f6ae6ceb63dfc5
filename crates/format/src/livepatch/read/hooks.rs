//! `.livepatch.hooks.*`.

use super::super::model::{Hook, Moment};
use super::super::{LivepatchError, Rule};
use super::Reader;

impl Reader<'_> {
    pub(super) fn hooks(&self) -> Result<Vec<Hook>, LivepatchError> {
        let mut hooks = Vec::new();
        for moment in Moment::ALL {
            let Some((number, section)) = self.file.section(moment.section()) else {
                continue;
            };
            let name = moment.section();
            if section.size == 0 || !section.size.is_multiple_of(8) {
                return Err(LivepatchError::new(
                    Rule::X35,
                    format!("{name} has {} bytes", section.size),
                ));
            }
            let mut entries = self.relocations_of(number)?;
            entries.retain(|entry| entry.kind != 0);
            entries.sort_by_key(|entry| entry.offset);
            if entries.len() as u64 > section.size / 8 {
                return Err(LivepatchError::new(
                    Rule::X35,
                    format!("{name} has relocations for one pointer"),
                ));
            }
            for (entry, at) in entries.iter().zip((0..).step_by(8)) {
                if entry.offset != at || entry.kind != 1 {
                    return Err(LivepatchError::new(
                        Rule::X56,
                        format!("the pointer at {at:#x} of {name} is 0"),
                    ));
                }
                let code = self.reference(entry, name)?;
                hooks.push(Hook { moment, code });
            }
            // A single pointer that is 0 is no hook.
            if moment.is_list() && entries.len() as u64 != section.size / 8 {
                return Err(LivepatchError::new(
                    Rule::X56,
                    format!("a pointer of {name} is 0"),
                ));
            }
        }
        Ok(hooks)
    }
}
