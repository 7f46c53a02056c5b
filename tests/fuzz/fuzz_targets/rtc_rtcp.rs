//! Compound RTCP, transport-wide feedback among it: every iterator to its end, and none longer than the datagram allows.
#![no_main]

use ams_rtc::rtcp::{Rtcp, parse};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let mut packets = 0;
    for packet in parse(bytes) {
        packets += 1;
        let Ok(packet) = packet else { continue };
        let items = match packet {
            Rtcp::SenderReport(report) => report.reports.count(),
            Rtcp::ReceiverReport { reports, .. } => reports.count(),
            Rtcp::Bye(ssrcs) => ssrcs.count(),
            Rtcp::Nack { seqs, .. } => seqs.count().div_ceil(17),
            Rtcp::Fir { entries, .. } => entries.count(),
            Rtcp::Remb { ssrcs, .. } => ssrcs.count(),
            Rtcp::TransportCc(feedback) => {
                // One chunk of two bytes may stand for 8,191 packets: they are bounded by the count instead.
                assert!(feedback.packets().count() <= usize::from(u16::MAX));
                0
            }
            Rtcp::SourceDescription | Rtcp::Pli { .. } | Rtcp::Unknown { .. } => 0,
        };
        assert!(items * 4 <= bytes.len(), "{items} items in {} bytes", bytes.len());
    }
    assert!(packets <= bytes.len() / 4 + 1);
});
