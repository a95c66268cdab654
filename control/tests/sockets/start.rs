//! What keeps a node from starting, told so that a person can change it.

use meridian_control::error::RunError;
use meridian_control::{front, replica};
use tokio_util::sync::CancellationToken;

use crate::kit::{Door, FakeEdge, Replica, any_port, control_config, eventually, prefix};

#[tokio::test]
async fn a_replica_that_cannot_work_does_not_start() {
    let folder = tempfile::tempdir().unwrap();
    let good = control_config(folder.path());
    let taken = std::net::TcpListener::bind(any_port()).unwrap();
    type Break<'b> = &'b dyn Fn(&mut meridian_config::control::Control);
    let rows: [(&str, Break<'_>); 5] = [
        ("cannot listen on 127.0.0.1:", &|c| c.listen = taken.local_addr().unwrap()),
        ("add a [[token]], or listen on 127.0.0.1", &|c| {
            c.listen = "0.0.0.0:0".parse().unwrap();
            c.token.clear();
        }),
        ("token anna: /nowhere: cannot be read", &|c| c.token[0].file = "/nowhere".into()),
        ("prefix 10.0.0.0/40: must", &|c| c.prefix = vec![prefix("10.0.0.0/40", "fra")]),
        ("cannot make the folder data = /dev/null", &|c| c.data = "/dev/null/data".into()),
    ];
    for (want, spoil) in rows {
        let mut config = good.clone();
        spoil(&mut config);
        let error = meridian_control::run(config, CancellationToken::new()).await.unwrap_err();
        assert!(error.to_string().contains(want), "{want}: {error}");
    }
    // A listener beyond loopback is fine with tokens.
    let mut config = good.clone();
    config.listen = "0.0.0.0:0".parse().unwrap();
    let bound = replica::bind(config).await.unwrap();
    let error = replica::bind(good.clone()).await.unwrap_err();
    assert!(matches!(error, RunError::Store(_)), "{error}");
    assert!(error.to_string().contains("open in another process"), "{error}");
    drop(bound);
    assert!(replica::bind(good).await.is_ok());
}

#[cfg(not(feature = "etcd"))]
#[tokio::test]
async fn an_engine_that_was_not_built_is_refused_by_the_name_of_its_feature() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = control_config(folder.path());
    config.cp.engine = meridian_config::control::etcd::CpEngine::Etcd;
    config.etcd.endpoints = vec!["127.0.0.1:1".parse().unwrap()];
    let error = meridian_control::run(config, CancellationToken::new()).await.unwrap_err();
    let error = error.to_string();
    assert!(error.contains("cp.engine = \"etcd\" is not in this program"), "{error}");
    assert!(error.contains("cargo build --features etcd"), "{error}");
}

#[tokio::test]
async fn a_front_door_that_cannot_work_does_not_start() {
    let replica = Replica::start().await;
    let config = Door::config(&[("control-1", replica.address)]);
    let taken = std::net::TcpListener::bind(any_port()).unwrap();
    type Break<'b> = &'b dyn Fn(&mut meridian_config::control::Front);
    let rows: [(&str, Break<'_>); 4] = [
        ("(listen)", &|c| c.listen = taken.local_addr().unwrap()),
        ("admin = 0.0.0.0:0 is beyond loopback", &|c| c.admin = "0.0.0.0:0".parse().unwrap()),
        ("replica control-9 has no address in [peers]", &|c| {
            c.replicas.push("control-9".parse().unwrap());
        }),
        ("prefix x: must be a network", &|c| c.prefix = vec![prefix("x", "fra")]),
    ];
    for (want, spoil) in rows {
        let mut config = config.clone();
        spoil(&mut config);
        let error = front::run(config, CancellationToken::new()).await.unwrap_err();
        assert!(error.to_string().contains(want), "{want}: {error}");
    }
    replica.stop().await;
}

#[tokio::test]
async fn a_front_door_starts_without_any_replica_and_finds_one_later() {
    let paused = Replica::start().await;
    let address = paused.address;
    let paused = paused.pause().await;
    let door = Door::start(&[("control-1", address)], |_| ()).await;
    let replica = paused.resume().await;
    let edge = FakeEdge::start(replica.address, "fra-1", "fra").await;
    door.until_sends("fra", &edge.url).await;
    let metric = async || {
        let polls = crate::kit::metric(door.admin, "front_polls_total").await;
        (polls > 1.0).then_some(())
    };
    eventually("it goes on asking", metric).await;
    door.stop().await;
    replica.stop().await;
}
