//! Who asked for what, as the admin listener tells it.

use serde_json::{Value, json};

use crate::running::Running;

async fn counted(origin: &Running, query: &str) -> Value {
    let answer = origin.admin("GET", &format!("/v1/requests{query}"), "").await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    serde_json::from_slice(&answer.body).unwrap()
}

#[tokio::test]
async fn requests_and_bytes_are_counted_by_path_and_by_the_last_pseudonym_of_via() {
    let origin = Running::trace("key,size\n1,1000\n2,50\n/a?b=c,7\n").await;
    let mut client = origin.client().await;
    for (target, via) in [
        ("/o/1", "Via: 1.1 fra-1"),
        ("/o/1", "Via: 1.1 nrt-1, 1.1 fra-1"),
        ("/o/1", "Via: 1.1 nrt-1"),
        ("/o/2", "Via: 2 fra-1"),
        ("/a?b=c", "X: y"),
    ] {
        assert_eq!(client.exchange("GET", target, &[via]).await.status, 200);
    }
    client.exchange("HEAD", "/o/1", &["Via: 1.1 fra-1"]).await;
    client.exchange("GET", "/o/1", &["Via: 1.1 fra-1", "Range: bytes=0-9"]).await;
    assert_eq!(
        counted(&origin, "?path=/o/1").await,
        json!({"path": "/o/1", "requests": 5, "body_bytes": 3_010, "by": {
            "fra-1": {"requests": 4, "body_bytes": 2_010},
            "nrt-1": {"requests": 1, "body_bytes": 1_000},
        }})
    );
    let by_direct = json!({"direct": {"requests": 1, "body_bytes": 7}});
    for (query, path) in [("?path=/a%3Fb%3Dc", "/a?b=c"), ("?path=/a", "/a")] {
        let want = json!({"path": path, "requests": 1, "body_bytes": 7, "by": by_direct});
        assert_eq!(counted(&origin, query).await, want);
    }
    let total = counted(&origin, "").await;
    assert_eq!(total["path"], Value::Null);
    assert_eq!((&total["requests"], &total["body_bytes"]), (&json!(7), &json!(3_067)));
    let none = json!({"path": "/none", "requests": 0, "body_bytes": 0, "by": {}});
    assert_eq!(counted(&origin, "?path=/none").await, none);
}
