//! Which control replica an edge follows, and when it goes to another one.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a panic is a test's verdict")]

use meridian_tests::edge::EdgeProcess;
use meridian_tests::origin::ScriptedOrigin;
use meridian_tests::wait::{PATIENCE, eventually};
use serde_json::json;
use tempfile::TempDir;

use crate::purging::follow;
use crate::replica::Replica;

/// An edge that follows several replicas of one log.
struct Rotating {
    replicas: Vec<Replica>,
    edge: EdgeProcess,
    _origin: ScriptedOrigin,
    _home: TempDir,
}

/// The edge begins at the first replica, as the others are away until then.
async fn rotating(count: usize) -> Rotating {
    let origin = ScriptedOrigin::start().await;
    let home = tempfile::tempdir().unwrap();
    let mut replicas = vec![Replica::start().await];
    for _ in 1..count {
        let other = replicas[0].beside().await;
        other.down(true);
        replicas.push(other);
    }
    let edge = EdgeProcess::start(&origin, |edge| {
        follow(edge, home.path(), &replicas.iter().collect::<Vec<_>>());
    })
    .await;
    replicas[0].acked("c0").await;
    replicas[0].pinged().await;
    for other in &replicas[1..] {
        other.down(false);
    }
    Rotating { replicas, edge, _origin: origin, _home: home }
}

#[tokio::test]
async fn an_edge_goes_to_another_replica_as_who_it_is_and_from_where_it_was() {
    let Rotating { replicas, edge, _origin, _home } = rotating(3).await;
    replicas[0].purged("first", r#"{"tag":"red"}"#, false).await;
    replicas[0].down(true);
    let last = replicas[0].purge("second", r#"{"tag":"blue"}"#, false);
    eventually("another replica hears of it", PATIENCE, async || {
        let told = |replica: &Replica| {
            let opened = replica.opened();
            (opened == [Some("c1".to_owned())]).then_some(())
        };
        replicas[1..].iter().find_map(told)
    })
    .await;
    let ping = eventually("its pings say how far it is", PATIENCE, async || {
        let pings = replicas[1..].iter().flat_map(Replica::pings);
        pings.into_iter().find(|ping| ping["cursor"] == last.as_str())
    })
    .await;
    assert!(ping["sequence"].as_u64().unwrap() > 1, "it goes on counting: {ping}");
    assert_eq!(replicas[0].registrations(), 1, "it has its secret already");
    assert_eq!(edge.metric("edge_purge_operations_total").await, 2.0);
    assert_eq!(edge.metric("edge_purge_drops_total").await, 0.0, "nothing was missed");
    eventually("it knows all again", PATIENCE, async || {
        (edge.metric("edge_control_staleness_seconds").await < 1.0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn beats_that_fail_leave_a_good_stream_alone_and_the_other_way_round() {
    let Rotating { replicas, edge, _origin, _home } = rotating(2).await;
    let [first, second] = &replicas[..] else { panic!("two were asked for") };
    first.refuse("/ping", Some((503, "no_quorum")));
    second.pinged().await;
    first.purged("first", r#"{"tag":"red"}"#, false).await;
    assert_eq!((first.opened().len(), second.opened().len()), (1, 0));

    // Now the stream fails where it is, and beats stay where they are.
    let beats = first.pings().len();
    first.refuse("/stream", Some((503, "no_quorum")));
    first.cut();
    second.purged("second", r#"{"tag":"red"}"#, false).await;
    assert_eq!(second.opened(), [Some("c1".to_owned())]);
    second.pinged().await;
    assert_eq!(first.pings().len(), beats);
    assert_eq!(first.registrations(), 1);
    assert!(edge.metric("edge_control_rotations_total").await >= 2.0);
}

#[tokio::test]
async fn a_replica_that_goes_names_another_and_one_that_has_enough_is_asked_again() {
    let Rotating { replicas, edge: _edge, _origin, _home } = rotating(3).await;
    let [first, second, third] = &replicas[..] else { panic!("three were asked for") };
    let bye = |reason: &str, alternatives: &[&str]| json!({"reason": reason, "retry_after_ms": 20, "alternatives": alternatives});
    first.say_goodbye(&bye("stopping", &["unknown", "control-3", "control-1"]));
    third.purged("first", r#"{"tag":"red"}"#, false).await;
    third.say_goodbye(&bye("slow", &["control-2"]));
    let last = third.purge("second", r#"{"tag":"red"}"#, false);
    third.acked(&last).await;
    assert_eq!(third.opened().len(), 2);
    third.say_goodbye(&bye("no_quorum", &[]));
    first.purged("third", r#"{"tag":"red"}"#, false).await;
    let opened = [first, second, third].map(|replica| replica.opened().len());
    assert_eq!(opened, [2, 0, 2], "the next one in the ring is the first");
}

#[tokio::test]
async fn a_replica_that_lives_and_learns_nothing_is_left() {
    let Rotating { replicas, edge, _origin, _home } = rotating(2).await;
    let [first, second] = &replicas[..] else { panic!("two were asked for") };
    first.refuse("/ping", Some((503, "no_quorum")));
    second.pinged().await;
    first.lag(true);
    // As long as it has what is known elsewhere it may go on.
    for _ in 0..10 {
        second.pinged().await;
    }
    assert_eq!(second.opened().len(), 0);
    second.purged("first", r#"{"tag":"red"}"#, false).await;
    assert_eq!(second.opened(), [Some("c0".to_owned())]);
    assert_eq!(edge.metric("edge_purge_operations_total").await, 1.0);
}

#[tokio::test]
async fn an_edge_registers_again_only_if_its_beats_say_that_it_is_unknown() {
    let Rotating { replicas, edge: _edge, _origin, _home } = rotating(2).await;
    let [first, second] = &replicas[..] else { panic!("two were asked for") };
    // A replica that lags may not know it yet.
    second.refuse("/stream", Some((401, "unknown_edge")));
    first.refuse("/stream", Some((403, "forbidden")));
    first.cut();
    for _ in 0..10 {
        first.pinged().await;
    }
    assert_eq!(first.registrations(), 1);
    second.refuse("/stream", None);
    first.refuse("/stream", None);
    first.refuse("/ping", Some((401, "unknown_edge")));
    eventually("it registers", PATIENCE, async || (first.registrations() > 1).then_some(())).await;
    first.refuse("/ping", None);
    first.pinged().await;
}
