//! Final images: `invivo build --format final`, and `invivo inspect` of one.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use invivo_compare::{Comparison, Finding, Rule, Severity};
use invivo_format::final_image::{self, FileIdentity, Final, Manifest};
use invivo_image::Image;
use invivo_patch::{Hex, Identity, Options, Patch};
use schemars::JsonSchema;
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use crate::arguments::Pair;
use crate::commands::inspect::{Dump, dump, print};
use crate::failure::{Failure, REFUSED};
use crate::output::Output;
use crate::patch_file::parse;

/// `inspect --json` of a final image.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct FinalDump {
    schema: &'static str,
    #[schemars(with = "serde_json::Value")]
    identity: Identity,
    /// The file in whose place it is installed.
    #[schemars(with = "serde_json::Value")]
    base: FileIdentity,
    /// The fixed build that it is a copy of.
    #[schemars(with = "serde_json::Value")]
    fixed: FileIdentity,
    /// True if it is the base with the fixed functions behind it instead.
    kept_layout: bool,
    /// The patch for running processes; none if it was refused when this was built.
    patch: Option<Dump>,
}

/// What stands in the way of installing the fixed image in the place of the base, whatever
/// runs: the programs that bind to it must find in it what they found before.
pub(crate) fn in_the_way(
    c: &Comparison<'_>,
    findings: &[Finding],
) -> Result<Vec<Finding>, Failure> {
    let (base, fixed) = (&c.base.soname, &c.fixed.soname);
    if base != fixed {
        let name = |name: &Option<String>| name.clone().unwrap_or_else(|| "nothing".to_owned());
        let text = format!(
            "the base is called {} by those that need it, the fixed build {}",
            name(base),
            name(fixed)
        );
        return Err(Failure::new(REFUSED, text)
            .hint("build the fixed library with the base's name: -Wl,-soname,NAME"));
    }
    let refused = |f: &&Finding| f.rule == Rule::Export && f.severity == Severity::Refuse;
    Ok(findings.iter().filter(refused).cloned().collect())
}

/// The final image of a pair, with `patch` inside.
pub(crate) fn write(
    pair: &Pair,
    c: &Comparison<'_>,
    options: &Options,
    patch: Option<&[u8]>,
) -> Result<Vec<u8>, Failure> {
    // The very bytes that were compared.
    let (base, fixed) = (c.base.file(), c.fixed.file());
    let identity = Identity {
        name: options.name.clone(),
        labels: options.labels.clone(),
        creator: options.creator.clone(),
    };
    let base = identify(&pair.base, base, c.base);
    let manifest = Manifest::new(identity, base, identify(&pair.fixed, fixed, c.fixed));
    final_image::write(fixed, &manifest, patch)
        .map_err(|error| Failure::new(REFUSED, format!("{}: {error}", pair.fixed.display())))
}

/// The base of a pair with the functions of `patch` behind it, and with `live`, the patch for
/// running processes, inside.
pub(crate) fn keep_layout(
    pair: &Pair,
    c: &Comparison<'_>,
    patch: &Patch,
    live: &[u8],
) -> Result<Vec<u8>, Failure> {
    let refused = |text: String| Failure::new(REFUSED, format!("{}: {text}", pair.base.display()));
    let base = identify(&pair.base, c.base.file(), c.base);
    let kept = invivo_file::kept_layout(c.base.file(), patch);
    let kept = kept.map_err(|error| refused(error.to_string()))?;
    let fixed = FileIdentity {
        build_id: Some(kept.build_id),
        sha256: Hex(Sha256::digest(&kept.file).to_vec()),
        size: kept.file.len() as u64,
        ..base.clone()
    };
    let mut manifest = Manifest::new(patch.identity.clone(), base, fixed);
    manifest.kept_layout = true;
    final_image::write(&kept.file, &manifest, Some(live))
        .map_err(|error| refused(error.to_string()))
}

/// Lets the final image run wherever `like`, what it is made of, runs.
pub(crate) fn may_run(image: &Path, like: &Path) -> Result<(), Failure> {
    const PERMISSIONS: u32 = 0o777;
    let mode = like.metadata().map(|data| data.permissions().mode());
    let set = mode.and_then(|mode| {
        std::fs::set_permissions(image, Permissions::from_mode(mode & PERMISSIONS))
    });
    set.map_err(|error| Failure::new(REFUSED, format!("{}: {error}", image.display())))
}

fn identify(path: &Path, bytes: &[u8], image: &Image) -> FileIdentity {
    let name = path.file_name().unwrap_or_default();
    FileIdentity {
        file_name: name.to_string_lossy().into_owned(),
        build_id: image.build_id.as_ref().map(|id| Hex(id.0.clone())),
        sha256: Hex(Sha256::digest(bytes).to_vec()),
        size: bytes.len() as u64,
    }
}

/// `invivo inspect` of a final image.
pub(crate) fn inspect(path: &Path, found: Final<'_>, output: &Output) -> Result<u8, Failure> {
    let patch = found.patch.map(|patch| parse(path, patch)).transpose()?;
    let manifest = found.manifest;
    let told = FinalDump {
        schema: "invivo.final/1",
        identity: manifest.identity,
        base: manifest.base,
        fixed: manifest.fixed,
        kept_layout: manifest.kept_layout,
        patch: patch.as_ref().map(dump),
    };
    output.data(&told, || {
        let field = |name: &str, value: &str| anstream::println!("{name:<12}{value}");
        let file = |file: &FileIdentity| {
            format!(
                "{}, {} bytes, SHA-256 {}",
                file.file_name, file.size, file.sha256
            )
        };
        field("final image", &told.identity.name);
        field("fixes", &told.identity.labels.join(", "));
        field("made by", &told.identity.creator);
        field("replaces", &file(&told.base));
        if told.kept_layout {
            field("layout", "the base's; the fixed functions stand behind it");
        } else {
            field("copy of", &file(&told.fixed));
        }
        match &told.patch {
            Some(patch) => {
                anstream::println!("\nfor running processes");
                print(patch);
            }
            None => field(
                "processes",
                "go on with the old code until they are started again",
            ),
        }
    })?;
    Ok(0)
}
