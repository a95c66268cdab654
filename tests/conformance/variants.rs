//! `Vary` in its spellings (RFC 9111 §4.1, RFC 9110 §12.5.5).

use crate::rows::Demand::{Optimal, Required};
use crate::rows::Second::{Asked, Reused};
use crate::rows::{Row, all_hold};

const MINUTE: (&str, &str) = ("cache-control", "max-age=60");

#[tokio::test]
async fn a_star_anywhere_matches_no_request() {
    let rows: [Row; 7] = [
        (Required, &[MINUTE, ("vary", "*")], Asked),
        (Required, &[MINUTE, ("vary", "*"), ("vary", "*")], Asked),
        (Required, &[MINUTE, ("vary", "a, *")], Asked),
        (Required, &[MINUTE, ("vary", "*, a")], Asked),
        (Required, &[MINUTE, ("vary", "a"), ("vary", "*")], Asked),
        (Required, &[MINUTE, ("vary", "*"), ("vary", "a")], Asked),
        (Required, &[MINUTE, ("vary", ""), ("vary", "*")], Asked),
    ];
    all_hold(&rows).await;
}

#[tokio::test]
async fn lists_and_lines_name_fields_that_agree() {
    let rows: [Row; 5] = [
        (Optimal, &[MINUTE, ("vary", "a")], Reused),
        (Optimal, &[MINUTE, ("vary", "a, b")], Reused),
        (Optimal, &[MINUTE, ("vary", "a"), ("vary", "b")], Reused),
        (Optimal, &[MINUTE, ("vary", "a,, b ,")], Reused),
        (Optimal, &[MINUTE, ("vary", "")], Reused),
    ];
    all_hold(&rows).await;
}
