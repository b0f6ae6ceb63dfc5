//! Expected output in files. `INVIVO_BLESS=1` writes them anew.

use std::path::Path;

/// Compares `text` with the file; writes the file when it is asked to.
pub(crate) fn compare(file: &Path, text: &str) {
    if std::env::var_os("INVIVO_BLESS").is_some_and(|value| value == "1") {
        let folder = file.parent().expect("a file lies in a folder");
        std::fs::create_dir_all(folder).expect("the folder can be made");
        std::fs::write(file, text).expect("the file can be written");
        return;
    }
    let shown = file.display();
    let expected = std::fs::read_to_string(file).unwrap_or_else(|error| format!("({error})"));
    if expected == text {
        return;
    }
    let line = expected.lines().zip(text.lines()).position(|(a, b)| a != b);
    let line = line.unwrap_or_else(|| expected.lines().count().min(text.lines().count()));
    let differs = format!(
        "{shown} differs from line {} on:\n  file:    {}\n  program: {}\n\
         if the program is right, renew it with INVIVO_BLESS=1 cargo test -p invivo-cli",
        line + 1,
        expected.lines().nth(line).unwrap_or("(the end)"),
        text.lines().nth(line).unwrap_or("(the end)"),
    );
    assert!(expected == text, "{differs}");
}
