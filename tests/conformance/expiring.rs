//! `Expires` (RFC 9111 §5.3) in the three forms of a date (RFC 9110 §5.6.7), and nothing else.

use crate::rows::Demand::{Optimal, Required};
use crate::rows::Second::{Asked, Reused};
use crate::rows::{Row, all_hold};

#[tokio::test]
async fn the_three_forms_of_a_date_are_read() {
    let rows: [Row; 6] = [
        (Optimal, &[("expires", "Sat, 01 Jan 2039 00:00:00 GMT")], Reused),
        (Optimal, &[("expires", "Saturday, 01-Jan-39 00:00:00 GMT")], Reused),
        (Optimal, &[("expires", "Sat Jan  1 00:00:00 2039")], Reused),
        (Required, &[("expires", "Sat, 01 Jan 2022 00:00:00 GMT")], Asked),
        (Required, &[("expires", "Saturday, 01-Jan-22 00:00:00 GMT")], Asked),
        (Required, &[("expires", "Sat Jan  1 00:00:00 2022")], Asked),
    ];
    all_hold(&rows).await;
}

#[tokio::test]
async fn whatever_else_stands_there_means_already_expired() {
    let rows: [Row; 9] = [
        (Required, &[("expires", "0")], Asked),
        (Required, &[("expires", "-1")], Asked),
        (Required, &[("expires", "")], Asked),
        (Required, &[("expires", "2177452800")], Asked),
        (Required, &[("expires", "2039-01-01T00:00:00Z")], Asked),
        (Required, &[("expires", "Sat, 01 Jan 2039 00:00:00 +0000")], Asked),
        (Required, &[("expires", "Sat, 01 Jan 2039 00:00:00 PST")], Asked),
        (Required, &[("expires", "Sat, 1 Jan 2039 00:00:00 GMT")], Asked),
        (Required, &[("expires", "Sat, 01 Jan 2039 00:00 GMT")], Asked),
    ];
    all_hold(&rows).await;
}

#[tokio::test]
async fn max_age_governs_whatever_expires_says() {
    let rows: [Row; 3] = [
        (
            Required,
            &[("cache-control", "max-age=0"), ("expires", "Sat Jan  1 00:00:00 2039")],
            Asked,
        ),
        (Optimal, &[("cache-control", "max-age=60"), ("expires", "0")], Reused),
        (Optimal, &[("cache-control", "s-maxage=60, max-age=0"), ("expires", "0")], Reused),
    ];
    all_hold(&rows).await;
}
