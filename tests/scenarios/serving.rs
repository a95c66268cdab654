//! What clients get: whole answers, from the store the second time.

use meridian_tests::client::Client;
use meridian_tests::cluster::Cluster;
use meridian_tests::site::Site;

#[tokio::test]
async fn the_second_request_of_the_sample_site_is_a_hit() {
    let cluster = Cluster::start(&[]).await;
    let front = Client::get(&format!("{}/", cluster.file().front)).await;
    assert_eq!(front.status, 307);
    let url = front.header("location").unwrap().to_owned();

    let first = Client::get(&url).await;
    assert_eq!(first.status, 200, "{first:?}");
    assert!(first.text().contains("<html"), "{}", first.text());
    assert!(first.cache_status().contains("fwd=uri-miss"), "{}", first.cache_status());
    assert!(first.cache_status().contains("stored"), "{}", first.cache_status());

    let second = Client::get(&url).await;
    assert_eq!((second.status, &second.body), (first.status, &first.body));
    let edge = cluster.file().edges.iter().find(|edge| url.starts_with(&edge.url)).unwrap().clone();
    let status = second.cache_status();
    assert!(status.starts_with(&format!("{}; hit; ttl=", edge.name)), "{status}");
    let age: u64 = second.header("age").expect("a hit has an age").parse().unwrap();
    assert!(age < 60, "{age}");
    assert!(second.header("via").unwrap().ends_with(&edge.name), "{second:?}");
}

/// Every file, through every edge, three times: cold, warm, and over HTTP/2.
#[tokio::test]
async fn every_file_of_a_folder_comes_back_byte_for_byte_through_every_edge() {
    let site = Site::small();
    let cluster = Cluster::start(&[site.argument(), "--regions", "fra,iad"]).await;
    for edge in cluster.file().edges {
        let mut http1 = Client::http1(&edge.url).await.unwrap();
        let mut http2 = Client::http2(&edge.url).await.unwrap();
        for (path, body) in site.files() {
            let cold = http1.path(path).await;
            let warm = http1.path(path).await;
            let other = http2.path(path).await;
            for reply in [&cold, &warm, &other] {
                assert_eq!(reply.status, 200, "{path}: {reply:?}");
                assert!(reply.body == *body, "{path} at {}: another body", edge.name);
            }
            assert!(cold.cache_status().contains("fwd=uri-miss"), "{path}: {cold:?}");
            assert!(warm.cache_status().contains("; hit"), "{path}: {warm:?}");
            assert!(other.cache_status().contains("; hit"), "{path}: {other:?}");
            assert_eq!(warm.header("etag"), cold.header("etag"), "{path}");
        }
        assert_eq!(http1.path("/index.html").await.body, http1.path("/").await.body);
    }
    // Each edge has asked the origin once for each file, and once for `/`.
    let asked = cluster.origin_requests(None).await;
    assert_eq!(asked, 2 * (site.files().count() as u64 + 1));
}

#[tokio::test]
async fn a_range_of_a_stored_file_is_cut_from_it() {
    let site = Site::of([("/ten.txt", b"0123456789".to_vec())]);
    let cluster = Cluster::start(&[site.argument(), "--regions", "fra"]).await;
    let url = format!("{}/ten.txt", cluster.edge("fra").url);
    assert_eq!(Client::get(&url).await.text(), "0123456789");
    let part = Client::get_with(&url, &[("range", "bytes=2-4")]).await;
    assert_eq!((part.status.as_u16(), part.text()), (206, "234"));
    assert_eq!(part.header("content-range"), Some("bytes 2-4/10"));
    let tag = part.header("etag").unwrap().to_owned();
    let same = Client::get_with(&url, &[("if-none-match", &tag)]).await;
    assert_eq!((same.status.as_u16(), same.body.len()), (304, 0));
    assert_eq!(cluster.origin_requests(Some("/ten.txt")).await, 1);
}
