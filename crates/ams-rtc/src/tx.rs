//! Outgoing media of one shard, gathered so that packets of one viewer leave in one send.
//!
//! Owns one buffer. Packets for the same viewer and of the same length are put side by side and handed over as one
//! datagram train (UDP GSO); a shorter one ends the train, another viewer or a longer packet starts the next. Never
//! allocates after it was made, never waits: what the kernel does not take is lost and counted by the socket.

use std::net::{IpAddr, SocketAddr};

/// Takes finished trains of datagrams. `segment` is the length of each but the last, if there is more than one.
pub trait DatagramSink {
    /// Sends `contents` to `to`, from local address `from` where the host has several.
    fn send(&mut self, to: SocketAddr, from: Option<IpAddr>, contents: &[u8], segment: Option<usize>);
}

/// Longest train in bytes. The kernel's limit is 64 KiB; a burst this long at 1200 bytes is 13 packets, which the queue
/// of a home router takes (its usual floor is 64 packets).
pub const TRAIN_LEN_MAX: usize = 16 * 1024;
/// Longest single packet.
pub const PACKET_LEN_MAX: usize = 2048;

/// Gathers sealed packets into trains.
#[derive(Debug)]
pub struct TxBatch {
    buf: Box<[u8]>,
    len: usize,
    segment: usize,
    segments: usize,
    closed: bool,
    to: Option<(SocketAddr, Option<IpAddr>)>,
    segments_max: usize,
}

impl TxBatch {
    /// A batch for a socket that takes trains of up to `segments_max` datagrams; 1 where there is no segmentation offload.
    pub fn new(segments_max: usize) -> Self {
        Self {
            buf: vec![0; TRAIN_LEN_MAX + PACKET_LEN_MAX].into_boxed_slice(),
            len: 0,
            segment: 0,
            segments: 0,
            closed: false,
            to: None,
            segments_max: segments_max.max(1),
        }
    }

    /// Appends one packet of exactly `len` bytes, written by `write`; returns what `write` returns. On `false` it is not sent.
    ///
    /// `len` above [`PACKET_LEN_MAX`] is refused with `false`.
    pub fn push(
        &mut self,
        sink: &mut dyn DatagramSink,
        to: SocketAddr,
        from: Option<IpAddr>,
        len: usize,
        write: impl FnOnce(&mut [u8]) -> bool,
    ) -> bool {
        if len == 0 || len > PACKET_LEN_MAX {
            return false;
        }
        let fits = self.to == Some((to, from))
            && !self.closed
            && self.segments < self.segments_max
            && len <= self.segment
            && self.len + len <= TRAIN_LEN_MAX;
        if self.segments > 0 && !fits {
            self.flush(sink);
        }
        let Some(room) = self.buf.get_mut(self.len..self.len + len) else { return false };
        if !write(room) {
            return false;
        }
        if self.segments == 0 {
            self.to = Some((to, from));
            self.segment = len;
        }
        self.closed = len < self.segment;
        self.len += len;
        self.segments += 1;
        true
    }

    /// Hands over what is gathered.
    pub fn flush(&mut self, sink: &mut dyn DatagramSink) {
        if let Some((to, from)) = self.to.take() {
            let segment = (self.segments > 1).then_some(self.segment);
            sink.send(to, from, &self.buf[..self.len], segment);
        }
        self.len = 0;
        self.segment = 0;
        self.segments = 0;
        self.closed = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Sent(Vec<(u16, usize, Option<usize>)>);

    impl DatagramSink for Sent {
        fn send(&mut self, to: SocketAddr, _: Option<IpAddr>, contents: &[u8], segment: Option<usize>) {
            self.0.push((to.port(), contents.len(), segment));
        }
    }

    fn run(segments_max: usize, packets: &[(u16, usize)]) -> Vec<(u16, usize, Option<usize>)> {
        let mut sent = Sent::default();
        let mut batch = TxBatch::new(segments_max);
        for &(port, len) in packets {
            let to = SocketAddr::from(([127, 0, 0, 1], port));
            assert!(batch.push(&mut sent, to, None, len, |room| {
                room.fill(7);
                true
            }));
        }
        batch.flush(&mut sent);
        batch.flush(&mut sent);
        sent.0
    }

    #[test]
    fn trains_are_as_long_as_they_may_be() {
        assert_eq!(run(64, &[(1, 100), (1, 100), (1, 40)]), [(1, 240, Some(100))], "a shorter one ends the train");
        assert_eq!(run(64, &[(1, 100), (1, 40), (1, 40)]), [(1, 140, Some(100)), (1, 40, None)], "nothing follows it");
        assert_eq!(run(64, &[(1, 40), (1, 100)]), [(1, 40, None), (1, 100, None)], "a longer one starts anew");
        assert_eq!(run(64, &[(1, 100), (2, 100)]), [(1, 100, None), (2, 100, None)], "another viewer too");
        assert_eq!(run(2, &[(1, 9), (1, 9), (1, 9)]), [(1, 18, Some(9)), (1, 9, None)], "the socket's limit holds");
        let many = run(64, &[(1, 1200); 30]);
        assert!(many.iter().all(|(_, len, _)| *len <= TRAIN_LEN_MAX), "{many:?}");
    }

    #[test]
    fn a_packet_that_was_not_written_is_not_sent() {
        let mut sent = Sent::default();
        let mut batch = TxBatch::new(4);
        let to = SocketAddr::from(([127, 0, 0, 1], 1));
        assert!(!batch.push(&mut sent, to, None, 10, |_| false));
        assert!(!batch.push(&mut sent, to, None, PACKET_LEN_MAX + 1, |_| true));
        batch.flush(&mut sent);
        assert!(sent.0.is_empty());
    }
}
