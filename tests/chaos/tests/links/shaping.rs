//! Delay, jitter, rate, slices: bytes come later, not otherwise.

use std::time::{Duration, Instant};

use meridian_config::units::{ByteSize, HumanDuration};
use meridian_tests_chaos::order::{Action, Order};
use meridian_tests_chaos::shape::{Shape, Ways};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use crate::rig::{HANGS, PATIENCE, Rig, eventually, read, read_on};

fn delay(millis: u64) -> Order {
    let order = Order::between(Action::Delay, "fra-1", "origin-1");
    Order { delay: Some(HumanDuration::millis(millis)), ..order }
}

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

#[tokio::test]
async fn a_delay_holds_bytes_and_ends_back_in_both_ways() {
    let rig = Rig::new().await;
    let (mut client, mut server) = rig.connect().await;
    rig.order(&delay(150)).await;
    let start = Instant::now();
    client.write_all(b"ping").await.unwrap();
    assert_eq!(read(&mut server, 4).await, b"ping");
    assert!(start.elapsed() >= ms(150), "{:?}", start.elapsed());
    server.write_all(b"pong").await.unwrap();
    server.shutdown().await.unwrap();
    assert_eq!(read(&mut client, 4).await, b"pong");
    assert_eq!(read_on(&mut client).await.unwrap(), 0);
    assert!(start.elapsed() >= ms(300), "{:?}", start.elapsed());
}

#[tokio::test]
async fn a_new_connection_costs_a_round_trip_more() {
    let half = Shape::delayed(ms(60));
    let rig = Rig::with(Ways { there: half, back: half }).await;
    let start = Instant::now();
    let (mut client, mut server) = rig.connect().await;
    client.write_all(b"ping").await.unwrap();
    assert_eq!(read(&mut server, 4).await, b"ping");
    assert!(start.elapsed() >= ms(180), "{:?}", start.elapsed());
    rig.order(&delay(0)).await;
    assert!(rig.view().there.is_plain());
    rig.act(Action::Heal).await;
    assert_eq!(rig.view().there.delay, HumanDuration::millis(60), "as it was at the start");
}

#[tokio::test]
async fn bytes_under_way_come_at_once_when_the_delay_is_healed() {
    let rig = Rig::new().await;
    let (mut client, mut server) = rig.connect().await;
    rig.order(&delay(30_000)).await;
    client.write_all(b"late").await.unwrap();
    eventually("the bytes are under way", || rig.view().there.held_bytes == 4).await;
    assert!(timeout(HANGS, server.peek(&mut [0])).await.is_err(), "they came early");
    rig.act(Action::Heal).await;
    assert_eq!(read(&mut server, 4).await, b"late");
    eventually("nothing is held", || rig.view().there.held_bytes == 0).await;
}

#[tokio::test]
async fn bytes_under_way_are_lost_when_the_link_is_cut() {
    let rig = Rig::new().await;
    let (mut client, mut server) = rig.connect().await;
    rig.order(&delay(30_000)).await;
    client.write_all(b"late").await.unwrap();
    eventually("the bytes are under way", || rig.view().there.held_bytes == 4).await;
    rig.act(Action::Cut).await;
    eventually("they are lost", || {
        let there = rig.view().there;
        (there.lost_bytes, there.held_bytes) == (4, 0)
    })
    .await;
    rig.act(Action::Heal).await;
    assert!(read_on(&mut server).await.is_err());
}

#[tokio::test]
async fn jitter_changes_when_bytes_come_and_never_their_order() {
    let rig = Rig::new().await;
    let (mut client, mut server) = rig.connect().await;
    rig.order(&Order { jitter: Some(HumanDuration::millis(20)), ..delay(1) }).await;
    let sent: Vec<u8> = (0..200).collect();
    let writes = async {
        for byte in &sent {
            client.write_all(&[*byte]).await.unwrap();
        }
    };
    let ((), got) = tokio::join!(writes, read(&mut server, 200));
    assert_eq!(got, sent);
}

#[tokio::test]
async fn a_rate_is_shared_by_the_connections_of_a_link() {
    let rig = Rig::new().await;
    let (mut first, mut second) = (rig.connect().await, rig.connect().await);
    let rate = Some(ByteSize::kib(100));
    rig.order(&Order { rate, ..Order::between(Action::Rate, "fra-1", "origin-1") }).await;
    let start = Instant::now();
    let half = vec![7; 25 << 10];
    for (client, _) in [&mut first, &mut second] {
        client.write_all(&half).await.unwrap();
    }
    tokio::join!(read(&mut first.1, half.len()), read(&mut second.1, half.len()));
    let took = start.elapsed();
    assert!(took >= ms(450), "50 KiB at 100 KiB/s took {took:?}");
    assert!(took < ms(5_000), "50 KiB at 100 KiB/s took {took:?}");
}

#[tokio::test]
async fn who_sends_more_than_is_held_is_held_back() {
    let rig = Rig::new().await;
    let (client, mut server) = rig.connect().await;
    rig.order(&delay(3_600_000)).await;
    let piece = vec![1; 64 << 10];
    let (mut reads, mut writes) = client.into_split();
    let mut sent = 0;
    // Until nothing has been taken for a while: the queue and the sockets' buffers are full.
    while let Ok(written) = timeout(HANGS, writes.write(&piece)).await {
        sent += written.unwrap();
        assert!(sent < 64 << 20, "nobody holds the sender back");
    }
    let held = rig.view().there.held_bytes;
    assert!((1 << 20..(1 << 20) + (32 << 10)).contains(&held), "{held} bytes are held");
    // The other way is free, and all arrives in the end.
    rig.act(Action::Heal).await;
    drop(writes);
    let mut got = 0;
    let mut buffer = vec![0; 1 << 20];
    while let Ok(count @ 1..) = timeout(PATIENCE, server.read(&mut buffer)).await.unwrap() {
        got += count;
    }
    assert_eq!(got, sent);
    server.write_all(b"x").await.unwrap();
    assert_eq!(timeout(PATIENCE, reads.read(&mut buffer)).await.unwrap().unwrap(), 1);
}

#[tokio::test]
async fn slices_come_apart() {
    let rig = Rig::new().await;
    let (mut client, mut server) = rig.connect().await;
    let slice = Some(ByteSize::bytes(1));
    rig.order(&Order { slice, ..Order::between(Action::Slice, "fra-1", "origin-1") }).await;
    client.write_all(&[9; 100]).await.unwrap();
    let (mut pieces, mut got) = (0, 0);
    while got < 100 {
        got += read_on(&mut server).await.unwrap();
        pieces += 1;
    }
    assert!(pieces > 10, "100 bytes came in {pieces} pieces");
}
