//! What `invivo xen` takes.

use std::path::PathBuf;
use std::time::Duration;

use clap::builder::RangedI64ValueParser;
use clap::{Args, Subcommand, ValueEnum};
use invivo_format::livepatch::Splice;
use invivo_xen::{Name, Patience};

/// Payloads of the hypervisor below; in its control domain (dom0), as root.
#[derive(Debug, Args)]
pub(crate) struct Xen {
    #[command(subcommand)]
    pub(crate) command: XenCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum XenCommand {
    /// Which payloads are loaded, and which of them are live.
    #[command(after_help = "Examples:\n  invivo xen list\n  invivo xen list --json")]
    List,
    /// One payload: its state, and the result of its last action.
    #[command(after_help = "Example:\n  invivo xen get xsa-400")]
    Get(Named),
    /// Load a payload; it does nothing yet.
    #[command(
        after_help = "Examples:\n  invivo xen upload xsa-400.livepatch\n  invivo xen upload fix.livepatch --name xsa-400\n  invivo xen upload fix.signed.livepatch --cert vendor.pem"
    )]
    Upload(Upload),
    /// Make a payload live, on top of those that are.
    #[command(
        after_help = "Examples:\n  invivo xen apply xsa-400\n  invivo xen apply xsa-400 --rendezvous 200 --timeout 60"
    )]
    Apply(ApplyPayload),
    /// Make a payload live in the place of all that are, at one moment.
    #[command(after_help = "Example:\n  invivo xen replace all-fixes-2")]
    Replace(Act),
    /// Take a payload back, the one that was applied last.
    #[command(after_help = "Example:\n  invivo xen revert xsa-400")]
    Revert(Act),
    /// Forget a payload that is not live.
    #[command(after_help = "Example:\n  invivo xen unload xsa-400")]
    Unload(Act),
}

/// What is led to new code in Xen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum SpliceName {
    /// Calls and jumps in its code.
    Callers,
    /// Pointers in its variables and constants; the jumps stay beside them.
    Tables,
}

impl From<SpliceName> for Splice {
    fn from(name: SpliceName) -> Splice {
        match name {
            SpliceName::Callers => Splice::Callers,
            SpliceName::Tables => Splice::Tables,
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct Named {
    /// The payload's name.
    #[arg(value_parser = name)]
    pub(crate) name: Name,
}

#[derive(Debug, Args)]
pub(crate) struct Upload {
    /// The payload.
    pub(crate) payload: PathBuf,
    /// What it is to be called [default: the file's name without its ending].
    #[arg(long, value_parser = name)]
    pub(crate) name: Option<Name>,
    /// Refuse it unless it was signed by the key of this certificate; may be given several times.
    #[arg(long, value_name = "FILE")]
    pub(crate) cert: Vec<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Act {
    /// The payload's name.
    #[arg(value_parser = name)]
    pub(crate) name: Name,
    #[command(flatten)]
    pub(crate) waiting: Waiting,
}

#[derive(Debug, Args)]
pub(crate) struct ApplyPayload {
    #[command(flatten)]
    pub(crate) act: Act,
    /// Do not have Xen look whether it was made to go on top of what was applied last.
    #[arg(long)]
    pub(crate) nodeps: bool,
}

/// How long.
#[derive(Debug, Args)]
pub(crate) struct Waiting {
    /// How many seconds all of it may take, every attempt included.
    #[arg(long, value_name = "SECONDS", default_value_t = 30.0, value_parser = super::live::seconds)]
    timeout: f64,
    /// How many milliseconds the processors may take to meet, in each attempt; the domains stand
    /// still meanwhile.
    #[arg(long, value_name = "MILLISECONDS", default_value_t = 30, value_parser = rendezvous())]
    rendezvous: u32,
}

impl Waiting {
    pub(crate) fn patience(&self) -> Patience {
        patience(self.timeout, Some(self.rendezvous))
    }
}

/// How long Xen is given: seconds for everything, milliseconds for each meeting of the processors.
pub(crate) fn patience(timeout: f64, rendezvous: Option<u32>) -> Patience {
    let mut patience = Patience {
        whole: Duration::from_secs_f64(timeout),
        ..Patience::default()
    };
    if let Some(rendezvous) = rendezvous {
        patience.rendezvous = Duration::from_millis(rendezvous.into());
    }
    patience
}

/// What Xen takes as a time for one meeting.
pub(super) fn rendezvous() -> RangedI64ValueParser<u32> {
    clap::value_parser!(u32).range(1..=4000)
}

pub(super) fn name(text: &str) -> Result<Name, invivo_xen::Error> {
    Name::new(text)
}
