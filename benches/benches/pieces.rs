//! The pieces a packet passes on its way to a viewer, and all of them together for many viewers.

use std::hint::black_box;
use std::time::Instant;

use ams_benches::{Counted, packet, viewers};
use ams_media::ViewerTrack;
use ams_rtc::tx::TxBatch;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

/// Payload bytes of a full packet.
const PAYLOAD_LEN: usize = 1160;
/// Packets of one picture.
const BURST: u64 = 10;

/// Renumbering for one viewer, without header and seal.
fn rewrite(c: &mut Criterion) {
    let mut track = ViewerTrack::new(90_000, 1, 1);
    let mut seq = 0;
    c.bench_function("rewrite", |b| {
        b.iter(|| {
            let packet = packet(seq, 0);
            seq += 1;
            black_box(track.forward(packet.ingest_at, &packet))
        });
    });
}

/// A picture of ten packets to every viewer: layer choice, renumbering, header, seal, gathering; no system call.
fn fan_out(c: &mut Criterion) {
    let mut group = c.benchmark_group("fan_out");
    for count in [1_usize, 100, 1000, 5000] {
        let mut viewers = match viewers(count) {
            Ok(viewers) => viewers,
            Err(error) => panic!("{error}"),
        };
        let (mut batch, mut sink, mut seq) = (TxBatch::new(64), Counted::default(), 0);
        group.throughput(Throughput::Elements(BURST * count as u64));
        group.bench_with_input(BenchmarkId::from_parameter(count), &count, |b, _| {
            b.iter(|| {
                let burst: Vec<_> = (seq..seq + BURST).map(|n| packet(n, PAYLOAD_LEN)).collect();
                seq += BURST;
                let now = Instant::now();
                for viewer in &mut viewers {
                    for packet in &burst {
                        viewer.forward(now, packet, &mut batch, &mut sink);
                    }
                }
                batch.flush(&mut sink);
            });
        });
        assert!(sink.bytes > 0, "nothing was sent");
    }
    group.finish();
}

criterion_group!(pieces, rewrite, fan_out);
criterion_main!(pieces);
