//! A link with nothing set: nobody notices it.

use std::io::ErrorKind;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::rig::{PATIENCE, Rig, eventually, read, read_on};

#[tokio::test]
async fn bytes_pass_both_ways_and_each_way_ends_by_itself() {
    let rig = Rig::new().await;
    let (mut client, mut server) = rig.connect().await;
    client.write_all(b"question").await.unwrap();
    assert_eq!(read(&mut server, 8).await, b"question");
    client.shutdown().await.unwrap();
    assert_eq!(read_on(&mut server).await.unwrap(), 0, "the end passes");
    server.write_all(b"answer").await.unwrap();
    assert_eq!(read(&mut client, 6).await, b"answer", "the other way goes on");
    drop(server);
    assert_eq!(read_on(&mut client).await.unwrap(), 0);
    eventually("the connection is forgotten", || rig.view().connections.open == 0).await;
    let view = rig.view();
    assert_eq!((view.there.bytes, view.back.bytes), (8, 6));
    assert_eq!((view.connections.accepted, view.connections.reset), (1, 0));
}

#[tokio::test]
async fn much_passes_unchanged_both_ways_at_once() {
    const MUCH: usize = 16 << 20;
    let rig = Rig::new().await;
    let (client, server) = rig.connect().await;
    let pattern = |seed: usize| -> Vec<u8> {
        (0..MUCH).map(|at| u8::try_from((at * 31 + at / 251 + seed) % 256).unwrap()).collect()
    };
    let (there, back) = (pattern(1), pattern(2));
    let exchange = async |stream: TcpStream, sends: &[u8], wants: &[u8]| {
        let (mut reads, mut writes) = stream.into_split();
        let write = async {
            writes.write_all(sends).await.unwrap();
            writes.shutdown().await.unwrap();
        };
        let mut got = Vec::new();
        let (_, read) = tokio::join!(write, reads.read_to_end(&mut got));
        read.unwrap();
        assert!(got == wants, "{} bytes of {}", got.len(), wants.len());
    };
    tokio::join!(exchange(client, &there, &back), exchange(server, &back, &there));
    let (view, much) = (rig.view(), u64::try_from(MUCH).unwrap());
    assert_eq!((view.there.bytes, view.back.bytes), (much, much));
}

#[tokio::test]
async fn a_reset_of_one_end_is_one_for_the_other() {
    let rig = Rig::new().await;
    let (mut client, server) = rig.connect().await;
    socket2::SockRef::from(&server).set_linger(Some(std::time::Duration::ZERO)).unwrap();
    drop(server);
    assert_eq!(read_on(&mut client).await.unwrap_err().kind(), ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn a_node_that_is_not_there_resets_and_is_found_when_it_is_back() {
    let rig = Rig::new().await;
    let address = rig.server.local_addr().unwrap();
    let Rig { net, link, server, .. } = rig;
    drop(server);
    // The reset may be there before the dialer looks whether it is connected.
    let error = match TcpStream::connect(link).await {
        Ok(mut client) => read_on(&mut client).await.unwrap_err(),
        Err(error) => error,
    };
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    let server = tokio::net::TcpListener::bind(address).await.unwrap();
    let mut client = TcpStream::connect(link).await.unwrap();
    client.write_all(b"x").await.unwrap();
    let (mut accepted, _) = tokio::time::timeout(PATIENCE, server.accept()).await.unwrap().unwrap();
    assert_eq!(read(&mut accepted, 1).await, b"x");
    drop(net);
    let end = read_on(&mut client).await;
    assert!(end.is_err() || end.is_ok_and(|count| count == 0), "no link, no connection");
}
