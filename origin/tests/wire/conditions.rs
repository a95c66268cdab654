//! Conditional requests (RFC 9110 §13).

use crate::running::Running;

#[tokio::test]
async fn conditions_decide_between_200_304_and_412() {
    let origin = Running::folder(&[("a.txt", b"hello")]).await;
    let first = origin.get("/a.txt").await;
    let etag = first.field("etag").unwrap();
    let modified = first.field("last-modified").unwrap();
    let past = "Mon, 01 Jan 2001 00:00:00 GMT";
    let rows: [(u16, Vec<String>); 17] = [
        (200, vec![]),
        (304, vec![format!("If-None-Match: {etag}")]),
        (304, vec![format!("If-None-Match: W/{etag}")]),
        (304, vec![format!("If-None-Match: \"x\", {etag}")]),
        (304, vec!["If-None-Match: *".into()]),
        (200, vec!["If-None-Match: \"x\"".into()]),
        (200, vec!["If-None-Match: \"x\"".into(), format!("If-Modified-Since: {modified}")]),
        (304, vec![format!("If-Modified-Since: {modified}")]),
        (200, vec![format!("If-Modified-Since: {past}")]),
        (200, vec!["If-Modified-Since: yesterday".into()]),
        (200, vec![format!("If-Match: {etag}")]),
        (200, vec!["If-Match: *".into()]),
        (412, vec!["If-Match: \"x\"".into()]),
        (412, vec![format!("If-Match: W/{etag}")]),
        (412, vec![format!("If-Unmodified-Since: {past}")]),
        (200, vec![format!("If-Unmodified-Since: {modified}")]),
        (304, vec![format!("If-Match: {etag}"), format!("If-None-Match: {etag}")]),
    ];
    let mut client = origin.client().await;
    for (want, fields) in rows {
        let fields: Vec<&str> = fields.iter().map(String::as_str).collect();
        for method in ["GET", "HEAD"] {
            let answer = client.exchange(method, "/a.txt", &fields).await;
            assert_eq!(answer.status, want, "{method} {fields:?}");
            assert_eq!(answer.field("etag"), Some(etag), "{method} {fields:?}");
        }
    }
}

#[tokio::test]
async fn a_304_says_what_freshens_and_nothing_of_a_body() {
    let origin = Running::folder_with(&[("a.txt", b"hello")], |config| {
        config.rule = vec![crate::running::rule("/*", Some("max-age=9"), Some("k"))];
    })
    .await;
    let answer = origin.exchange("GET", "/a.txt", &["If-None-Match: *"]).await;
    assert_eq!(answer.status, 304);
    assert_eq!(answer.field("cache-control"), Some("max-age=9"));
    assert_eq!(answer.field("surrogate-key"), Some("k"));
    assert!(answer.field("date").is_some());
    for absent in ["content-type", "content-length", "content-range", "transfer-encoding"] {
        assert_eq!(answer.field(absent), None, "{absent}");
    }
}

#[tokio::test]
async fn conditions_do_not_matter_where_there_is_nothing() {
    let origin = Running::folder(&[("404.html", b"no")]).await;
    for fields in [["If-None-Match: *"], ["If-Match: \"x\""], ["Range: bytes=0-0"]] {
        let answer = origin.exchange("GET", "/none", &fields).await;
        assert_eq!((answer.status, answer.text()), (404, "no"), "{fields:?}"); // RFC 9110 §13.2.1
    }
}
