//! What is to be done on a hypervisor, step by step.

use std::time::Duration;

use invivo_xen::Patience;

/// The emulated processors meet slowly where the machine is busy.
pub(crate) const PATIENCE: Patience = Patience {
    whole: Duration::from_secs(20),
    rendezvous: Duration::from_secs(1),
    attempts: 8,
};

/// The number of a step; its answer has the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step(pub(crate) usize);

/// Operations, in their order. Names are without spaces.
#[derive(Clone, Debug, Default)]
pub struct Script {
    pub(crate) text: Vec<u8>,
    pub(crate) steps: usize,
}

impl Script {
    /// An empty one.
    #[must_use]
    pub fn new() -> Script {
        Script::default()
    }

    fn line(&mut self, line: &str) -> Step {
        self.text.extend_from_slice(line.as_bytes());
        self.text.push(b'\n');
        self.steps += 1;
        Step(self.steps - 1)
    }

    /// Loads a payload.
    pub fn upload(&mut self, name: &str, payload: &[u8]) -> Step {
        let step = self.line(&format!("upload {name} {}", payload.len()));
        self.bytes(payload);
        step
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.text.extend_from_slice(bytes);
        self.text.push(b'\n');
    }

    /// Makes a payload live.
    pub fn apply(&mut self, name: &str) -> Step {
        self.act("apply", name, PATIENCE)
    }

    /// The same, and Xen does not look what it depends on.
    pub fn apply_nodeps(&mut self, name: &str) -> Step {
        self.action("apply", name, PATIENCE, "nodeps")
    }

    /// Makes a payload live in the place of all that are.
    pub fn replace(&mut self, name: &str) -> Step {
        self.act("replace", name, PATIENCE)
    }

    /// Takes a payload back.
    pub fn revert(&mut self, name: &str) -> Step {
        self.act("revert", name, PATIENCE)
    }

    /// Forgets a payload.
    pub fn unload(&mut self, name: &str) -> Step {
        self.act("unload", name, PATIENCE)
    }

    /// Any of the four, with other patience.
    pub fn act(&mut self, action: &str, name: &str, patience: Patience) -> Step {
        self.action(action, name, patience, "-")
    }

    fn action(&mut self, action: &str, name: &str, patience: Patience, nodeps: &str) -> Step {
        let whole = patience.whole.as_millis();
        let rendezvous = patience.rendezvous.as_micros();
        let attempts = patience.attempts;
        self.line(&format!(
            "{action} {name} {whole} {rendezvous} {attempts} {nodeps}"
        ))
    }

    /// A payload's status.
    pub fn get(&mut self, name: &str) -> Step {
        self.line(&format!("get {name}"))
    }

    /// All payloads.
    pub fn list(&mut self) -> Step {
        self.line("list")
    }

    /// Which interface version was found.
    pub fn interface(&mut self) -> Step {
        self.line("interface")
    }

    /// The hypervisor's version, such as `4.17`.
    pub fn version(&mut self) -> Step {
        self.line("version")
    }

    /// What follows it: the function `xen_extra_version` tells, which payloads of tests replace.
    pub fn extra_version(&mut self) -> Step {
        self.line("extra")
    }

    /// The hypervisor's build id, in hexadecimal.
    pub fn build_id(&mut self) -> Step {
        self.line("build-id")
    }

    /// Presses a debug key; what it prints is in the log.
    pub fn key(&mut self, key: char) -> Step {
        self.line(&format!("key {key}"))
    }

    /// Waits.
    pub fn pause(&mut self, time: Duration) -> Step {
        self.line(&format!("pause {}", time.as_millis()))
    }

    /// A call with any argument. A name and a payload that are not empty are put into memory, and
    /// their addresses into the argument (at 16 and 40).
    pub fn raw(&mut self, argument: &[u8; 136], name: &[u8], payload: &[u8]) -> Step {
        let step = self.line(&format!("raw {} {}", name.len(), payload.len()));
        for bytes in [&argument[..], name, payload] {
            self.bytes(bytes);
        }
        step
    }
}
