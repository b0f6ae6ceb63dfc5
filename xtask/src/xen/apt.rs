//! Packages of another release of Debian, from where this machine has its own: its list of
//! sources is copied with the release's name exchanged, and `apt-get` works on the copy, in
//! folders of its own.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use super::LIMIT;
use crate::process;

/// `apt-get` with sources and folders of its own.
pub(super) struct Apt {
    pub(super) work: PathBuf,
    options: Vec<String>,
    /// What was said when the lists of packages were read.
    pub(super) updated: String,
}

impl Apt {
    pub(super) fn new(work: &Path, release: &str, has_source: bool) -> Result<Apt> {
        let sources = work.join("sources.list.d");
        fs::create_dir(&sources)?;
        copy_sources(&sources, release, has_source)?;
        for folder in ["state/lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(work.join(folder))?;
        }
        // No package counts as installed.
        File::create(work.join("status"))?;
        let options = [
            ("Dir::Etc::sourcelist", "/dev/null".to_owned()),
            ("Dir::Etc::sourceparts", format!("{}", sources.display())),
            ("Dir::State", format!("{}", work.join("state").display())),
            (
                "Dir::State::status",
                format!("{}", work.join("status").display()),
            ),
            ("Dir::Cache", format!("{}", work.join("cache").display())),
            // The user that root's apt becomes may not look into these folders.
            ("APT::Sandbox::User", String::new()),
            // Neither descriptions nor what shops of programs show.
            ("Acquire::Languages", "none".to_owned()),
            (
                "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled",
                "false".to_owned(),
            ),
        ];
        let options = options.into_iter();
        let mut apt = Apt {
            work: work.to_owned(),
            options: options
                .flat_map(|(name, value)| ["-o".to_owned(), format!("{name}={value}")])
                .collect(),
            updated: String::new(),
        };
        // A source among them that does not answer need not be the one that matters.
        apt.updated = apt.run(&["update", "-q"])?.stderr;
        Ok(apt)
    }

    /// Takes files out of packages, by their paths there, and puts them into a folder by the names
    /// beside the paths.
    pub(super) fn take(
        &self,
        packages: &[String],
        version: Option<&str>,
        files: &[(String, &str)],
        to: &Path,
    ) -> Result<()> {
        let named = packages.iter().map(|package| match version {
            Some(version) => format!("{package}={version}"),
            None => package.clone(),
        });
        let named: Vec<String> = named.collect();
        let mut words = vec!["download", "-q"];
        words.extend(named.iter().map(String::as_str));
        let downloaded = self.run(&words)?;
        if !downloaded.status.success() {
            bail!("{}{}", self.updated, downloaded.stderr);
        }
        let root = self.work.join("root");
        fs::create_dir_all(&root)?;
        for entry in fs::read_dir(&self.work)? {
            let package = entry?.path();
            let ending = package.extension().and_then(|ending| ending.to_str());
            let name = package.file_name().unwrap_or_default().to_string_lossy();
            let is_wanted = |wanted: &String| name.split('_').next() == Some(wanted.as_str());
            if ending == Some("deb") && packages.iter().any(is_wanted) {
                unpack(&package, files, &root)?;
            }
        }
        for (from, name) in files {
            let from = root.join(from);
            fs::rename(&from, to.join(name)).with_context(|| format!("no {}", from.display()))?;
        }
        Ok(())
    }

    pub(super) fn run(&self, arguments: &[&str]) -> Result<process::Output> {
        self.say("apt-get", arguments)
    }

    /// One of apt's programs, on the same sources.
    pub(super) fn say(&self, program: &str, arguments: &[&str]) -> Result<process::Output> {
        let mut command = Command::new(program);
        command.args(&self.options).args(arguments);
        command
            .current_dir(&self.work)
            .env("DEBIAN_FRONTEND", "noninteractive");
        process::capture(&mut command, LIMIT)
    }
}

/// Unpacks those of the files that are in a package. A kernel's has thousands of others.
fn unpack(package: &Path, files: &[(String, &str)], root: &Path) -> Result<()> {
    let mut read = Command::new("dpkg-deb");
    read.arg("--fsys-tarfile").arg(package);
    let mut read = read
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start dpkg-deb")?;
    let stream = read.stdout.take().context("dpkg-deb has no output")?;
    let mut unpack = Command::new("tar");
    // Each is named as the archive has it. What is not in this package is in another one, or is
    // missed afterwards.
    unpack.arg("-x").arg("-C").arg(root);
    unpack.args(files.iter().map(|(path, _)| format!("./{path}")));
    unpack
        .stdin(stream)
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    unpack.status().context("cannot start tar")?;
    if !read.wait()?.success() {
        bail!("{} cannot be unpacked", package.display());
    }
    Ok(())
}

/// Copies the machine's own sources, with its release's name exchanged, and with packages of
/// source if they are wanted.
fn copy_sources(to: &Path, release: &str, has_source: bool) -> Result<()> {
    let system = fs::read_to_string("/etc/os-release").context("no /etc/os-release")?;
    let value = |name: &str| {
        let line = system.lines().find_map(|line| line.strip_prefix(name))?;
        Some(line.trim_matches('"').to_owned())
    };
    let Some(own) =
        value("VERSION_CODENAME=").filter(|_| value("ID=").as_deref() == Some("debian"))
    else {
        bail!("its packages are Debian's, and this machine is none of Debian");
    };
    let mut copied = 0;
    let parts = fs::read_dir("/etc/apt/sources.list.d")
        .into_iter()
        .flatten();
    let parts = parts.flatten().map(|entry| entry.path());
    for source in parts.chain([PathBuf::from("/etc/apt/sources.list")]) {
        let kind = source.extension().and_then(|kind| kind.to_str());
        let Some(kind @ ("list" | "sources")) = kind else {
            continue;
        };
        let text = fs::read_to_string(&source).unwrap_or_default();
        // What does not name the release is somebody else's.
        if text.contains(&own) {
            let copy = to.join(format!("{copied}.{kind}"));
            let mut text = text.replace(&own, release);
            if has_source {
                text = with_source(&text);
            }
            fs::write(copy, text)?;
            copied += 1;
        }
    }
    if copied == 0 {
        bail!("no source of packages in /etc/apt names {own}");
    }
    Ok(())
}

/// The same sources, for packages of source, too: `deb-src` beside each `deb`.
fn with_source(text: &str) -> String {
    let mut both = String::new();
    for line in text.lines() {
        match (line.strip_prefix("Types:"), line.strip_prefix("deb ")) {
            (Some(_), _) => both += "Types: deb deb-src\n",
            (None, Some(rest)) => both += &format!("{line}\ndeb-src {rest}\n"),
            (None, None) => both += &format!("{line}\n"),
        }
    }
    both
}

#[cfg(test)]
mod tests {
    use super::with_source;

    #[test]
    fn packages_of_source_come_from_where_the_others_do() {
        let lines = "# own\ndeb http://deb.example/debian stable main\n";
        let both = "# own\ndeb http://deb.example/debian stable main\n\
                    deb-src http://deb.example/debian stable main\n";
        assert_eq!(with_source(lines), both);
        let fields = "Types: deb\nURIs: http://deb.example/debian\n";
        let both = "Types: deb deb-src\nURIs: http://deb.example/debian\n";
        assert_eq!(with_source(fields), both);
    }
}
