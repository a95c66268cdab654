//! Cut, one-way cut, reset, half-close, heal.

use std::io::ErrorKind;
use std::time::{Duration, Instant};

use meridian_tests_chaos::order::{Action, Order};
use meridian_tests_chaos::shape::{Shape, Ways};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::rig::{HANGS, PATIENCE, Rig, eventually, read, read_on};

async fn hangs(rig: &Rig) -> bool {
    timeout(HANGS, TcpStream::connect(rig.link)).await.is_err()
}

#[tokio::test]
async fn a_cut_swallows_and_nothing_of_it_is_delivered_later() {
    let rig = Rig::new().await;
    let (mut client, mut server) = rig.connect().await;
    client.write_all(b"before").await.unwrap();
    assert_eq!(read(&mut server, 6).await, b"before");
    let answer = rig.act(Action::Cut).await;
    assert!(answer.links[0].there.cut && answer.links[0].back.cut);

    client.write_all(b"lost").await.unwrap();
    server.write_all(b"lost too").await.unwrap();
    eventually("all that is sent has vanished", || {
        let view = rig.view();
        (view.there.lost_bytes, view.back.lost_bytes) == (4, 8)
    })
    .await;
    assert!(hangs(&rig).await, "a connection attempt is answered");

    rig.act(Action::Heal).await;
    for end in [&mut client, &mut server] {
        let error = read_on(end).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset, "what was cut is reset, not resumed");
    }
    let (mut client, mut server) = rig.connect().await;
    client.write_all(b"after").await.unwrap();
    assert_eq!(read(&mut server, 5).await, b"after");
    eventually("only what got through is counted", || rig.view().there.bytes == 11).await;
}

#[tokio::test]
async fn ends_vanish_in_a_cut_too() {
    let rig = Rig::new().await;
    let (mut client, mut server) = rig.connect().await;
    rig.act(Action::Cut).await;
    server.shutdown().await.unwrap();
    drop(client.write_all(b"x").await);
    eventually("the byte has vanished", || rig.view().there.lost_bytes == 1).await;
    assert!(timeout(HANGS, client.peek(&mut [0])).await.is_err(), "the end got through");
    drop((client, server));
    eventually("both ends are gone", || rig.view().connections.open == 0).await;
}

#[tokio::test]
async fn a_one_way_cut_stops_the_bytes_of_one_side_whoever_dialled() {
    let rows = [("fra-1", "origin-1", true), ("origin-1", "fra-1", false)];
    for (a, b, cuts_there) in rows {
        let rig = Rig::new().await;
        let (mut client, mut server) = rig.connect().await;
        rig.order(&Order { one_way: true, ..Order::between(Action::Cut, a, b) }).await;
        let view = rig.view();
        assert_eq!((view.there.cut, view.back.cut), (cuts_there, !cuts_there));
        let (from, to) =
            if cuts_there { (&mut client, &mut server) } else { (&mut server, &mut client) };
        from.write_all(b"lost").await.unwrap();
        to.write_all(b"heard").await.unwrap();
        assert_eq!(read(from, 5).await, b"heard");
        eventually("the other bytes have vanished", || {
            let view = rig.view();
            view.there.lost_bytes + view.back.lost_bytes == 4
        })
        .await;
        assert!(hangs(&rig).await, "half a handshake is none");
        rig.order(&Order::heal_all()).await;
        assert_eq!(read_on(to).await.unwrap_err().kind(), ErrorKind::ConnectionReset);
    }
}

#[tokio::test]
async fn an_attempt_that_hung_succeeds_after_healing_as_its_retransmission_does() {
    let rig = Rig::new().await;
    rig.act(Action::Cut).await;
    let attempt = TcpStream::connect(rig.link);
    tokio::pin!(attempt);
    assert!(timeout(HANGS, &mut attempt).await.is_err());
    rig.act(Action::Heal).await;
    let mut client = timeout(PATIENCE, attempt).await.unwrap().unwrap();
    let (mut server, _) = timeout(PATIENCE, rig.server.accept()).await.unwrap().unwrap();
    client.write_all(b"x").await.unwrap();
    assert_eq!(read(&mut server, 1).await, b"x");
}

#[tokio::test]
async fn an_order_that_comes_while_a_connection_is_being_made_counts_for_it() {
    let half = Shape::delayed(Duration::from_millis(150));
    let rig = Rig::with(Ways { there: half, back: half }).await;
    let mut client = TcpStream::connect(rig.link).await.unwrap();
    client.write_all(b"lost").await.unwrap();
    eventually("the link has it", || rig.view().connections.open == 1).await;
    rig.order(&Order { one_way: true, ..Order::between(Action::Cut, "fra-1", "origin-1") }).await;
    let (mut server, _) = timeout(PATIENCE, rig.server.accept()).await.unwrap().unwrap();
    eventually("the bytes have vanished", || rig.view().there.lost_bytes == 4).await;
    server.write_all(b"heard").await.unwrap();
    assert_eq!(read(&mut client, 5).await, b"heard");
    assert_eq!(rig.view().there.bytes, 0);
}

#[tokio::test]
async fn cuts_and_heals_may_follow_each_other_closely() {
    let rig = Rig::new().await;
    for _ in 0..20 {
        let (mut client, _server) = rig.connect().await;
        rig.act(Action::Cut).await;
        rig.act(Action::Cut).await;
        rig.act(Action::Heal).await;
        assert_eq!(read_on(&mut client).await.unwrap_err().kind(), ErrorKind::ConnectionReset);
    }
    rig.act(Action::Heal).await;
    let (mut client, mut server) = rig.connect().await;
    rig.act(Action::Heal).await;
    client.write_all(b"x").await.unwrap();
    assert_eq!(read(&mut server, 1).await, b"x", "what was not cut is not reset");
}

#[tokio::test]
async fn a_reset_ends_open_connections_at_once_and_no_others() {
    let rig = Rig::new().await;
    let (mut client, mut server) = rig.connect().await;
    let start = Instant::now();
    let answer = rig.act(Action::Reset).await;
    assert_eq!(answer.links.len(), 1, "only the link that was named");
    for end in [&mut client, &mut server] {
        assert_eq!(read_on(end).await.unwrap_err().kind(), ErrorKind::ConnectionReset);
    }
    assert!(start.elapsed() < PATIENCE / 2);
    assert_eq!(rig.view().connections.reset, 1);
    let (mut client, mut server) = rig.connect().await;
    client.write_all(b"x").await.unwrap();
    assert_eq!(read(&mut server, 1).await, b"x");
}

#[tokio::test]
async fn a_half_close_ends_one_way_and_leaves_the_other() {
    let rig = Rig::new().await;
    let (mut client, mut server) = rig.connect().await;
    let order = Order::between(Action::HalfClose, "fra-1", "origin-1");
    rig.order(&Order { one_way: true, ..order }).await;
    assert_eq!(read_on(&mut server).await.unwrap(), 0, "B sees the end of A's bytes");
    client.write_all(b"unheard").await.unwrap();
    eventually("what A says goes nowhere", || rig.view().there.lost_bytes == 7).await;
    server.write_all(b"answer").await.unwrap();
    assert_eq!(read(&mut client, 6).await, b"answer");
    let (mut client, mut server) = rig.connect().await;
    client.write_all(b"x").await.unwrap();
    assert_eq!(read(&mut server, 1).await, b"x", "new connections are whole");
}
