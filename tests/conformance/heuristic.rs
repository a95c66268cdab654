//! Statuses: which are stored without a lifetime (RFC 9111 §4.2.2, RFC 9110 §15.1), and
//! `must-understand` (RFC 9111 §5.2.2.3).

use meridian_config::edge::Profile;
use meridian_tests::origin::{Script, status};

use crate::rows::Second::{self, Asked, Reused};
use crate::rows::hold;

fn rows(codes: &[u16], fields: &[(&str, &str)], want: Second) -> Vec<(String, Script, Second)> {
    let row = |code: &u16| {
        let answer = if *code == 204 { status(*code) } else { status(*code).body("a") };
        let answer = fields.iter().fold(answer, |answer, (n, v)| answer.header(n, v));
        (format!("{code} with {fields:?}"), answer, want)
    };
    codes.iter().map(row).collect()
}

#[tokio::test]
async fn exactly_the_statuses_that_are_cacheable_by_default_get_a_heuristic_lifetime() {
    let long_ago = [("last-modified", "Mon, 03 Jan 2022 00:00:00 GMT")];
    let by_default = [200, 203, 204, 300, 301, 308, 404, 405, 410, 414, 501];
    let others = [201, 202, 302, 303, 307, 400, 403, 409, 418, 429, 500, 502, 503, 504, 599];
    let optimal = rows(&by_default, &long_ago, Reused);
    let required = rows(&others, &long_ago, Asked);
    hold(Profile::Rfc, optimal.into_iter().chain(required).collect()).await;
}

#[tokio::test]
async fn any_final_status_is_stored_with_a_lifetime() {
    let codes = [200, 201, 202, 203, 204, 299, 302, 303, 307, 308, 400, 403, 404, 418, 499, 501];
    let optimal = rows(&codes, &[("cache-control", "max-age=60")], Reused);
    hold(Profile::Rfc, optimal).await;
}

#[tokio::test]
async fn must_understand_lifts_no_store_for_a_status_that_is_understood_only() {
    let fields = [("cache-control", "max-age=60, no-store, must-understand")];
    let alone = [("cache-control", "max-age=60, must-understand")];
    for profile in [Profile::Rfc, Profile::Cdn] {
        let optimal = rows(&[200, 203, 204, 404], &fields, Reused);
        let required = rows(&[299, 499], &fields, Asked);
        let not_understood = rows(&[299, 499], &alone, Asked);
        let all = optimal.into_iter().chain(required).chain(not_understood);
        hold(profile, all.collect()).await;
    }
}
