//! The front door follows the control plane, and does without.

use tokio::net::TcpListener;

use crate::kit::{Door, FakeEdge, Replica, any_port, eventually, metric, ms};

#[tokio::test]
async fn clients_leave_a_dead_or_drained_region_and_come_back() {
    let replica = Replica::start_with(|config| config.health.edge_lapse = ms(500)).await;
    let fra = FakeEdge::start(replica.address, "fra-1", "fra").await;
    let mut nrt = FakeEdge::start(replica.address, "nrt-1", "nrt").await;
    let door = Door::start(&[("control-1", replica.address)], |_| ()).await;
    door.until_sends("fra", &fra.url).await;
    door.until_sends("nrt", &nrt.url).await;

    nrt.die();
    door.until_sends("nrt", &fra.url).await;
    assert_eq!(metric(door.admin, r#"front_region_usable{region="nrt"}"#).await, 0.0);
    nrt.live(replica.address, 1_000_000);
    door.until_sends("nrt", &nrt.url).await;

    replica.intend("nrt", "drained").await;
    door.until_sends("nrt", &fra.url).await;
    replica.intend("fra", "drained").await;
    let nobody = async || (door.from("nrt").await == "503").then_some(());
    eventually("nobody takes clients", nobody).await;
    replica.intend("nrt", "active").await;
    door.until_sends("nrt", &nrt.url).await;
    door.until_sends("fra", &nrt.url).await;
    door.stop().await;
    replica.stop().await;
}

#[tokio::test]
async fn with_the_control_plane_gone_it_goes_on_and_no_client_notices_its_return() {
    let replica = Replica::start().await;
    let address = replica.address;
    let mut fra = FakeEdge::start(address, "fra-1", "fra").await;
    let mut iad = FakeEdge::start(address, "iad-1", "iad").await;
    let door = Door::start(&[("control-1", address)], |_| ()).await;
    door.until_sends("fra", &fra.url).await;
    door.until_sends("iad", &iad.url).await;
    replica.intend("iad", "drained").await;
    door.until_sends("iad", &fra.url).await;

    let paused = replica.pause().await;
    let lost = async || {
        let want = format!("307{}/", fra.url);
        assert_eq!(door.from("fra").await, want, "a client noticed that control is gone");
        (metric(door.admin, "front_poll_failures_total").await >= 3.0).then_some(())
    };
    eventually("polls fail", lost).await;
    assert!(metric(door.admin, "front_view_age_seconds").await > 0.0);

    // The replica is back and has heard of nobody yet: that is no news.
    iad.die();
    fra.die();
    let polls = metric(door.admin, "front_polls_total").await;
    let replica = paused.resume().await;
    let followed = async || {
        assert_eq!(door.from("fra").await, format!("307{}/", fra.url));
        assert_eq!(door.from("iad").await, format!("307{}/", fra.url), "still drained");
        (metric(door.admin, "front_polls_total").await >= polls + 10.0).then_some(())
    };
    eventually("it is followed again", followed).await;
    // Once it is certain that they are silent, it is.
    let silent = async || (door.from("fra").await == "503").then_some(());
    eventually("the replica is believed", silent).await;
    fra.live(replica.address, 1_000_000);
    door.until_sends("fra", &fra.url).await;
    door.stop().await;
    replica.stop().await;
}

#[tokio::test]
async fn a_replica_that_does_not_answer_is_passed_over() {
    let replica = Replica::start().await;
    let edge = FakeEdge::start(replica.address, "fra-1", "fra").await;
    // One refuses, one takes connections and never answers: a cut link looks like that.
    let refusing = TcpListener::bind(any_port()).await.unwrap().local_addr().unwrap();
    let silent = TcpListener::bind(any_port()).await.unwrap();
    let replicas = [
        ("control-1", refusing),
        ("control-2", silent.local_addr().unwrap()),
        ("control-3", replica.address),
    ];
    let door = Door::start(&replicas, |config| config.limits.call_timeout = ms(200)).await;
    door.until_sends("fra", &edge.url).await;
    // It stays with the one that answers: nobody else is asked.
    let failures = metric(door.admin, "front_poll_failures_total").await;
    assert_eq!(failures, 0.0, "a round that reaches somebody is none");
    let polls = metric(door.admin, "front_polls_total").await;
    let more =
        async || (metric(door.admin, "front_polls_total").await > polls + 10.0).then_some(());
    eventually("it goes on asking", more).await;
    drop(silent);
    door.stop().await;
    replica.stop().await;
}

#[tokio::test]
async fn a_replica_that_answers_nonsense_changes_nothing() {
    let replica = Replica::start().await;
    let edge = FakeEdge::start(replica.address, "fra-1", "fra").await;
    // A front door that asks another front door: 307 with no list of edges.
    let first = Door::start(&[("control-1", replica.address)], |_| ()).await;
    first.until_sends("fra", &edge.url).await;
    let second = Door::start(&[("control-1", first.address)], |_| ()).await;
    let failed =
        async || (metric(second.admin, "front_poll_failures_total").await >= 3.0).then_some(());
    eventually("its polls fail", failed).await;
    assert_eq!(second.from("fra").await, "503");
    second.stop().await;
    first.stop().await;
    replica.stop().await;
}
