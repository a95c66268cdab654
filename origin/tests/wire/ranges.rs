//! Ranges (RFC 9110 §14), of files and of synthetic objects alike.

use meridian_origin::synthetic::fill;

use crate::running::Running;

/// Larger than one chunk of a body, so that ranges start and end within and across chunks.
const LENGTH: usize = 200_000;

fn content() -> Vec<u8> {
    let mut content = vec![0; LENGTH];
    fill("/o/1", 0, &mut content);
    content
}

async fn both() -> [(Running, &'static str); 2] {
    let folder = Running::folder(&[("o/1", &content())]).await;
    [(folder, "/o/1"), (Running::trace(&format!("key,size\n1,{LENGTH}\n")).await, "/o/1")]
}

#[tokio::test]
async fn a_range_is_cut_out_or_refused_or_ignored() {
    let whole = content();
    let rows = [
        ("bytes=0-0", 206, Some((0, 0))),
        ("bytes=0-", 206, Some((0, LENGTH - 1))),
        ("bytes=65535-65536", 206, Some((65_535, 65_536))),
        ("bytes=131071-199998", 206, Some((131_071, 199_998))),
        ("bytes=-1", 206, Some((LENGTH - 1, LENGTH - 1))),
        ("bytes=-999999", 206, Some((0, LENGTH - 1))),
        ("bytes=199999-999999", 206, Some((LENGTH - 1, LENGTH - 1))),
        ("Bytes=5-9", 206, Some((5, 9))),
        ("bytes=200000-", 416, None),
        ("bytes=-0", 416, None),
        ("bytes=5-4", 200, None),
        ("bytes=--5", 200, None),
        ("bytes=-5-", 200, None),
        ("bytes=a-b", 200, None),
        ("lines=1-2", 200, None),
        ("bytes=99999999999999999999-", 416, None),
    ];
    for (origin, target) in both().await {
        let mut client = origin.client().await;
        for (range, status, want) in rows {
            let answer = client.exchange("GET", target, &[&format!("Range: {range}")]).await;
            assert_eq!(answer.status, status, "{range}");
            let content_range = match (status, want) {
                (_, Some((first, last))) => Some(format!("bytes {first}-{last}/{LENGTH}")),
                (416, None) => Some(format!("bytes */{LENGTH}")),
                (_, None) => None,
            };
            assert_eq!(answer.field("content-range"), content_range.as_deref(), "{range}");
            let bytes = match (status, want) {
                (_, Some((first, last))) => &whole[first..=last],
                (416, None) => &[],
                (_, None) => &whole,
            };
            assert!(answer.body == bytes, "{range}: {} bytes", answer.body.len());
        }
        let head = client.exchange("HEAD", target, &["Range: bytes=0-0"]).await;
        assert_eq!(head.status, 200); // RFC 9110 §14.2: defined for GET only
    }
}

#[tokio::test]
async fn several_ranges_come_as_parts() {
    let whole = content();
    for (origin, target) in both().await {
        let fields = ["Range: bytes=100000-100999, 0-9, -5"];
        let answer = origin.exchange("GET", target, &fields).await;
        assert_eq!(answer.status, 206);
        let content_type = answer.field("content-type").unwrap();
        let boundary = content_type.strip_prefix("multipart/byteranges; boundary=").unwrap();
        let mut rest = &answer.body[..];
        for (first, last) in [(100_000, 100_999), (0, 9), (199_995, 199_999)] {
            let length = last - first + 1;
            let end = rest.windows(4).position(|four| four == b"\r\n\r\n").unwrap() + 4;
            let head = std::str::from_utf8(&rest[..end]).unwrap();
            assert!(head.trim_start().starts_with(&format!("--{boundary}\r\n")), "{head}");
            assert!(head.contains("Content-Type: application/octet-stream\r\n"), "{head}");
            assert!(head.contains(&format!("Content-Range: bytes {first}-{last}/{LENGTH}")));
            assert!(rest[end..end + length] == whole[first..=last], "{first}-{last}");
            rest = &rest[end + length..];
        }
        assert_eq!(rest, format!("\r\n--{boundary}--\r\n").as_bytes());
    }
}

#[tokio::test]
async fn too_many_ranges_get_the_whole() {
    let ranges = |n: usize| {
        let each: Vec<String> = (0..n).map(|i| format!("{}-{}", i * 1_000, i * 1_000)).collect();
        format!("Range: bytes={}", each.join(","))
    };
    let origin = Running::trace(&format!("key,size\n1,{LENGTH}\n")).await;
    assert_eq!(origin.exchange("GET", "/o/1", &[&ranges(16)]).await.status, 206);
    assert_eq!(origin.exchange("GET", "/o/1", &[&ranges(17)]).await.status, 200);
}

#[tokio::test]
async fn a_part_is_sent_only_of_the_representation_that_if_range_names() {
    let origin = Running::folder(&[("a.txt", b"hello")]).await;
    let etag = origin.get("/a.txt").await.field("etag").unwrap().to_owned();
    let old = std::time::SystemTime::now() - std::time::Duration::from_secs(3_600);
    std::fs::File::options()
        .write(true)
        .open(origin.path("a.txt"))
        .and_then(|file| file.set_modified(old))
        .unwrap();
    let modified = httpdate::fmt_http_date(old);
    let rows = [
        (etag.clone(), 206),
        (format!("W/{etag}"), 200),
        ("\"x\"".to_owned(), 200),
        (modified, 206),
        ("Mon, 01 Jan 2001 00:00:00 GMT".to_owned(), 200),
    ];
    for (condition, status) in rows {
        let fields = ["Range: bytes=1-2", &format!("If-Range: {condition}")];
        assert_eq!(origin.exchange("GET", "/a.txt", &fields).await.status, status, "{condition}");
    }
}
