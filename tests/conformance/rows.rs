//! Tables of responses: what each is worth to a second request for the same.
//!
//! Answers which rows of a table an edge does not keep, in both profiles; what a row demands, and
//! by which section, is the table's own. A row is `required` where reusing (or not) is what the
//! standard says with MUST, and `optimal` where it allows what a good cache does.

use std::fmt;

use meridian_config::edge::Profile;
use meridian_tests::edge::EdgeProcess;
use meridian_tests::origin::{Script, ScriptedOrigin, ok};

/// How much a standard demands of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Demand {
    Required,
    Optimal,
}

/// What a second request for the same is to get.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Second {
    /// The stored response, without waiting for the origin.
    Reused,
    /// What the origin says to it.
    Asked,
}

/// One response, and what it is worth.
pub(crate) type Row = (Demand, &'static [(&'static str, &'static str)], Second);

/// Asks twice for every row of a table, in both profiles, and tells all that is not as it says.
pub(crate) async fn all_hold(rows: &[Row]) {
    for profile in [Profile::Rfc, Profile::Cdn] {
        let answers = rows.iter().map(|(demand, fields, second)| {
            let answer = fields.iter().fold(ok("body"), |answer, (n, v)| answer.header(n, v));
            (format!("{demand:?}: {fields:?}"), answer, *second)
        });
        hold(profile, answers.collect()).await;
    }
}

/// The same for responses that are more than fields, in one profile.
pub(crate) async fn hold(profile: Profile, rows: Vec<(impl fmt::Display, Script, Second)>) {
    let broken = broken(profile, rows).await;
    assert!(broken.is_empty(), "profile {profile:?}:\n{}", broken.join("\n"));
}

async fn broken(profile: Profile, rows: Vec<(impl fmt::Display, Script, Second)>) -> Vec<String> {
    let origin = ScriptedOrigin::start().await;
    let edge = EdgeProcess::start(&origin, |edge| {
        edge.site.iter_mut().for_each(|site| site.profile = profile)
    })
    .await;
    let mut broken = Vec::new();
    for (index, (what, answer, want)) in rows.into_iter().enumerate() {
        let path = format!("/{index}");
        origin.script(&path, answer);
        edge.get(&path).await;
        let second = edge.get(&path).await;
        // A stale response may be reused while the origin is asked in the background.
        let found =
            if second.cache_status().contains("; hit") { Second::Reused } else { Second::Asked };
        assert!(found == Second::Reused || origin.count(&path) == 2, "{what}: nobody was asked");
        if found != want {
            broken.push(format!("{what} is {found:?}, not {want:?}: {}", second.cache_status()));
        }
    }
    broken
}

#[tokio::test]
async fn a_row_that_does_not_hold_is_told() {
    let fresh = |body: &'static str| ok(body).header("cache-control", "max-age=60");
    let rows = vec![
        ("so", fresh("a"), Second::Reused),
        ("not so", fresh("b"), Second::Asked),
        ("nor so", ok("c"), Second::Reused),
    ];
    let told = broken(Profile::Rfc, rows).await;
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(told[0].starts_with("not so is Reused, not Asked"), "{told:?}");
    assert!(told[1].starts_with("nor so is Asked, not Reused"), "{told:?}");
}
