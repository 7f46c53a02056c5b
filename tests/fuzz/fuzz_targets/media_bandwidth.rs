//! The bandwidth estimate under any reports: numbers never sent, arrivals that run backwards, silence, probes.
//!
//! What must hold: the estimate stays within its bounds, a probe asks for a bounded number of bytes, nothing panics.
#![no_main]

use std::time::Duration;

use ams_fuzz::{Input, at};
use ams_media::BandwidthEstimator;
use ams_media::bandwidth::{ESTIMATE_MAX, ESTIMATE_MIN};
use ams_types::Bitrate;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let mut input = Input::new(bytes);
    let mut estimator = BandwidthEstimator::new(at(0), Bitrate(u64::from(input.u32())));
    let (mut clock, mut seq) = (0u64, input.u16());
    while !input.is_empty() {
        let what = input.u8();
        clock += u64::from(what >> 5) * 7;
        match what & 0x07 {
            0 => estimator.on_timeout(at(clock)),
            1 => estimator.on_remb(at(clock), Bitrate(input.u64())),
            2 => estimator.on_rtt(Duration::from_micros(input.u32().into())),
            3 => {
                let asked = estimator.poll_probe(at(clock), Some(Bitrate(input.u64())));
                assert!(asked < 1 << 24, "a probe of {asked} bytes");
            }
            4 => seq = input.u16(),
            5 => {
                let mut report = Vec::new();
                for _ in 0..what >> 3 {
                    let number = if what & 0x80 == 0 { seq.wrapping_sub(input.u8().into()) } else { input.u16() };
                    let arrival = (input.u8() & 1 == 0).then(|| input.u64().cast_signed() >> (input.u8() % 64));
                    report.push((number, arrival));
                }
                estimator.on_feedback(at(clock), report.into_iter());
            }
            _ => {
                seq = seq.wrapping_add(1);
                estimator.on_sent(at(clock), seq, input.u16().into());
            }
        }
        if let Some(estimate) = estimator.estimate() {
            assert!((ESTIMATE_MIN..=ESTIMATE_MAX).contains(&estimate), "{estimate}");
        }
    }
});
