//! Of a folder and the ways out of it.

use std::fs;
use std::os::unix::fs::symlink;
use std::sync::Arc;

use tempfile::TempDir;

use super::{Folder, Located, locate};
use crate::error::RunError;
use crate::metrics::Metrics;
use crate::problem::Code;
use crate::representation::Found;
use crate::target::Target;

/// A folder to serve, and beside it what must not be.
fn site() -> TempDir {
    let dir = TempDir::new().unwrap();
    let at = |name: &str| dir.path().join(name);
    for folder in ["site/docs", "site/empty", "site/.git", "site/.well-known", "outside"] {
        fs::create_dir_all(at(folder)).unwrap();
    }
    for file in [
        "site/index.html",
        "site/a.css",
        "site/docs/index.html",
        "site/.git/config",
        "site/.htaccess",
        "site/.well-known/security.txt",
        "outside/secret",
    ] {
        fs::write(at(file), file).unwrap();
    }
    for (link, to) in [
        ("site/in", "docs"),
        ("site/in.css", "a.css"),
        ("site/out", "../outside"),
        ("site/out.txt", "../outside/secret"),
        ("site/git", ".git"),
        ("site/loop", "loop"),
        ("site/dangling", "nowhere"),
    ] {
        symlink(to, at(link)).unwrap();
    }
    symlink(at("outside/secret"), at("site/absolute")).unwrap();
    symlink(at("site/a.css"), at("site/absolute.css")).unwrap();
    dir
}

fn open(dir: &TempDir, name: &str) -> Result<Folder, RunError> {
    Folder::open(&dir.path().join(name), 10, Arc::new(Metrics::new()))
}

#[tokio::test]
async fn no_path_leads_out_of_the_folder() {
    let dir = site();
    let folder = open(&dir, "site").unwrap();
    let rows = [
        ("/", "here"),
        ("/index.html", "here"),
        ("/a.css", "here"),
        ("/%61.css", "here"),
        ("/a.css/", "missing"),
        ("/a.css/b", "missing"),
        ("/docs", "elsewhere"),
        ("/docs/", "here"),
        ("/empty", "elsewhere"),
        ("/empty/", "missing"),
        ("/in", "elsewhere"),
        ("/in/", "here"),
        ("/in.css", "here"),
        ("/absolute.css", "here"),
        ("/.well-known/security.txt", "here"),
        ("/.htaccess", "missing"),
        ("/.git/config", "missing"),
        ("/git/config", "missing"),
        ("/out/secret", "missing"),
        ("/out/", "missing"),
        ("/out.txt", "missing"),
        ("/absolute", "missing"),
        ("/loop", "missing"),
        ("/dangling", "missing"),
        ("//outside/secret", "missing"),
        ("/../outside/secret", "bad"),
        ("/%2e%2e/outside/secret", "bad"),
        ("/..%2foutside/secret", "bad"),
        ("/..%5coutside/secret", "bad"),
        ("/%252e%252e/outside/secret", "missing"),
        ("/a.css%00.html", "bad"),
        ("/%2fetc/passwd", "bad"),
    ];
    for (uri, want) in rows {
        let got = match folder.find(&Target::of(&uri.parse().unwrap())).await {
            Found::Here(_) => "here",
            Found::Elsewhere => "elsewhere",
            Found::Missing(None) => "missing",
            Found::Missing(Some(_)) => "missing with a page",
            Found::Nothing(problem) if problem.code == Code::BadRequest => "bad",
            Found::Nothing(_) => "nothing",
        };
        assert_eq!(got, want, "{uri}");
    }
}

#[test]
fn a_name_longer_than_the_file_system_takes_leads_nowhere() {
    let dir = site();
    let target = Target::of(&format!("/{}", "x".repeat(5_000)).parse().unwrap());
    let inside = target.inside().unwrap().unwrap();
    assert!(matches!(locate(&dir.path().join("site"), &inside), Ok(Located::Nothing)));
}

#[test]
fn a_folder_that_cannot_be_served_says_so_before_anything_starts() {
    let dir = site();
    assert!(matches!(open(&dir, "nowhere").unwrap_err(), RunError::Folder { .. }));
    assert!(matches!(open(&dir, "site/a.css").unwrap_err(), RunError::NotAFolder { .. }));
}

#[tokio::test]
async fn a_folder_that_goes_away_is_trouble() {
    let dir = site();
    let folder = open(&dir, "site").unwrap();
    assert_eq!(folder.trouble().await, None);
    fs::remove_dir_all(dir.path().join("site")).unwrap();
    assert!(folder.trouble().await.unwrap().contains("cannot be read"));
}
