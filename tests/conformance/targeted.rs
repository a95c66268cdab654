//! `CDN-Cache-Control` instead of `Cache-Control` and `Expires` (RFC 9213 §2), in both directions.

use crate::rows::Demand::{Optimal, Required};
use crate::rows::Second::{Asked, Reused};
use crate::rows::{Row, all_hold};

const PAST: (&str, &str) = ("expires", "Thu, 01 Jan 1970 00:00:00 GMT");
const FUTURE: (&str, &str) = ("expires", "Fri, 01 Jan 2100 00:00:00 GMT");

#[tokio::test]
async fn a_targeted_field_gives_the_lifetime() {
    let rows: [Row; 6] = [
        (Optimal, &[("cdn-cache-control", "max-age=3600")], Reused),
        (Optimal, &[("cdn-cache-control", "max-age=2147483648")], Reused),
        (Optimal, &[("cdn-cache-control", "max-age=99999999999")], Reused),
        (Optimal, &[("cdn-cache-control", "foobar, max-age=3600")], Reused),
        (Required, &[("cdn-cache-control", "max-age=0")], Asked),
        (Required, &[("cdn-cache-control", "max-age=3600"), ("age", "7200")], Asked),
    ];
    all_hold(&rows).await;
}

#[tokio::test]
async fn a_targeted_field_replaces_what_the_others_say_in_both_directions() {
    let rows: [Row; 11] = [
        (Optimal, &[("cdn-cache-control", "max-age=60"), ("cache-control", "max-age=0")], Reused),
        (Optimal, &[("cdn-cache-control", "max-age=60"), ("cache-control", "no-store")], Reused),
        (Optimal, &[("cdn-cache-control", "max-age=60"), ("cache-control", "private")], Reused),
        (Optimal, &[("cdn-cache-control", "max-age=60"), PAST], Reused),
        (Optimal, &[("cdn-cache-control", "max-age=60"), ("expires", "0")], Reused),
        (Required, &[("cdn-cache-control", "max-age=0"), ("cache-control", "max-age=60")], Asked),
        (Required, &[("cdn-cache-control", "max-age=0"), ("cache-control", "s-maxage=9")], Asked),
        (Required, &[("cdn-cache-control", "max-age=0"), FUTURE], Asked),
        (Required, &[("cdn-cache-control", "private"), ("cache-control", "max-age=60")], Asked),
        (Required, &[("cdn-cache-control", "no-cache"), ("cache-control", "max-age=60")], Asked),
        (Required, &[("cdn-cache-control", "no-store"), ("cache-control", "max-age=60")], Asked),
    ];
    all_hold(&rows).await;
}

#[tokio::test]
async fn a_targeted_field_that_does_not_parse_is_as_if_it_were_not_there() {
    const NO: (&str, &str) = ("cache-control", "no-store");
    const LONG: (&str, &str) = ("cache-control", "max-age=60");
    let rows: [Row; 9] = [
        (Required, &[("cdn-cache-control", "max-age=60, &&&&&"), NO], Asked),
        (Required, &[("cdn-cache-control", "max-age=\"60\""), NO], Asked),
        (Required, &[("cdn-cache-control", "max-age= 60"), NO], Asked),
        (Required, &[("cdn-cache-control", "MAX-AGE=60"), NO], Asked), // keys are lower case
        (Required, &[("cdn-cache-control", ""), NO], Asked),
        (Required, &[("cdn-cache-control", "max-age=0, &&&&&"), LONG], Reused),
        (Required, &[("cdn-cache-control", "No-Store"), LONG], Reused),
        (Required, &[("cdn-cache-control", ""), LONG], Reused),
        (Optimal, &[("cdn-cache-control", "max-age=60"), ("cdn-cache-control", "a=1"), NO], Reused),
    ];
    all_hold(&rows).await;
}
