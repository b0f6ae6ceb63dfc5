//! `invivo install` and `invivo uninstall`

use invivo_apply::TargetError;
use invivo_windows::{ExchangeError, Exchanged};
use serde::Serialize;

use crate::arguments::{Install, Uninstall};
use crate::failure::{Failure, NOT_NOW, PERMISSION, REFUSED};
use crate::output::Output;

/// The same as elsewhere.
#[derive(Debug, Serialize)]
struct Told {
    schema: &'static str,
    file: String,
    /// `installed`, `installed already`, or `uninstalled`.
    state: &'static str,
    name: String,
    labels: Vec<String>,
    /// Where the old file is while the new one has its name.
    #[serde(skip_serializing_if = "Option::is_none")]
    base: Option<String>,
}

fn told(done: Exchanged, state: &'static str) -> Told {
    Told {
        schema: "invivo.exchange/1",
        file: done.path.display().to_string(),
        state,
        name: done.manifest.identity.name,
        labels: done.manifest.identity.labels,
        base: done.base.map(|base| base.display().to_string()),
    }
}

pub(super) fn install(install: &Install, output: &Output) -> Result<u8, Failure> {
    let done = invivo_windows::install(&install.file, &install.image)?;
    let changed = done.changed;
    let state = if changed {
        "installed"
    } else {
        "installed already"
    };
    let told = told(done, state);
    output.data(&told, || {
        let (file, name) = (&told.file, &told.name);
        if !changed {
            anstream::println!("{file}: is {name} already");
            return;
        }
        anstream::println!("{file}: is {name} now; what starts next is fixed");
        if let Some(base) = &told.base {
            anstream::println!("the old file is {base}");
        }
    })?;
    Ok(0)
}

pub(super) fn uninstall(uninstall: &Uninstall, output: &Output) -> Result<u8, Failure> {
    let told = told(invivo_windows::uninstall(&uninstall.file)?, "uninstalled");
    output.data(&told, || {
        let (file, name) = (&told.file, &told.name);
        anstream::println!("{file}: is the old file again, without {name}");
    })?;
    Ok(0)
}

impl From<ExchangeError> for Failure {
    fn from(error: ExchangeError) -> Self {
        let text = error.to_string();
        match error {
            ExchangeError::System { source, .. }
                if source.kind() == std::io::ErrorKind::PermissionDenied =>
            {
                Failure::new(PERMISSION, text).hint("run it as an administrator")
            }
            ExchangeError::Turn {
                error: TargetError::NotPermitted { .. },
                ..
            } => Failure::new(PERMISSION, text).hint("run it as an administrator"),
            ExchangeError::Busy(_) => Failure::new(NOT_NOW, text).hint("try again in a moment"),
            ExchangeError::OtherFile { .. } => {
                Failure::new(REFUSED, text).hint("build it for the very file that is installed")
            }
            ExchangeError::Nowhere { .. } => {
                Failure::new(REFUSED, text).hint("give the right one its name again: ren OLD NAME")
            }
            ExchangeError::InTheWay { .. } => Failure::new(NOT_NOW, text)
                .hint("end the programs that have it open, then give the command again"),
            ExchangeError::NoBase { .. } => {
                Failure::new(REFUSED, text).hint("install the package that the file is from again")
            }
            _ => Failure::new(REFUSED, text),
        }
    }
}
