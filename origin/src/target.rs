//! A request target as the origin reads it: no way out of a folder is spelled in any way.
//!
//! # Invariants
//! - A decoded segment is one name: no separator, no dot segment, no control character.
//! - Names that hold secrets or a project's own history are not served, wherever they stand
//!   ([`is_hidden`]); other names that begin with a dot are files like any other.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use http::Uri;
use percent_encoding::percent_decode;

/// Why a path names nothing that could be served.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadPath {
    #[error("the path must start with '/'")]
    NotAbsolute,
    #[error("'%' in the path must be followed by two hexadecimal digits")]
    Escape,
    #[error("the path must not hold \"%{0:02X}\": it does not separate anything here")]
    Separator(u8),
    #[error("the path must not hold the control character \"%{0:02X}\"")]
    Control(u8),
    #[error("the path must not hold \".\" or \"..\" as a segment, however it is written")]
    DotSegment,
}

/// A request target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    /// Path and query as received.
    pub(crate) written: String,
    /// The decoded path, for patterns. As written where it is [`BadPath`].
    pub(crate) path: String,
    /// The names between the slashes; the last is empty if a slash ends the path.
    segments: Result<Vec<Vec<u8>>, BadPath>,
}

/// A path inside a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Inside {
    /// Relative to the folder. Empty: the folder itself.
    pub(crate) path: PathBuf,
    /// A slash ends it: it means a folder.
    pub(crate) is_folder: bool,
}

impl Target {
    pub(crate) fn of(uri: &Uri) -> Self {
        let raw = uri.path();
        let written = uri.path_and_query().map_or_else(|| raw.to_owned(), ToString::to_string);
        let segments = segments(raw);
        let path = match &segments {
            Ok(segments) => {
                let lossy = segments.iter().map(|segment| String::from_utf8_lossy(segment));
                lossy.fold(String::with_capacity(raw.len()), |path, name| path + "/" + &name)
            }
            Err(_) => raw.to_owned(),
        };
        Self { written, path, segments }
    }

    /// The path as written, without the query.
    pub(crate) fn written_path(&self) -> &str {
        self.written.split_once('?').map_or(&*self.written, |(path, _)| path)
    }

    /// What is wrong with the path, if anything.
    pub(crate) fn check(&self) -> Result<(), BadPath> {
        self.segments.as_ref().map(drop).map_err(BadPath::clone)
    }

    /// The path inside a folder; `None` if nothing is served under such a name.
    pub(crate) fn inside(&self) -> Result<Option<Inside>, BadPath> {
        let segments = self.segments.as_ref().map_err(BadPath::clone)?;
        let Some((last, folders)) = segments.split_last() else {
            return Err(BadPath::NotAbsolute);
        };
        let names = folders.iter().chain((!last.is_empty()).then_some(last));
        let mut path = PathBuf::new();
        for name in names {
            if name.is_empty() || is_hidden(name) {
                return Ok(None);
            }
            path.push(OsStr::from_bytes(name));
        }
        Ok(Some(Inside { path, is_folder: last.is_empty() }))
    }
}

/// Beginnings of names under which nothing is served: version control, credentials, settings of
/// servers and shells, and Meridian's own folder, which holds a token.
const HIDDEN: [&[u8]; 16] = [
    b".git",
    b".hg",
    b".svn",
    b".bzr",
    b".env",
    b".ht",
    b".ssh",
    b".gnupg",
    b".aws",
    b".kube",
    b".docker",
    b".npmrc",
    b".netrc",
    b".pgpass",
    b".bash",
    b".meridian",
];

/// Whether nothing is served under this name.
pub(crate) fn is_hidden(name: &[u8]) -> bool {
    let lower = name.to_ascii_lowercase(); // some file systems do not tell case apart
    HIDDEN.iter().any(|start| lower.starts_with(start))
}

fn segments(path: &str) -> Result<Vec<Vec<u8>>, BadPath> {
    let rest = path.strip_prefix('/').ok_or(BadPath::NotAbsolute)?;
    rest.split('/').map(segment).collect()
}

fn segment(raw: &str) -> Result<Vec<u8>, BadPath> {
    let escapes = raw.split('%').skip(1);
    let is_hex = |text: &str| text.bytes().take(2).filter(u8::is_ascii_hexdigit).count() == 2;
    if !{ escapes }.all(is_hex) {
        return Err(BadPath::Escape);
    }
    let name: Vec<u8> = percent_decode(raw.as_bytes()).collect();
    if let Some(byte) = name.iter().find(|byte| b"/\\".contains(byte)) {
        return Err(BadPath::Separator(*byte));
    }
    if let Some(byte) = name.iter().find(|byte| byte.is_ascii_control()) {
        return Err(BadPath::Control(*byte));
    }
    if [&b"."[..], b".."].contains(&&*name) { Err(BadPath::DotSegment) } else { Ok(name) }
}

#[cfg(test)]
mod tests {
    use super::{BadPath, Target};

    #[test]
    fn a_path_means_one_place_inside_or_none() {
        let rows = [
            ("/", Ok(Some(("", true)))),
            ("/a", Ok(Some(("a", false)))),
            ("/a/", Ok(Some(("a", true)))),
            ("/a/b.html?x=../y", Ok(Some(("a/b.html", false)))),
            ("/a%20b", Ok(Some(("a b", false)))),
            ("/caf%C3%A9", Ok(Some(("café", false)))),
            ("/a..b", Ok(Some(("a..b", false)))),
            ("/...", Ok(Some(("...", false)))),
            ("/.nojekyll", Ok(Some((".nojekyll", false)))),
            ("/.env.local", Ok(None)),
            ("/sub/.GIT/config", Ok(None)),
            ("/.meridian/token", Ok(None)),
            ("/a//b", Ok(None)),
            ("//etc/passwd", Ok(None)),
            ("/.git/config", Ok(None)),
            ("/%2egit/config", Ok(None)),
            ("/.well-known/x", Ok(Some((".well-known/x", false)))),
            ("/..", Err(BadPath::DotSegment)),
            ("/a/../../etc/passwd", Err(BadPath::DotSegment)),
            ("/%2e%2e/x", Err(BadPath::DotSegment)),
            ("/.%2E/x", Err(BadPath::DotSegment)),
            ("/a/./b", Err(BadPath::DotSegment)),
            ("/..%2fx", Err(BadPath::Separator(b'/'))),
            ("/..%5cx", Err(BadPath::Separator(b'\\'))),
            ("/a%00.html", Err(BadPath::Control(0))),
            ("/a%0d%0ab", Err(BadPath::Control(13))),
            ("/a%", Err(BadPath::Escape)),
            ("/a%2", Err(BadPath::Escape)),
            ("/a%2gb", Err(BadPath::Escape)),
        ];
        for (uri, want) in rows {
            let inside = Target::of(&uri.parse().unwrap()).inside();
            let got = inside.map(|inside| inside.map(|i| (i.path, i.is_folder)));
            let want = want.map(|inside| inside.map(|(path, folder)| (path.into(), folder)));
            assert_eq!(got, want, "{uri}");
        }
    }

    #[test]
    fn double_encoding_is_decoded_once() {
        let target = Target::of(&"/%252e%252e/x".parse().unwrap());
        assert_eq!(target.path, "/%2e%2e/x");
    }

    #[test]
    fn the_target_of_options_and_connect_is_no_path() {
        for uri in ["*", "example.org:80"] {
            let target = Target::of(&uri.parse().unwrap());
            assert_eq!(target.check(), Err(BadPath::NotAbsolute), "{uri}");
        }
    }
}
