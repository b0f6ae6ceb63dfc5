//! What the old file is called while a final image has its name.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use invivo_format::final_image::{BASE_DIGITS, BASE_MARK};
use invivo_patch::Hex;

const MARK: &[u8] = BASE_MARK.as_bytes();
const DIGITS: usize = BASE_DIGITS;

/// The name of the file that was called `name` and has this SHA-256: `.NAME.invivo-` and the
/// first digits.
///
/// The kernel tells the new name for a program that goes on running the old file
/// (`/proc/PID/exe`, `/proc/PID/maps`), so the name has to tell what it was.
#[must_use]
pub fn base_name(name: &OsStr, sha256: &Hex) -> OsString {
    let digits = sha256.to_string();
    let parts = [
        b".",
        name.as_bytes(),
        MARK,
        &digits.as_bytes()[..DIGITS.min(digits.len())],
    ];
    OsString::from_vec(parts.concat())
}

/// The name that the file called `name` had before a final image took it.
#[must_use]
pub fn name_of_base(name: &OsStr) -> Option<&OsStr> {
    let name = name.as_bytes().strip_prefix(b".")?;
    let (name, digits) = name.split_at_checked(name.len().checked_sub(DIGITS)?)?;
    let hexadecimal = |digit: &u8| matches!(digit, b'0'..=b'9' | b'a'..=b'f');
    let name = name.strip_suffix(MARK).filter(|name| !name.is_empty())?;
    digits
        .iter()
        .all(hexadecimal)
        .then(|| OsStr::from_bytes(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_leads_back() {
        let sha256 = Hex((0..32).collect());
        let name = OsStr::new("libfoo.so.1");
        let hidden = base_name(name, &sha256);
        assert_eq!(hidden, ".libfoo.so.1.invivo-0001020304050607");
        assert_eq!(name_of_base(&hidden), Some(name));
        for other in [
            "libfoo.so",
            ".profile",
            ".invivo-0001020304050607",
            ".a.invivo-g001020304050607",
        ] {
            assert_eq!(name_of_base(OsStr::new(other)), None, "{other}");
        }
    }
}
