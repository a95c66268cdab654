//! The windows of RFC 5861 and what closes them (RFC 9111 §4.2.4): how stale may be reused.
//!
//! No row waits: a response that arrives with an `Age` is as stale as it says.

use crate::rows::Demand::{Optimal, Required};
use crate::rows::Second::{Asked, Reused};
use crate::rows::{Row, all_hold};

const SEVENTY: (&str, &str) = ("age", "70");

#[tokio::test]
async fn stale_while_revalidate_opens_a_window_of_its_length() {
    const WITHIN: &str = "max-age=60, stale-while-revalidate=3600";
    let rows: [Row; 4] = [
        (Optimal, &[("cache-control", WITHIN), SEVENTY], Reused),
        (Required, &[("cache-control", "max-age=60, stale-while-revalidate=9"), SEVENTY], Asked),
        (Required, &[("cache-control", "max-age=60, stale-while-revalidate=x"), SEVENTY], Asked),
        (Required, &[("cache-control", WITHIN), ("age", "3700")], Asked),
    ];
    all_hold(&rows).await;
}

#[tokio::test]
async fn what_forbids_stale_responses_closes_the_window() {
    let rows: [Row; 6] = [
        (
            Required,
            &[("cache-control", "max-age=60, stale-while-revalidate=90, must-revalidate"), SEVENTY],
            Asked,
        ),
        (
            Required,
            &[
                ("cache-control", "max-age=60, stale-while-revalidate=90, proxy-revalidate"),
                SEVENTY,
            ],
            Asked,
        ),
        (
            Required,
            &[
                ("cache-control", "s-maxage=60, stale-while-revalidate=90, must-revalidate"),
                SEVENTY,
            ],
            Asked,
        ),
        (Required, &[("cache-control", "max-age=600, stale-while-revalidate=90, no-cache")], Asked),
        (Required, &[("cache-control", "max-age=60, stale-if-error=90"), SEVENTY], Asked),
        (Required, &[("cache-control", "max-age=60"), SEVENTY], Asked),
    ];
    all_hold(&rows).await;
}
