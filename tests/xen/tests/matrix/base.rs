//! A hypervisor with its symbols, and the sound payload that each case begins with.

use anyhow::{Context, Result};
use invivo_format::livepatch::{
    Function, Hypervisor, Known, New, Old, Payload, Reference, Rule, Written, XenVersion, write,
};
use invivo_image::BuildId;

use crate::draft::Draft;
use crate::example::replacing;

/// A function that a debug key calls, so nobody does while tests run. A pointer leads to it, so it
/// begins with `ENDBR64`.
pub(crate) const QUIET: &str = "common/timer.c#dump_timerq";

/// What is asked, and what it is known to be.
pub(crate) struct Xen {
    pub(crate) version: XenVersion,
    pub(crate) known: Hypervisor<'static>,
    pub(crate) id: BuildId,
    pub(crate) efi: BuildId,
}

/// One file, and what comes of it.
pub(crate) struct Case {
    pub(crate) name: String,
    /// The first rule that it breaks; none if it can be applied.
    pub(crate) rule: Option<Rule>,
    pub(crate) file: Vec<u8>,
    /// Payloads that are applied before it.
    pub(crate) before: Vec<Vec<u8>>,
}

impl Xen {
    pub(crate) fn new(files: &xen_tests::Hypervisor) -> Result<Xen> {
        // The few files live as long as the test.
        let symbols: &'static [u8] = Vec::leak(std::fs::read(files.symbols())?);
        let known = Hypervisor::parse(symbols).map_err(anyhow::Error::msg)?;
        let efi = std::fs::read(files.efi())?;
        Ok(Xen {
            version: files.version.parse().map_err(anyhow::Error::msg)?,
            id: known.build_id().context("a build id")?.clone(),
            efi: invivo_format::livepatch::efi_build_id(&efi).context("a build id")?,
            known,
        })
    }

    pub(crate) fn find(&self, name: &str) -> Known {
        let found = self.known.find(name.as_bytes());
        found.unwrap_or_else(|| unreachable!("Xen has no {name}"))
    }

    /// Replaces `xen_extra_version` by a function that returns a text.
    pub(crate) fn payload(&self) -> Payload {
        let mut payload = replacing(b"-fixed\0", &self.id);
        payload.functions = vec![self.function("xen_extra_version")];
        payload
    }

    /// Symbol 1 instead of a function.
    pub(crate) fn function(&self, name: &str) -> Function {
        Function {
            name: name.to_owned(),
            new: New::Code {
                code: Reference {
                    symbol: 1,
                    addend: 0,
                },
                size: 8,
            },
            old: Old::Name,
            old_size: u32::try_from(self.find(name).size).unwrap_or(0),
            expectation: None,
        }
    }

    pub(crate) fn draft(&self) -> Draft {
        Draft::of(&file(&self.payload()))
    }

    /// A case that begins with the sound payload's file.
    pub(crate) fn spoil(
        &self,
        name: &str,
        rule: impl Into<Option<Rule>>,
        spoil: impl FnOnce(&mut Draft),
    ) -> Case {
        let mut draft = self.draft();
        spoil(&mut draft);
        Case::new(name, rule, draft.file())
    }

    /// A case that begins with the sound payload's model, which our writer writes.
    pub(crate) fn change(
        &self,
        name: &str,
        rule: impl Into<Option<Rule>>,
        change: impl FnOnce(&mut Payload),
    ) -> Case {
        let mut payload = self.payload();
        change(&mut payload);
        Case::new(name, rule, file(&payload))
    }
}

impl Case {
    pub(crate) fn new(name: &str, rule: impl Into<Option<Rule>>, file: Vec<u8>) -> Case {
        Case {
            name: name.to_owned(),
            rule: rule.into(),
            file,
            before: Vec::new(),
        }
    }

    pub(crate) fn after(mut self, before: Vec<u8>) -> Case {
        self.before.push(before);
        self
    }
}

/// What each test here sends to a hypervisor, or keeps.
#[expect(clippy::disallowed_methods, reason = "it is sent or kept")]
pub(crate) fn written(payload: &Payload) -> Written {
    write(payload).expect("the model is sound")
}

pub(crate) fn file(payload: &Payload) -> Vec<u8> {
    written(payload).file
}
