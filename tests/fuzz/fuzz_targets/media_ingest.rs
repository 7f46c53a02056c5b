//! A layer at ingest, fed with any sequence numbers and timestamps at any times.
#![no_main]

use ams_fuzz::{Input, at};
use ams_media::nack::MISSING_MAX;
use ams_media::{ArrivedRtp, LayerIngest};
use ams_types::{Codec, ExtSeq};
use libfuzzer_sys::fuzz_target;
use std::time::Duration;

fuzz_target!(|bytes: &[u8]| {
    let mut input = Input::new(bytes);
    let codec = Codec::ALL[usize::from(input.u8()) % Codec::ALL.len()];
    let mut layer = LayerIngest::new(codec);
    let (mut clock, mut last) = (0u64, None::<ExtSeq>);
    let mut missing = [ExtSeq(0); 64];
    while !input.is_empty() {
        let what = input.u8();
        clock += u64::from(input.u8());
        let now = at(clock);
        match what % 4 {
            0 => {
                layer.on_sender_report(now, input.u64(), input.u32());
                layer.report(now);
            }
            1 => {
                let rtt = Duration::from_millis(input.u16().into());
                let due = layer.poll_nack(now, rtt, &mut missing);
                assert!(missing[..due].is_sorted() && missing[..due].iter().all(|seq| Some(*seq) < last));
            }
            _ => {
                let rtp = ArrivedRtp {
                    seq: input.u16(),
                    timestamp: input.u32(),
                    payload: &[],
                    dependency_descriptor: None,
                    recovered: what & 0x80 != 0,
                };
                let got = layer.on_rtp(now, rtp);
                assert_eq!(got.seq.low16(), rtp.seq);
                last = last.max(Some(got.seq));
            }
        }
        let rtt = Duration::from_millis(50);
        assert!(layer.poll_timeout(rtt).is_none_or(|due| due >= at(0)));
    }
    assert!(layer.nack_counters().asked <= 10 * MISSING_MAX as u64 * bytes.len() as u64);
});
