//! `meridian check`: what is wrong with configuration files, without starting anything.

use std::path::{Path, PathBuf};

use meridian_config::load::{AnyRole, load_any};
use meridian_config::together::check_together;
use meridian_config::violation::Violations;
use serde::Serialize;

use crate::cli::CheckArgs;
use crate::error::CommandError;
use crate::output::{Format, write_result};

/// What was found.
#[derive(Debug, Serialize)]
struct Checked {
    ok: bool,
    files: Vec<CheckedFile>,
    /// Every violation of every file, those between files last.
    violations: Vec<Found>,
}

#[derive(Debug, Serialize)]
struct CheckedFile {
    file: PathBuf,
    /// The role that its keys fit, if it can be used.
    role: Option<&'static str>,
    name: Option<String>,
}

#[derive(Debug, Serialize)]
struct Found {
    file: String,
    key: String,
    value: Option<String>,
    rule: String,
    line: Option<usize>,
    /// All of it, for people.
    text: String,
}

/// Checks the files, each by itself and all together.
pub(crate) fn check(args: &CheckArgs) -> Result<(), CommandError> {
    let checked = check_files(&args.files);
    write_result(&checked, Format::of(args.json), text)?;
    let files = checked.files.iter().filter(|file| file.role.is_none()).count();
    if checked.ok { Ok(()) } else { Err(CommandError::Checked { files, of: checked.files.len() }) }
}

fn check_files(paths: &[PathBuf]) -> Checked {
    let mut files = Vec::new();
    let mut violations = Vec::new();
    let mut good: Vec<(String, AnyRole)> = Vec::new();
    for path in paths {
        match load_any(path) {
            Ok(role) => {
                files.push(checked_file(path, Some(&role)));
                good.push((path.display().to_string(), role));
            }
            Err(found) => {
                files.push(checked_file(path, None));
                violations.extend(told(&found));
            }
        }
    }
    if let Err(found) = check_together(&good) {
        violations.extend(told(&found));
    }
    Checked { ok: violations.is_empty(), files, violations }
}

fn checked_file(path: &Path, role: Option<&AnyRole>) -> CheckedFile {
    let name = role.map(|role| match role {
        AnyRole::Edge(edge) => edge.name.to_string(),
        AnyRole::Origin(origin) => origin.name.to_string(),
        AnyRole::Control(control) => control.name.to_string(),
        AnyRole::Front(front) => front.name.to_string(),
    });
    CheckedFile { file: path.to_owned(), role: role.map(AnyRole::role), name }
}

fn told(violations: &Violations) -> impl Iterator<Item = Found> {
    violations.iter().map(|violation| Found {
        file: violation.file.clone(),
        key: violation.key.clone(),
        value: violation.value.clone(),
        rule: violation.rule.clone(),
        line: violation.line,
        text: violation.to_string(),
    })
}

fn text(checked: &Checked) -> String {
    let mut lines: Vec<String> = Vec::new();
    for file in &checked.files {
        if let (Some(role), Some(name)) = (file.role, &file.name) {
            lines.push(format!("{}: {role} {name}, ok", file.file.display()));
        }
    }
    lines.extend(checked.violations.iter().map(|violation| violation.text.clone()));
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::{check_files, text};

    const ORIGIN: &str = "name = \"origin-1\"\nregion = \"fra\"\nlisten = \"127.0.0.1:8083\"\n\
                          admin = \"127.0.0.1:8084\"\n[content]\nsample = true\n";

    #[test]
    fn every_violation_of_every_file_is_told_and_those_between_them() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = dir.path().join(name);
            fs::write(&path, text).unwrap();
            path
        };
        let good = file("good.toml", ORIGIN);
        let twice = file("twice.toml", ORIGIN);
        let bad = file("bad.toml", &ORIGIN.replace("8083", "99999").replace("region", "regoin"));

        let alone = check_files(std::slice::from_ref(&good));
        assert!(alone.ok && text(&alone).ends_with("origin origin-1, ok"), "{}", text(&alone));

        let all = check_files(&[good, twice, bad]);
        assert!(!all.ok);
        let rules: Vec<&str> = all.violations.iter().map(|found| found.text.as_str()).collect();
        assert!(rules.iter().any(|rule| rule.contains("regoin")), "{rules:?}");
        assert!(rules.iter().any(|rule| rule.contains("99999")), "{rules:?}");
        assert!(rules.last().unwrap().contains("good.toml already"), "{rules:?}");
    }

    #[test]
    fn a_file_that_is_not_there_is_a_violation() {
        let checked = check_files(&["/no/such/file.toml".into()]);
        assert!(
            text(&checked).contains("/no/such/file.toml: cannot be read"),
            "{}",
            text(&checked)
        );
    }
}
