//! Small programs to compare.

use std::path::Path;
use std::process::Command;

/// Compiles `source` as `server` in the folder `place`, which is made.
pub(crate) fn build(place: &Path, source: &str) {
    std::fs::create_dir_all(place).expect("a folder can be made");
    std::fs::write(place.join("server.c"), source).expect("the source can be written");
    let done = Command::new("cc")
        .current_dir(place)
        .args(["-O2", "-g", "-Wl,--build-id", "-o", "server", "server.c"])
        .status()
        .expect("a C compiler is installed (apt-get install gcc)");
    assert!(done.success());
}
