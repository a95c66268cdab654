//! Everything that a folder serves.
//!
//! Links to files are listed if what they lead to is served; links to folders are not entered:
//! they may lead in circles.

use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};

use crate::listing::Collector;
use crate::target::is_hidden;

/// What cannot stand in a segment of a path as it is (RFC 3986 §3.3).
const ESCAPED: AsciiSet = {
    let unreserved = NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
    let delimiters = unreserved.remove(b'!').remove(b'$').remove(b'&').remove(b'\'').remove(b'(');
    let delimiters = delimiters.remove(b')').remove(b'*').remove(b'+').remove(b',').remove(b';');
    delimiters.remove(b'=').remove(b':').remove(b'@')
};

/// Offers every file below `root` that `follow` finds. What goes away meanwhile is left out.
/// Blocks.
pub(crate) fn walk(
    root: &Path,
    follow: impl Fn(&Path) -> io::Result<Option<PathBuf>>,
    into: &mut Collector<'_>,
) -> io::Result<()> {
    let mut folders = vec![(root.to_owned(), String::from("/"))];
    while let Some((folder, prefix)) = folders.pop() {
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) if folder == root => return Err(error),
            Err(error) => {
                tracing::debug!(?folder, %error, "not listed");
                continue;
            }
        };
        for entry in entries.flatten() {
            let name = entry.file_name();
            // A name that no request can write, such as one with a backslash, is not served.
            let is_odd = |byte: &u8| byte.is_ascii_control() || *byte == b'\\';
            if is_hidden(name.as_bytes()) || name.as_bytes().iter().any(is_odd) {
                continue;
            }
            let path = format!("{prefix}{}", percent_encode(name.as_bytes(), &ESCAPED));
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                folders.push((entry.path(), path + "/"));
            } else if let Ok(Some(real)) = follow(&entry.path())
                && let Ok(file) = fs::metadata(real)
                && file.is_file()
            {
                into.offer(&path, file.len());
            }
        }
    }
    Ok(())
}
