//! A base of a process is taken over as its record has it, after what a tool that died left in the middle
//! was put in order.

use std::sync::Arc;

use invivo_image::pe::PeImage;

use super::PatchedImage;
use super::block::{Block, RESERVE};
use super::host::{Host, HostImage, Patched};
use super::lasting::Lasting;
use super::leaving::leave;
use super::record::HotPatchRecord;
use crate::pe::close_pages;
use crate::{ApplyError, Loaded, refused};

impl<'h> Lasting<'h> {
    /// `image` is the file that the base was loaded from; `known` is what stands in the target's memory
    /// about it, if anything does.
    pub(super) fn open(
        host: &'h mut dyn Host,
        base: &HostImage,
        image: PeImage,
        known: Option<Patched>,
        applied_by: &str,
    ) -> Result<Lasting<'h>, ApplyError> {
        let at = base.range.start;
        let (block, record) = match known {
            Some(known) => (known.block, known.record),
            None => {
                let block = Block::new(host, &base.range)?;
                let record = HotPatchRecord {
                    path: base.path.clone(),
                    time_stamp: image.time_stamp,
                    checksum: image.checksum,
                    at: at.0,
                    table: block.table().0,
                    reserve: RESERVE,
                    ..HotPatchRecord::default()
                };
                (block, record)
            }
        };
        let base = Loaded {
            image: Arc::new(image),
            at,
            reserve: RESERVE,
            table: Some(block.table()),
        };
        Lasting::with(host, block, record, base, applied_by)
    }

    /// The base of a record, whatever became of its file: what is in memory is enough to take a patch
    /// back.
    pub(super) fn open_known(
        host: &'h mut dyn Host,
        known: Patched,
        applied_by: &str,
    ) -> Result<Lasting<'h>, ApplyError> {
        let Patched { block, record, .. } = known;
        let Some(mut base) = Loaded::seen_as(host, record.at, record.identity()) else {
            return refused(format!("{} is not loaded any more", record.path));
        };
        base.reserve = RESERVE;
        base.table = Some(block.table());
        Lasting::with(host, block, record, base, applied_by)
    }

    /// Undoes what a tool that died left in the middle, and takes over the rest.
    fn with(
        host: &'h mut dyn Host,
        mut block: Block,
        mut record: HotPatchRecord,
        base: Loaded,
        applied_by: &str,
    ) -> Result<Lasting<'h>, ApplyError> {
        applied_by.clone_into(&mut record.applied_by);
        let led = record.led(host)?;
        let places = record.places(&base);
        let (state, mut settled) = PatchedImage::settle(host, base, led, &record)?;
        close_pages(host, &places, &record.open)?;
        record
            .patches
            .retain(|one| !one.led || state.led.iter().any(|led| led.at.0 == one.at));
        if settled {
            record.words = Vec::new();
            record.entries = state.entries();
            block.write(host, &record)?;
        }
        // Nothing of the base leads there, and nobody is inside.
        let patches = record.patches.iter();
        let open: Vec<_> = patches.filter(|one| !one.led).cloned().collect();
        for patch in open {
            leave(host, &mut block, &mut record, &patch)?;
            settled = true;
        }
        Ok(Lasting {
            host,
            block,
            record,
            state,
            settled,
        })
    }
}
