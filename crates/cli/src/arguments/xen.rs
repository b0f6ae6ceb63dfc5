//! What `invivo xen` takes.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use invivo_format::livepatch::Splice;
use invivo_xen::{Name, Patience};

use super::selectors::{BuildId, build_id};

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
    /// Make a payload that counts how often functions are entered; Xen's console tells when it is
    /// reverted.
    #[command(
        after_help = "Example:\n  invivo xen trace do_sched_op 'common/domain.c#vcpu_check_shutdown' --xen xen-syms -o count.livepatch"
    )]
    Trace(Trace),
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
pub(crate) struct Trace {
    /// Functions, by the names of Xen's own table; a static one is dir/file.c#name.
    #[arg(required = true)]
    pub(crate) functions: Vec<String>,
    /// The file with the symbols of the very Xen that runs.
    #[arg(long, value_name = "XEN-SYMS")]
    pub(crate) xen: PathBuf,
    /// The build id of the payload on top of which it goes [default: Xen's].
    #[arg(long, value_name = "ID", value_parser = build_id)]
    pub(crate) depends: Option<BuildId>,
    /// Where to write the payload.
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: PathBuf,
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
    #[arg(long, value_name = "MILLISECONDS", default_value_t = 30,
          value_parser = clap::value_parser!(u32).range(1..=4000))]
    rendezvous: u32,
}

impl Waiting {
    pub(crate) fn patience(&self) -> Patience {
        Patience {
            whole: Duration::from_secs_f64(self.timeout),
            rendezvous: Duration::from_millis(self.rendezvous.into()),
            ..Patience::default()
        }
    }
}

fn name(text: &str) -> Result<Name, invivo_xen::Error> {
    Name::new(text)
}
