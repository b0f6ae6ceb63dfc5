//! What `invivo sign` and `invivo verify` take.

use std::path::PathBuf;

use clap::Args;

#[derive(Debug, Args)]
pub(crate) struct Sign {
    /// A patch for processes, or a payload for Xen.
    pub(crate) file: PathBuf,
    /// The private key (PEM: RSA, or of the curves P-256 and P-384), not encrypted.
    #[arg(long, value_name = "FILE")]
    pub(crate) key: PathBuf,
    /// The certificate that says whose it is (PEM or DER).
    #[arg(long, value_name = "FILE")]
    pub(crate) cert: PathBuf,
    /// Write the signer's name and key id in front of the signature, too; Linux takes only files
    /// without.
    #[arg(long)]
    pub(crate) named: bool,
    /// Where to write the signed file.
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct Verify {
    /// A file that was signed.
    pub(crate) file: PathBuf,
    /// A certificate that is trusted (PEM or DER); may be given several times.
    #[arg(long, value_name = "FILE", required = true)]
    pub(crate) cert: Vec<PathBuf>,
}
