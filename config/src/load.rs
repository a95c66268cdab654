//! From a file to a checked role, or to everything that is wrong with it.
//!
//! Opens no other file than the one it is given: token files and folders are looked at by whoever
//! uses them.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use crate::control::{Control, Front};
use crate::decode::decode;
use crate::document::Document;
use crate::edge::Edge;
use crate::origin::Origin;
use crate::role::Role;
use crate::violation::{Place, Violation, Violations};

/// The largest file that is read: a hundred times a long one.
const LARGEST_FILE: u64 = 1 << 20;

/// Violations that are reported of one file; nobody reads more at once.
const MOST_VIOLATIONS: usize = 100;

/// Reads the file at `path` as the role `T`. Relative paths in it then start at its folder.
pub fn load<T: Role>(path: &Path) -> Result<T, Violations> {
    parse(&read(path)?, path)
}

/// Reads `text` as the role `T`, as [`load`] reads a file at `path`, which need not exist.
pub fn parse<T: Role>(text: &str, path: &Path) -> Result<T, Violations> {
    let file = path.display().to_string();
    let document = document(&file, text)?;
    judge(&file, path, &document).map_err(|found| violations(&file, found))
}

/// Checks a role that was made in code, as `file`.
pub fn check<T: Role>(role: &T, file: &str) -> Result<(), Violations> {
    let mut found = Vec::new();
    role.check(&Place::root(file), &mut found);
    Violations::none_of(found)
}

/// A file of a role that was not known before it was read.
#[derive(Debug, Clone, PartialEq)]
pub enum AnyRole {
    /// An edge.
    Edge(Box<Edge>),
    /// An origin.
    Origin(Box<Origin>),
    /// A control replica.
    Control(Box<Control>),
    /// A front door.
    Front(Box<Front>),
}

impl AnyRole {
    /// The role's name, as the command line says it.
    pub fn role(&self) -> &'static str {
        match self {
            Self::Edge(_) => Edge::NAME,
            Self::Origin(_) => Origin::NAME,
            Self::Control(_) => Control::NAME,
            Self::Front(_) => Front::NAME,
        }
    }
}

/// Reads the file at `path` as the role that it fits best: the one to which the fewest of its
/// keys are unknown and of whose keys it lacks the fewest.
pub fn load_any(path: &Path) -> Result<AnyRole, Violations> {
    parse_any(&read(path)?, path)
}

/// Reads `text` as [`load_any`] reads a file at `path`, which need not exist.
pub fn parse_any(text: &str, path: &Path) -> Result<AnyRole, Violations> {
    let file = path.display().to_string();
    let document = document(&file, text)?;
    let tries = [
        judge(&file, path, &document).map(|role| AnyRole::Edge(Box::new(role))),
        judge(&file, path, &document).map(|role| AnyRole::Origin(Box::new(role))),
        judge(&file, path, &document).map(|role| AnyRole::Control(Box::new(role))),
        judge(&file, path, &document).map(|role| AnyRole::Front(Box::new(role))),
    ];
    let mut best: Option<Vec<Violation>> = None;
    for outcome in tries {
        match (outcome, &best) {
            (Ok(role), _) => return Ok(role),
            (Err(found), Some(least)) if misfit(&found) >= misfit(least) => {}
            (Err(found), _) => best = Some(found), // of equals, the first
        }
    }
    Err(violations(&file, best.unwrap_or_default()))
}

/// How badly a file fits a role: what is unknown or missing at its top first, then the rest.
fn misfit(found: &[Violation]) -> (usize, usize) {
    let at_the_top = |violation: &&Violation| violation.misfit && violation.at.steps().len() == 1;
    (found.iter().filter(at_the_top).count(), found.len())
}

fn document<'t>(file: &str, text: &'t str) -> Result<Document<'t>, Violations> {
    Document::parse(file, text, MOST_VIOLATIONS).map_err(|found| violations(file, found))
}

/// Reads and checks a role; the violations stand in the order of the file.
fn judge<T: Role>(file: &str, path: &Path, document: &Document<'_>) -> Result<T, Vec<Violation>> {
    let decoded = decode::<T>(file, document, MOST_VIOLATIONS);
    let mut found = decoded.found;
    if let Some(role) = &decoded.value {
        let mut broken = Vec::new();
        role.check(&Place::root(file), &mut broken);
        broken.retain(|violation| {
            let keys = violation.with.iter().chain([&violation.at]);
            !keys.clone().any(|key| decoded.aside.iter().any(|aside| key.touches(aside)))
        });
        found.append(&mut broken);
    }
    for violation in &mut found {
        document.locate(violation);
    }
    found.sort_by(|a, b| (a.line, &a.at).cmp(&(b.line, &b.at)));
    match decoded.value {
        Some(mut role) if found.is_empty() => {
            role.resolve(path.parent().unwrap_or(Path::new("")));
            Ok(role)
        }
        _ => Err(found),
    }
}

/// `found` as an error, cut to what is reported at most.
fn violations(file: &str, mut found: Vec<Violation>) -> Violations {
    found.truncate(MOST_VIOLATIONS);
    match Violations::none_of(found) {
        Err(violations) => violations,
        Ok(()) => Place::root(file).lacks("fits no role").into(),
    }
}

/// The text of a file, or why there is none.
fn read(path: &Path) -> Result<String, Violations> {
    let file = path.display().to_string();
    let refused = |rule: String| Violations::from(Place::root(&file).lacks(rule));
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(LARGEST_FILE + 1).read_to_end(&mut bytes))
        .map_err(|error| refused(format!("cannot be read: {error}")))?;
    if bytes.len() as u64 > LARGEST_FILE {
        return Err(refused("must be at most 1MiB".to_owned()));
    }
    String::from_utf8(bytes).map_err(|error| refused(format!("is not UTF-8: {error}")))
}
