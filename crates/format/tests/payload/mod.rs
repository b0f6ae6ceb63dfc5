//! Payloads for tests: one that replaces a function, and arbitrary ones that keep the model.

mod drawn;
mod example;
pub(crate) mod kept;

use invivo_format::livepatch::Payload;
use invivo_image::BuildId;

pub(crate) use drawn::payload;

/// Replaces `xen_extra_version` by a function that returns a text.
pub(crate) fn example() -> Payload {
    let mut payload = example::replacing(b"-patched\0", &BuildId(vec![7; 20]));
    payload.modinfo.push("version=1".to_owned());
    payload
}
