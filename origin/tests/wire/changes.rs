//! Files that change: no tag for other bytes than those sent.

use std::fs::{self, File};
use std::path::Path;

use tokio::task::JoinSet;

use crate::running::Running;

#[tokio::test]
async fn the_tag_changes_with_the_content_also_at_the_same_length_and_at_once() {
    let origin = Running::folder(&[("a", b"version 0")]).await;
    let mut client = origin.client().await;
    let mut tags = Vec::new();
    for n in 0..10 {
        fs::write(origin.path("a"), format!("version {n}")).unwrap();
        let answer = client.get("/a").await;
        assert_eq!(answer.text(), format!("version {n}"));
        let tag = answer.field("etag").unwrap().to_owned();
        assert!(!tags.contains(&tag), "{tag} named another version before");
        tags.push(tag);
    }
    fs::write(origin.path("a"), "version 3").unwrap();
    assert_eq!(client.get("/a").await.field("etag"), Some(&*tags[3]));
}

#[tokio::test]
async fn many_at_once_for_a_new_file_hash_it_once() {
    let origin = Running::folder(&[("a", &vec![7; 3 << 20])]).await;
    let mut clients = JoinSet::new();
    for _ in 0..50 {
        let mut client = origin.client().await;
        clients.spawn(async move { client.exchange("HEAD", "/a", &[]).await.status });
    }
    assert!(clients.join_all().await.iter().all(|status| *status == 200));
    assert_eq!(origin.metric("origin_hashes_total").await, 1.0);
}

/// More than the buffers of both sockets hold: the response is under way when the file changes.
const LARGE: usize = 64 << 20;

#[tokio::test]
async fn a_file_that_is_truncated_under_its_response_breaks_it_off() {
    let truncate = |path: &Path| File::options().write(true).open(path).unwrap().set_len(9);
    breaks_off(|path| truncate(path).unwrap()).await;
}

#[tokio::test]
async fn a_file_that_is_rewritten_under_its_response_breaks_it_off() {
    breaks_off(|path| fs::write(path, vec![8; LARGE]).unwrap()).await;
}

async fn breaks_off(change: impl FnOnce(&Path)) {
    let origin = Running::folder(&[("a", &vec![7; LARGE])]).await;
    let mut client = origin.client().await;
    client.ask("GET", "/a", &[]).await;
    let head = client.head().await;
    assert_eq!(head.field("content-length"), Some(&*LARGE.to_string()));
    change(&origin.path("a"));
    let (body, _) = client.rest().await;
    assert!(body.len() < LARGE, "the whole came");
    assert!(body.iter().all(|byte| *byte == 7), "bytes of another version came");
}

#[tokio::test]
async fn a_file_that_is_replaced_is_still_sent_to_its_end() {
    let origin = Running::folder(&[("a", &vec![7; LARGE])]).await;
    let mut client = origin.client().await;
    client.ask("GET", "/a", &[]).await;
    client.head().await;
    fs::write(origin.path("b"), "new").unwrap();
    fs::rename(origin.path("b"), origin.path("a")).unwrap();
    client.send("GET /a HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n").await;
    let (body, ended) = client.rest().await;
    ended.unwrap();
    assert!(body[..LARGE].iter().all(|byte| *byte == 7));
    assert!(body.ends_with(b"\r\n\r\nnew"), "the next request gets the new one");
}
