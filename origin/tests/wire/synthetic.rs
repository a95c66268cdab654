//! The objects of a trace over the wire.

use meridian_origin::synthetic::fill;

use crate::running::Running;

#[tokio::test]
async fn objects_have_exactly_their_size_and_the_bytes_that_anybody_can_make() {
    let csv =
        "t,key,size\n0,1,1\n1,2,0\n2,/img/x.gif,65536\n3,/s?q=a%20b&c,65537\n4,3,1000003\n5,4,\n";
    let origin = Running::trace(csv).await;
    let rows = [
        ("/o/1", 1),
        ("/o/2", 0),
        ("/img/x.gif", 65_536),
        ("/s?q=a%20b&c", 65_537),
        ("/o/3", 1_000_003),
        ("/o/4", 1_024),
    ];
    let mut client = origin.client().await;
    for (target, size) in rows {
        let answer = client.get(target).await;
        let mut want = vec![0; size];
        fill(target, 0, &mut want);
        assert!(answer.body == want, "{target}: {} bytes", answer.body.len());
        assert_eq!(answer.field("cache-control"), Some("public, max-age=86400"));
        let etag = answer.field("etag").unwrap();
        let again = client.exchange("GET", target, &[&format!("If-None-Match: {etag}")]).await;
        assert_eq!(again.status, 304, "{target}");
    }
    for target in ["/s", "/s?q=a", "/o/5", "/"] {
        assert_eq!(client.get(target).await.code(), "not_found", "{target}");
    }
}

#[tokio::test]
async fn an_object_beyond_memory_is_served_piece_by_piece() {
    let size: u64 = 1 << 40;
    let origin = Running::trace(&format!("key,size\n1,{size}\n")).await;
    let head = origin.exchange("HEAD", "/o/1", &[]).await;
    assert_eq!(head.field("content-length"), Some(&*size.to_string()));
    let part = origin.exchange("GET", "/o/1", &["Range: bytes=-3"]).await;
    let mut want = [0; 3];
    fill("/o/1", size - 3, &mut want);
    assert_eq!(part.body, want);
}
