//! The age of a response and its limits (RFC 9111 §4.2.3, §5.1, §1.2.2).

use meridian_tests::edge::EdgeProcess;
use meridian_tests::origin::{ScriptedOrigin, ok};

use crate::rows::Demand::{Optimal, Required};
use crate::rows::Second::{Asked, Reused};
use crate::rows::{Row, all_hold};

const HOUR: (&str, &str) = ("cache-control", "max-age=3600");

#[tokio::test]
async fn the_age_that_a_response_brings_counts_against_its_lifetime() {
    let rows: [Row; 8] = [
        (Optimal, &[HOUR, ("age", "3000")], Reused),
        (Required, &[HOUR, ("age", "3600")], Asked), // fresh only while the lifetime exceeds it
        (Required, &[HOUR, ("age", "7200")], Asked),
        (Required, &[HOUR, ("age", "2147483647")], Asked),
        (Required, &[HOUR, ("age", "2147483648")], Asked),
        (Required, &[HOUR, ("age", "4294967296")], Asked),
        (Required, &[HOUR, ("age", "18446744073709551616")], Asked),
        (Required, &[("cache-control", "max-age=9999999999"), ("age", "9999999999")], Asked),
    ];
    all_hold(&rows).await;
}

#[tokio::test]
async fn of_several_ages_the_first_counts_and_a_malformed_one_is_ignored() {
    let rows: [Row; 9] = [
        (Required, &[HOUR, ("age", "7200, 0")], Asked),
        (Required, &[HOUR, ("age", "7200"), ("age", "0")], Asked),
        (Optimal, &[HOUR, ("age", "0, 7200")], Reused),
        (Optimal, &[HOUR, ("age", "0"), ("age", "7200")], Reused),
        (Optimal, &[HOUR, ("age", "abc")], Reused),
        (Optimal, &[HOUR, ("age", "-7200")], Reused),
        (Optimal, &[HOUR, ("age", "7200.0")], Reused),
        (Optimal, &[HOUR, ("age", "7200;a=1")], Reused),
        (Optimal, &[HOUR, ("age", "")], Reused),
    ];
    all_hold(&rows).await;
}

#[tokio::test]
async fn an_age_near_two_to_the_31_is_told_as_it_is() {
    let origin = ScriptedOrigin::start().await;
    let edge = EdgeProcess::start(&origin, |_| {}).await;
    let old = ok("a").header("cache-control", "max-age=4294967296").header("age", "2147483000");
    origin.script("/a", old);
    edge.get("/a").await;
    let second = edge.get("/a").await;
    assert!(second.cache_status().contains("; hit"), "{}", second.cache_status());
    let age: u64 = second.header("age").unwrap().parse().unwrap();
    assert!((2_147_483_000..2_147_483_600).contains(&age), "{age}");
    assert_eq!(origin.count("/a"), 1);
}
