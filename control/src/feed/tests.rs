//! The stream's pace, from the disk to the bytes.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::BodyExt;
use meridian_config::control::{Control, Stream};
use meridian_config::load::parse;
use meridian_config::units::HumanDuration;
use meridian_control_wire::frame::{Frame, FrameDecoder};
use meridian_control_wire::purge::PurgeOrder;
use meridian_control_wire::selector::Selector;
use tokio::task::JoinSet;

use super::{Hub, Start};
use crate::control_store::ControlStore;
use crate::metrics::ControlMetrics;
use crate::order::PurgeRequest;
use crate::server::Busy;
use crate::watcher::Unwatched;
use crate::{single, world};

#[tokio::test]
async fn a_hundred_thousand_purges_are_caught_up_with_in_seconds() {
    const PURGES: u64 = 100_000;
    let folder = tempfile::tempdir().unwrap();
    let text = format!(
        "name = 'c'\nregion = 'iad'\nlisten = '127.0.0.1:0'\ndata = '{}'\n",
        folder.path().display()
    );
    let config: Control = parse(&text, Path::new("/x.toml")).unwrap();
    let (store, writer) = single::open(&config, Arc::new(Unwatched)).unwrap();
    let writer = tokio::task::spawn_blocking(move || writer.run());
    let store = Arc::new(store);
    let mut writers = JoinSet::new();
    for n in 0..PURGES {
        let selectors = vec![Selector::Url(format!("http://shop.example/products/{n}"))];
        let order = PurgeOrder { selectors, soft: false };
        let writing = Arc::clone(&store);
        // Writers share the disk; they begin in their order, and each waits for its place.
        writers.spawn(async move {
            writing.purge(PurgeRequest { order, by: "ci".to_owned(), key: None }).await
        });
        if writers.len() == 1_000 {
            while let Some(done) = writers.join_next().await {
                assert!(done.unwrap().is_ok());
            }
        }
    }
    let shared: Arc<dyn ControlStore> = Arc::clone(&store) as _;
    let metrics = Arc::new(ControlMetrics::new(&[]));
    let hub =
        Hub::new(shared, "c".parse().unwrap(), Stream::default(), Duration::from_secs(3), metrics);
    let begun = world::now();
    let mut body = hub.open("fra-1".parse().unwrap(), Start::After(0), Busy::alone());
    let (mut decoder, mut seen) = (FrameDecoder::default(), 0);
    while seen < PURGES {
        let piece = body.frame().await.unwrap().unwrap().into_data().unwrap();
        for frame in decoder.push(&piece).unwrap() {
            if let Frame::Op { operation, .. } = frame {
                seen += 1;
                assert!(operation.id.starts_with(&format!("{seen:x}-")), "{operation:?}");
            }
        }
    }
    let took = world::now().duration_since(begun);
    // Two seconds as it is shipped; code that is not optimised, beside other tests, gets longer.
    let limit = Duration::from_secs(if cfg!(debug_assertions) { 10 } else { 2 });
    assert!(took < limit, "{took:?}");
    drop(body);
    hub.ended().await;
    store.end().await;
    writer.await.unwrap();
}

#[tokio::test]
async fn what_comes_in_a_flood_is_told_together() {
    let folder = tempfile::tempdir().unwrap();
    let text = format!(
        "name = 'c'\nregion = 'iad'\nlisten = '127.0.0.1:0'\ndata = '{}'\n",
        folder.path().display()
    );
    let config: Control = parse(&text, Path::new("/x.toml")).unwrap();
    let (store, writer) = single::open(&config, Arc::new(Unwatched)).unwrap();
    let writer = tokio::task::spawn_blocking(move || writer.run());
    let store = Arc::new(store);
    let shared: Arc<dyn ControlStore> = Arc::clone(&store) as _;
    // No bookmark comes between, and what comes within a second comes together.
    let limits = Stream {
        heartbeat: HumanDuration::secs(60),
        gather: HumanDuration::secs(1),
        ..Stream::default()
    };
    let metrics = Arc::new(ControlMetrics::new(&[]));
    let hub = Hub::new(shared, "c".parse().unwrap(), limits, Duration::from_secs(3), metrics);
    let mut body = hub.open("fra-1".parse().unwrap(), Start::After(0), Busy::alone());
    let mut decoder = FrameDecoder::default();
    let mut operations = Vec::new(); // in each piece that holds any
    while operations.iter().sum::<usize>() < 4 {
        let piece = body.frame().await.unwrap().unwrap().into_data().unwrap();
        let frames = decoder.push(&piece).unwrap();
        let some = frames.iter().filter(|frame| matches!(frame, Frame::Op { .. })).count();
        if some > 0 {
            operations.push(some);
        }
        let is_told = frames.iter().any(|frame| matches!(frame, Frame::Bookmark { .. }));
        let flood = if is_told { 4 } else { 0 };
        for n in 0..flood {
            let selectors = vec![Selector::Tag(format!("t{n}"))];
            let order = PurgeOrder { selectors, soft: false };
            let request = PurgeRequest { order, by: "ci".to_owned(), key: None };
            assert!(store.purge(request).await.is_ok());
        }
    }
    assert_eq!(operations, [4], "all within a second of the bookmark before them");
    drop(body);
    hub.ended().await;
    store.end().await;
    writer.await.unwrap();
}
