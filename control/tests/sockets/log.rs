//! What operators find in the log.

use std::io::Write;
use std::sync::{Arc, Mutex};

use crate::kit::{EDGE, FakeEdge, OPERATOR, Replica, ask};

/// Where the log of one test goes.
#[derive(Clone, Default)]
struct Paper(Arc<Mutex<Vec<u8>>>);

impl Write for Paper {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// The runtime of this test has one thread, and so the log of the node is the log of the thread.
#[tokio::test]
async fn every_change_is_logged_with_the_name_of_its_token_and_without_secrets() {
    let paper = Paper::default();
    let writer = paper.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_ansi(false)
        .with_max_level(tracing::Level::TRACE)
        .with_writer(move || writer.clone())
        .finish();
    let _guard = tracing::subscriber::set_default(subscriber);

    let replica = Replica::start().await;
    let mut edge = FakeEdge::start(replica.address, "fra-1", "fra").await;
    replica.until_state("fra-1", "healthy").await;
    replica.intend("fra", "drained").await;
    edge.die();
    let delete = ask(replica.address, "DELETE", "/v1/edges/fra-1").bearer(OPERATOR);
    assert_eq!(delete.send().await.status, 204);
    replica.stop().await;

    let log = String::from_utf8(paper.0.lock().unwrap().clone()).unwrap();
    for (message, fields) in [
        ("edge registered", &["token=\"edges\"", "edge=fra-1", "region=fra"][..]),
        ("region intent set", &["token=\"anna\"", "region=\"fra\"", "intent=\"drained\""]),
        ("edge removed", &["token=\"anna\"", "edge=fra-1"]),
    ] {
        let line = log.lines().find(|line| line.contains(message)).expect(message);
        assert!(line.contains(" INFO "), "{line}");
        for field in fields {
            assert!(line.contains(field), "{field}: {line}");
        }
    }
    for secret in [EDGE, OPERATOR, &edge.secret] {
        assert!(!log.contains(secret), "a secret in the log");
    }
}
