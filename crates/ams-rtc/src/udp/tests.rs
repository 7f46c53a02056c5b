//! Real sockets on loopback.

use super::*;
use std::time::Duration;

async fn receive(shard: &mut UdpShard, count: usize) -> Vec<(DatagramMeta, Vec<u8>)> {
    let mut got = Vec::new();
    let wait = async {
        while got.len() < count {
            shard.readable().await.unwrap();
            shard.recv_batch(&mut ReceiveBuffer::new(), |meta, datagram| got.push((meta, datagram.to_vec()))).unwrap();
        }
    };
    let _ = tokio::time::timeout(Duration::from_secs(5), wait).await;
    got
}

#[tokio::test]
async fn datagrams_come_and_go_with_canonical_addresses() {
    let mut shard = UdpShard::bind(0..=0).unwrap();
    for host in ["127.0.0.1", "::1"] {
        let ip: IpAddr = host.parse().unwrap();
        let Ok(peer) = tokio::net::UdpSocket::bind((ip, 0)).await else { continue };
        if ip.is_ipv6() && !shard.has_ipv6() {
            continue;
        }
        peer.send_to(b"hello", (ip, shard.port())).await.unwrap();
        let got = receive(&mut shard, 1).await;
        let peer_addr = peer.local_addr().unwrap();
        assert_eq!(got, [(DatagramMeta { from: peer_addr, local_ip: ip }, b"hello".to_vec())]);

        assert_eq!(shard.send(peer_addr, Some(ip), b"back", None), SendOutcome::Sent);
        let mut buffer = [0; 64];
        let (len, from) = peer.recv_from(&mut buffer).await.unwrap();
        assert_eq!((&buffer[..len], from), (&b"back"[..], SocketAddr::new(ip, shard.port())));
    }
}

#[tokio::test]
async fn a_train_arrives_as_its_datagrams() {
    let sender = UdpShard::bind(0..=0).unwrap();
    let mut receiver = UdpShard::bind(0..=0).unwrap();
    let to = SocketAddr::from(([127, 0, 0, 1], receiver.port()));
    for size in [1000, 1200, 1400] {
        // More segments, and more bytes, than one call takes; and a short last one.
        let contents: Vec<u8> = (0..100 * size + 17).map(|n| (n / size) as u8).collect();
        assert_eq!(sender.send(to, None, &contents, Some(size)), SendOutcome::Sent);
        let got = receive(&mut receiver, 101).await;
        assert_eq!(got.len(), 101, "datagrams of {size}");
        for (at, (meta, datagram)) in got.iter().enumerate() {
            assert_eq!(datagram.len(), if at == 100 { 17 } else { size });
            assert!(datagram.iter().all(|byte| *byte == at as u8), "datagram {at} of {size}");
            assert_eq!(meta.from, SocketAddr::from(([127, 0, 0, 1], sender.port())));
        }
    }
    assert_eq!(receiver.stats().datagrams_received, 303);
}

#[tokio::test]
async fn the_first_free_port_of_a_range_is_taken() {
    let first = UdpShard::bind(0..=0).unwrap();
    let taken = first.port();
    assert!(matches!(
        UdpShard::bind(taken..=taken),
        Err(UdpBindError::NoFreePort { from, to }) if from == taken && to == taken
    ));
    if taken < u16::MAX - 20 {
        let second = UdpShard::bind(taken..=taken + 20).unwrap();
        assert!(second.port() > taken);
    }
}

#[tokio::test]
async fn a_full_buffer_and_an_impossible_send_are_told_apart() {
    let shard = UdpShard::bind(0..=0).unwrap();
    let too_large = vec![0; 70_000];
    assert_eq!(shard.send(SocketAddr::from(([127, 0, 0, 1], 9)), None, &too_large, None), SendOutcome::Failed);
    assert_eq!(shard.stats().sends_failed, 1);
    let (receive, send) = shard.buffer_lens();
    assert!(receive > 0 && send > 0);
}
