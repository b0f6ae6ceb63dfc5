//! The files beside a program that hold its symbols and debug data, looked for where
//! compilers, packagers and debuggers put them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use invivo_image::{BuildId, Image, ImageError, SplitUnit};

use crate::failure::{Failure, REFUSED, USAGE};
use crate::images::read_file;

/// One program whose files are looked for.
#[derive(Debug)]
pub(crate) struct Search<'a> {
    pub(crate) program: &'a Path,
    /// The debug file that was named.
    pub(crate) given: Option<&'a Path>,
    /// The option that names it.
    pub(crate) option: &'static str,
    /// Where debug files are installed.
    pub(crate) folders: &'a [PathBuf],
}

impl Search<'_> {
    /// Attaches to `image` what it lacks: its debug file, and the files that this one
    /// refers to in turn.
    pub(crate) fn complete(&self, image: &mut Image) -> Result<(), Failure> {
        // Debug data name other files relative to the one that they are in.
        let mut home = self.program.to_owned();
        let own_debug_data = image.has_debug_data();
        if let Some(given) = self.given {
            self.attach(given, |file| image.attach_debug(file))?;
            home = given.to_owned();
        } else if (!image.has_symbols || !own_debug_data)
            && let Some(found) = self.debug_file(image)?
        {
            home = found;
        }
        if !image.has_symbols {
            return Err(self.without_symbols(image));
        }
        if own_debug_data {
            home = self.program.to_owned();
        }
        self.supplementary(image, &home)?;
        self.split(image, &home)
    }

    /// Looks for the debug file and attaches it.
    ///
    /// A file that is there and belongs to another build is an error only if no other
    /// place has the right one.
    fn debug_file(&self, image: &mut Image) -> Result<Option<PathBuf>, Failure> {
        let mut first_failure = None;
        let installed = image.build_id.as_ref().map(|id| self.by_build_id(id));
        for path in installed.unwrap_or_default() {
            match self.attach(&path, |file| image.attach_debug(file)) {
                Ok(()) => return Ok(Some(path)),
                Err(failure) => first_failure = first_failure.or(Some(failure)),
            }
        }
        let link = image
            .debug_link()
            .map_err(|error| self.broken(self.program, &error))?;
        if let Some(link) = link {
            for path in self.beside(&link.name) {
                let attached = self.attach(&path, |file| {
                    link.check(&file)?;
                    image.attach_debug(file)
                });
                match attached {
                    Ok(()) => return Ok(Some(path)),
                    Err(failure) => first_failure = first_failure.or(Some(failure)),
                }
            }
        }
        first_failure.map_or(Ok(None), Err)
    }

    /// `.build-id/ab/cdef….debug` in each folder, where that is a file.
    fn by_build_id(&self, id: &BuildId) -> Vec<PathBuf> {
        let id = id.to_string();
        let Some((head, tail)) = id.split_at_checked(2) else {
            return Vec::new();
        };
        let name = format!(".build-id/{head}/{tail}.debug");
        files(self.folders.iter().map(|folder| folder.join(&name)))
    }

    /// The places where debuggers expect a file that a program names by `.gnu_debuglink`.
    fn beside(&self, name: &str) -> Vec<PathBuf> {
        let Ok(program) = self.program.canonicalize() else {
            return Vec::new();
        };
        let Some(folder) = program.parent() else {
            return Vec::new();
        };
        let below = folder.strip_prefix("/").unwrap_or(folder);
        let installed = self.folders.iter().map(|root| root.join(below).join(name));
        let near = [folder.join(name), folder.join(".debug").join(name)];
        let mut found = files(near.into_iter().chain(installed));
        // A program whose link bears its own name is not its own debug file.
        found.retain(|path| path.canonicalize().is_ok_and(|path| path != program));
        found
    }

    /// Attaches what `dwz` moved out of the debug data in the file `home`.
    fn supplementary(&self, image: &mut Image, home: &Path) -> Result<(), Failure> {
        let link = image
            .supplementary_link()
            .map_err(|error| self.broken(home, &error))?;
        let Some(link) = link else { return Ok(()) };
        // An installed debug file may be a symbolic link; names are relative to what it leads to.
        let home = home.canonicalize().unwrap_or_else(|_| home.to_owned());
        let named = home.parent().map(|folder| folder.join(&link.path));
        let mut failure = None;
        for path in files(named)
            .into_iter()
            .chain(self.by_build_id(&link.build_id))
        {
            match self.attach(&path, |file| image.attach_supplementary(file)) {
                Ok(()) => return Ok(()),
                Err(error) => failure = failure.or(Some(error)),
            }
        }
        Err(failure.unwrap_or_else(|| {
            let text = format!(
                "{}: its debug data refer to {} (build id {}), which was not found",
                home.display(),
                link.path,
                link.build_id
            );
            Failure::new(REFUSED, text)
                .hint("install the debug package that has this file, or put the file there")
        }))
    }

    /// Attaches the debug data that the compiler left in files of their own.
    fn split(&self, image: &mut Image, home: &Path) -> Result<(), Failure> {
        let missing = |image: &Image| -> Result<Vec<SplitUnit>, Failure> {
            image
                .missing_split_units()
                .map_err(|error| self.broken(home, &error))
        };
        let mut units = missing(image)?;
        if units.is_empty() {
            return Ok(());
        }
        let packages = [self.program, home].map(|path| {
            let mut name = path.as_os_str().to_owned();
            name.push(".dwp");
            PathBuf::from(name)
        });
        // `program.debug` has its package as `program.dwp`.
        let renamed = home.with_extension("dwp");
        // As with debug files, one of another build is an error only if no other place has the
        // right one: a package may be left from the build before.
        let mut failure = None;
        for path in files(packages.into_iter().chain([renamed])) {
            match self.attach(&path, |file| image.attach_split(file, &units)) {
                Ok(()) => units = missing(image)?,
                Err(error) => failure = failure.or(Some(error)),
            }
            if units.is_empty() {
                return Ok(());
            }
        }
        for unit in &units {
            let written = Path::new(&unit.folder).join(&unit.name);
            let beside =
                |path: &Path| Some(path.parent()?.join(Path::new(&unit.name).file_name()?));
            let places = [Some(written), beside(self.program), beside(home)];
            for path in files(places.into_iter().flatten()) {
                let attached = self.attach(&path, |file| {
                    image.attach_split(file, std::slice::from_ref(unit))
                });
                match attached {
                    Ok(()) => break,
                    Err(error) => failure = failure.or(Some(error)),
                }
            }
        }
        let Some(lost) = missing(image)?.into_iter().next() else {
            return Ok(());
        };
        let text = format!(
            "{}: its debug data are split, and {} was not found",
            home.display(),
            Path::new(&lost.folder).join(&lost.name).display()
        );
        Err(failure.unwrap_or_else(|| {
            Failure::new(REFUSED, text).hint(format!(
                "keep the .dwo files where they were compiled, or pack them beside the program: \
                 llvm-dwp -e {0} -o {0}.dwp",
                self.program.display()
            ))
        }))
    }

    /// Reads a file and hands it to the image.
    fn attach(
        &self,
        path: &Path,
        attach: impl FnOnce(Arc<[u8]>) -> Result<(), ImageError>,
    ) -> Result<(), Failure> {
        attach(read_file(path)?).map_err(|error| self.broken(path, &error))
    }

    fn broken(&self, path: &Path, error: &ImageError) -> Failure {
        let failure = Failure::new(USAGE, format!("{}: {error}", path.display()));
        let option = self.option;
        failure.hint(match error {
            ImageError::ForeignFile {
                what: "debug file", ..
            } => {
                format!("give the debug file of this very build with {option} FILE")
            }
            ImageError::ForeignFile { .. } => {
                "both come from one build: build the program again, or bring the file that was \
                 made with it"
                    .to_owned()
            }
            _ => format!("build or install the file again, or give another with {option} FILE"),
        })
    }

    fn without_symbols(&self, image: &Image) -> Failure {
        let option = self.option;
        if let Some(given) = self.given {
            return Failure::new(
                REFUSED,
                format!("{}: holds no symbol table", given.display()),
            )
            .hint(format!(
                "give the debug file of this very build with {option} FILE"
            ));
        }
        let id = image
            .build_id
            .as_ref()
            .map_or("none".to_owned(), ToString::to_string);
        let text = format!(
            "{}: stripped, and its debug file was not found (build id {id})",
            self.program.display()
        );
        Failure::new(REFUSED, text).hint(format!(
            "install its debug package, or give the file with {option} FILE"
        ))
    }
}

/// Those that are files, each once.
fn files(paths: impl IntoIterator<Item = PathBuf>) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = Vec::new();
    for path in paths {
        if path.is_file() && !found.contains(&path) {
            found.push(path);
        }
    }
    found
}
