//! Building RTCP. Every function appends one packet to `out`, so that a compound is built by calling several of them;
//! the caller keeps the buffer, and after the first few packets nothing is allocated. A compound starts with a report
//! (RFC 3550 §6.1) unless reduced size was negotiated (RFC 5506).

use ams_types::{Bitrate, Ssrc};

use super::{ReportBlock, SenderInfo, format, packet_type};

/// Most report blocks, and most BYE or REMB sources, one packet can count.
pub const COUNT_MAX: usize = 31;
/// Most PID/BLP pairs one NACK carries here: keeps it well inside a datagram.
pub const NACK_PAIRS_MAX: usize = 250;
/// Most bytes of a canonical name.
pub const CNAME_LEN_MAX: usize = 255;

/// Starts a packet; [`finish`] fills in its length.
fn start(out: &mut Vec<u8>, count: u8, packet_type: u8) -> usize {
    let at = out.len();
    out.extend_from_slice(&[0x80 | (count & 0x1f), packet_type, 0, 0]);
    at
}

fn finish(out: &mut Vec<u8>, at: usize) {
    while !(out.len() - at).is_multiple_of(4) {
        out.push(0);
    }
    let words = u16::try_from((out.len() - at) / 4 - 1).unwrap_or(u16::MAX);
    if let Some(place) = out.get_mut(at + 2..at + 4) {
        place.copy_from_slice(&words.to_be_bytes());
    }
}

fn put_ssrc(out: &mut Vec<u8>, ssrc: Ssrc) {
    out.extend_from_slice(&ssrc.0.to_be_bytes());
}

fn put_reports(out: &mut Vec<u8>, reports: &[ReportBlock]) {
    for report in reports {
        put_ssrc(out, report.ssrc);
        let lost = report.lost.clamp(-0x80_0000, 0x7f_ffff).cast_unsigned() & 0xff_ffff;
        for field in [
            (u32::from(report.fraction_lost) << 24) | lost,
            report.highest_seq,
            report.jitter,
            report.last_sr,
            report.delay_since_last_sr,
        ] {
            out.extend_from_slice(&field.to_be_bytes());
        }
    }
}

/// Splits reports into what one packet counts and the rest.
fn split(reports: &[ReportBlock]) -> (&[ReportBlock], &[ReportBlock]) {
    reports.split_at(reports.len().min(COUNT_MAX))
}

/// Appends a sender report; more than 31 blocks go on in receiver reports behind it (RFC 3550 §6.1).
pub fn write_sender_report(out: &mut Vec<u8>, info: &SenderInfo, reports: &[ReportBlock]) {
    let (here, rest) = split(reports);
    let at = start(out, here.len() as u8, packet_type::SENDER_REPORT);
    put_ssrc(out, info.ssrc);
    out.extend_from_slice(&info.ntp.to_be_bytes());
    for field in [info.rtp_timestamp, info.packets, info.octets] {
        out.extend_from_slice(&field.to_be_bytes());
    }
    put_reports(out, here);
    finish(out, at);
    if !rest.is_empty() {
        write_receiver_report(out, info.ssrc, rest);
    }
}

/// Appends a receiver report, or as many as the blocks need; with none, an empty one.
pub fn write_receiver_report(out: &mut Vec<u8>, sender: Ssrc, reports: &[ReportBlock]) {
    let mut rest = reports;
    loop {
        let (here, after) = split(rest);
        let at = start(out, here.len() as u8, packet_type::RECEIVER_REPORT);
        put_ssrc(out, sender);
        put_reports(out, here);
        finish(out, at);
        if after.is_empty() {
            return;
        }
        rest = after;
    }
}

/// Appends a source description with the canonical name, which every compound carries (RFC 3550 §6.5.1). A name over
/// [`CNAME_LEN_MAX`] bytes is cut.
pub fn write_cname(out: &mut Vec<u8>, ssrc: Ssrc, cname: &str) {
    let name = cname.as_bytes().get(..CNAME_LEN_MAX).unwrap_or(cname.as_bytes());
    let at = start(out, 1, packet_type::SOURCE_DESCRIPTION);
    put_ssrc(out, ssrc);
    out.extend_from_slice(&[1, name.len() as u8]);
    out.extend_from_slice(name);
    out.push(0);
    finish(out, at);
}

/// Appends a generic NACK for `seqs`, which stand in rising order (wrapping); returns how many of them it asks for.
///
/// Numbers behind the [`NACK_PAIRS_MAX`]th pair are left for the next one. Without numbers nothing is written.
pub fn write_nack(out: &mut Vec<u8>, sender: Ssrc, media: Ssrc, seqs: &[u16]) -> usize {
    if seqs.is_empty() {
        return 0;
    }
    let at = start(out, format::NACK, packet_type::TRANSPORT_FEEDBACK);
    put_ssrc(out, sender);
    put_ssrc(out, media);
    let mut rest = seqs.iter().copied().peekable();
    let mut asked = 0;
    for _ in 0..NACK_PAIRS_MAX {
        let Some(first) = rest.next() else { break };
        asked += 1;
        let mut mask = 0_u16;
        while let Some(next) = rest.peek() {
            match next.wrapping_sub(first) {
                0 => {}
                ahead @ 1..=16 => mask |= 1 << (ahead - 1),
                _ => break,
            }
            asked += 1;
            rest.next();
        }
        out.extend_from_slice(&first.to_be_bytes());
        out.extend_from_slice(&mask.to_be_bytes());
    }
    finish(out, at);
    asked
}

/// Appends a picture loss indication: `media` is asked for a keyframe.
pub fn write_pli(out: &mut Vec<u8>, sender: Ssrc, media: Ssrc) {
    let at = start(out, format::PLI, packet_type::PAYLOAD_FEEDBACK);
    put_ssrc(out, sender);
    put_ssrc(out, media);
    finish(out, at);
}

/// Appends a full intra request. `command` grows by one (wrapping) with each new request for the same source, and stays
/// the same when one is repeated (RFC 5104 §4.3.1.2).
pub fn write_fir(out: &mut Vec<u8>, sender: Ssrc, media: Ssrc, command: u8) {
    let at = start(out, format::FIR, packet_type::PAYLOAD_FEEDBACK);
    put_ssrc(out, sender);
    put_ssrc(out, Ssrc(0));
    put_ssrc(out, media);
    out.extend_from_slice(&[command, 0, 0, 0]);
    finish(out, at);
}

/// Appends a bandwidth estimate for `ssrcs` together; of more than 255 sources the rest is left out. The number's 18
/// bits of mantissa round it down.
pub fn write_remb(out: &mut Vec<u8>, sender: Ssrc, bitrate: Bitrate, ssrcs: &[Ssrc]) {
    let ssrcs = ssrcs.get(..255).unwrap_or(ssrcs);
    let exponent = (64 - bitrate.0.leading_zeros()).saturating_sub(18);
    let mantissa = (bitrate.0 >> exponent) as u32;
    let at = start(out, format::REMB, packet_type::PAYLOAD_FEEDBACK);
    put_ssrc(out, sender);
    put_ssrc(out, Ssrc(0));
    out.extend_from_slice(b"REMB");
    let [_, m0, m1, m2] = mantissa.to_be_bytes();
    out.extend_from_slice(&[ssrcs.len() as u8, ((exponent as u8) << 2) | (m0 & 0x03), m1, m2]);
    for ssrc in ssrcs {
        put_ssrc(out, *ssrc);
    }
    finish(out, at);
}

/// Appends a goodbye for up to 31 sources; the rest is left out.
pub fn write_bye(out: &mut Vec<u8>, ssrcs: &[Ssrc]) {
    let ssrcs = ssrcs.get(..COUNT_MAX).unwrap_or(ssrcs);
    let at = start(out, ssrcs.len() as u8, packet_type::BYE);
    for ssrc in ssrcs {
        put_ssrc(out, *ssrc);
    }
    finish(out, at);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rtc_rtcp::goodbye::Goodbye;
    use rtc_rtcp::packet::Packet;
    use rtc_rtcp::payload_feedbacks::full_intra_request::FullIntraRequest;
    use rtc_rtcp::payload_feedbacks::picture_loss_indication::PictureLossIndication;
    use rtc_rtcp::payload_feedbacks::receiver_estimated_maximum_bitrate::ReceiverEstimatedMaximumBitrate;
    use rtc_rtcp::receiver_report::ReceiverReport;
    use rtc_rtcp::sender_report::SenderReport;
    use rtc_rtcp::source_description::SourceDescription;
    use rtc_rtcp::transport_feedbacks::transport_layer_nack::TransportLayerNack;

    use super::super::{Rtcp, RtcpError, parse};
    use super::*;

    const US: Ssrc = Ssrc(0x1111_1111);
    const THEM: Ssrc = Ssrc(0x2222_2222);

    /// What an independent implementation reads.
    fn theirs(bytes: &[u8]) -> Vec<Box<dyn Packet>> {
        let mut rest = bytes;
        rtc_rtcp::packet::unmarshal(&mut rest).unwrap()
    }

    fn ours(bytes: &[u8]) -> Vec<Rtcp<'_>> {
        parse(bytes).collect::<Result<_, _>>().unwrap()
    }

    fn cast<T: Packet + 'static>(packet: &dyn Packet) -> &T {
        packet.as_any().downcast_ref().unwrap()
    }

    fn report(ssrc: u32, lost: i32) -> ReportBlock {
        ReportBlock {
            ssrc: Ssrc(ssrc),
            fraction_lost: 12,
            lost,
            highest_seq: 0x0001_ffff,
            jitter: 90,
            last_sr: 0xaabb_ccdd,
            delay_since_last_sr: 65_536,
        }
    }

    #[test]
    fn a_compound_of_reports_reads_the_same_here_and_elsewhere() {
        let info = SenderInfo { ssrc: US, ntp: 0x0102_0304_0506_0708, rtp_timestamp: u32::MAX, packets: 7, octets: 8 };
        let mut out = Vec::new();
        write_sender_report(&mut out, &info, &[report(5, 77)]);
        write_cname(&mut out, US, "node");
        write_bye(&mut out, &[US, THEM]);

        let packets = theirs(&out);
        let sr: &SenderReport = cast(&*packets[0]);
        assert_eq!((sr.ssrc, sr.ntp_time, sr.rtp_time), (US.0, info.ntp, u32::MAX));
        assert_eq!((sr.packet_count, sr.octet_count, sr.reports[0].total_lost), (7, 8, 77));
        let sdes: &SourceDescription = cast(&*packets[1]);
        assert_eq!((sdes.chunks[0].source, &sdes.chunks[0].items[0].text[..]), (US.0, &b"node"[..]));
        assert_eq!(cast::<Goodbye>(&*packets[2]).sources, [US.0, THEM.0]);

        let items = ours(&out);
        assert_eq!(items.len(), 3);
        let Rtcp::SenderReport(sr) = &items[0] else { panic!("{items:?}") };
        assert_eq!(sr.info, info);
        assert_eq!(sr.reports.clone().collect::<Vec<_>>(), [report(5, 77)]);
        let Rtcp::Bye(ssrcs) = &items[2] else { panic!("{items:?}") };
        assert_eq!(ssrcs.clone().collect::<Vec<_>>(), [US, THEM]);
    }

    #[test]
    fn names_of_every_length_are_padded_to_words() {
        for len in 0..9 {
            let mut out = Vec::new();
            write_cname(&mut out, US, &"n".repeat(len));
            assert_eq!(cast::<SourceDescription>(&*theirs(&out)[0]).chunks[0].items[0].text.len(), len);
        }
        let mut out = Vec::new();
        write_cname(&mut out, US, &"n".repeat(400));
        assert_eq!(cast::<SourceDescription>(&*theirs(&out)[0]).chunks[0].items[0].text.len(), 255);
    }

    #[test]
    fn lost_counts_keep_their_sign_and_stay_in_24_bits() {
        for (name, lost, want) in [
            ("none", 0, 0),
            ("negative", -3, -3),
            ("past the top", i32::MAX, 0x7f_ffff),
            ("past the bottom", i32::MIN, -0x80_0000),
        ] {
            let mut out = Vec::new();
            write_receiver_report(&mut out, US, &[report(1, lost)]);
            let Rtcp::ReceiverReport { mut reports, .. } = ours(&out).remove(0) else { panic!() };
            assert_eq!(reports.next().unwrap().lost, want, "{name}");
        }
    }

    #[test]
    fn more_reports_than_one_packet_counts_go_on_in_the_next() {
        let reports: Vec<ReportBlock> = (0..70).map(|n| report(n, 0)).collect();
        let mut out = Vec::new();
        write_receiver_report(&mut out, US, &reports);
        let sizes: Vec<usize> = theirs(&out).iter().map(|p| cast::<ReceiverReport>(&**p).reports.len()).collect();
        assert_eq!(sizes, [31, 31, 8]);
    }

    #[test]
    fn nacks_pack_neighbours_and_wrap() {
        for (name, seqs, pairs) in [
            ("one", vec![7], 1),
            ("run of 17", (100..117).collect(), 1),
            ("run of 18", (100..118).collect(), 2),
            ("wraps", vec![65_534, 65_535, 0, 1, 14], 1),
            ("far apart", vec![1, 1000, 2000], 3),
        ] {
            let mut out = Vec::new();
            assert_eq!(write_nack(&mut out, US, THEM, &seqs), seqs.len(), "{name}");
            assert_eq!(out.len(), 12 + pairs * 4, "{name}");
            let packets = theirs(&out);
            let nack: &TransportLayerNack = cast(&*packets[0]);
            let mut listed: Vec<u16> = nack.nacks.iter().flat_map(|pair| pair.packet_list()).collect();
            listed.sort_unstable();
            let mut want = seqs.clone();
            want.sort_unstable();
            assert_eq!(listed, want, "{name}");
            let Rtcp::Nack { sender, media, seqs: read } = ours(&out).remove(0) else { panic!() };
            assert_eq!((sender, media, read.collect::<Vec<_>>()), (US, THEM, seqs), "{name}");
        }
        assert_eq!(write_nack(&mut Vec::new(), US, THEM, &[]), 0);
    }

    #[test]
    fn a_nack_never_outgrows_a_datagram() {
        let seqs: Vec<u16> = (0..2000).map(|n| n * 30).collect();
        let mut out = Vec::new();
        assert_eq!(write_nack(&mut out, US, THEM, &seqs), NACK_PAIRS_MAX);
        assert!(out.len() < 1100);
    }

    #[test]
    fn keyframe_requests_read_the_same_elsewhere() {
        let mut out = Vec::new();
        write_pli(&mut out, US, THEM);
        write_fir(&mut out, US, THEM, 255);
        let packets = theirs(&out);
        assert_eq!(
            *cast::<PictureLossIndication>(&*packets[0]),
            PictureLossIndication { sender_ssrc: US.0, media_ssrc: THEM.0 }
        );
        let fir: &FullIntraRequest = cast(&*packets[1]);
        assert_eq!((fir.sender_ssrc, fir.fir[0].ssrc, fir.fir[0].sequence_number), (US.0, THEM.0, 255));
        let items = ours(&out);
        assert!(matches!(items[0], Rtcp::Pli { sender: US, media: THEM }));
        let Rtcp::Fir { sender: US, entries } = &items[1] else { panic!("{items:?}") };
        assert_eq!(entries.clone().collect::<Vec<_>>(), [(THEM, 255)]);
    }

    #[test]
    fn bandwidth_estimates_lose_only_their_low_bits() {
        for bitrate in [0, 1, 262_143, 262_144, 2_500_000, 10_000_000_000] {
            let mut out = Vec::new();
            write_remb(&mut out, US, Bitrate(bitrate), &[THEM, US]);
            let Rtcp::Remb { bitrate: read, ssrcs, .. } = ours(&out).remove(0) else { panic!() };
            assert!(read.0 <= bitrate && bitrate - read.0 <= bitrate >> 17, "{bitrate} read as {read:?}");
            assert_eq!(ssrcs.collect::<Vec<_>>(), [THEM, US]);
            if bitrate == 0 {
                continue; // the other implementation has no zero: it reads a float without a mantissa
            }
            let packets = theirs(&out);
            let remb: &ReceiverEstimatedMaximumBitrate = cast(&*packets[0]);
            assert_eq!((remb.bitrate as u64, &remb.ssrcs[..]), (read.0, &[THEM.0, US.0][..]));
        }
        let largest = [0x8f, 206, 0, 4, 0, 0, 0, 1, 0, 0, 0, 0, b'R', b'E', b'M', b'B', 0, 0xff, 0xff, 0xff];
        assert!(matches!(ours(&largest)[..], [Rtcp::Remb { bitrate: Bitrate(u64::MAX), .. }]));
    }

    #[test]
    fn hostile_packets_end_the_datagram() {
        let mut good = Vec::new();
        write_pli(&mut good, US, THEM);
        for (name, bytes, want) in [
            ("three bytes", vec![0x80, 200, 0], RtcpError::Truncated { packet_type: 0 }),
            ("version 0", vec![0, 200, 0, 0], RtcpError::Version(0)),
            ("length past the end", vec![0x80, 200, 0, 9, 0, 0, 0, 0], RtcpError::Truncated { packet_type: 200 }),
            ("reports past the end", vec![0x9f, 201, 0, 1, 0, 0, 0, 1], RtcpError::Truncated { packet_type: 201 }),
            ("sources past the end", vec![0x9f, 203, 0, 1, 0, 0, 0, 1], RtcpError::Truncated { packet_type: 203 }),
            ("no padding count", vec![0xa0, 203, 0, 1, 0, 0, 0, 0], RtcpError::Padding),
            ("padding too long", vec![0xa0, 203, 0, 1, 0, 0, 0, 5], RtcpError::Padding),
            ("PLI without its source", vec![0x81, 206, 0, 1, 0, 0, 0, 1], RtcpError::Truncated { packet_type: 206 }),
            (
                "REMB sources past the end",
                vec![0x8f, 206, 0, 4, 0, 0, 0, 1, 0, 0, 0, 0, b'R', b'E', b'M', b'B', 255, 0, 0, 0],
                RtcpError::Truncated { packet_type: 206 },
            ),
            ("feedback without a body", vec![0x8f, 205, 0, 2, 0, 0, 0, 1, 0, 0, 0, 0], RtcpError::Feedback),
        ] {
            let behind = if bytes.len() < 4 { Vec::new() } else { good.clone() };
            let datagram = [good.clone(), bytes, behind].concat();
            let items: Vec<_> = parse(&datagram).collect();
            assert!(matches!(items[0], Ok(Rtcp::Pli { .. })), "{name}: what stands before it is read");
            assert_eq!(items[1].as_ref().unwrap_err(), &want, "{name}");
            assert_eq!(items.len(), 2, "{name}: what stands behind it is not");
        }
    }

    #[test]
    fn unknown_packets_are_passed_over() {
        let xr = [0x80, 207, 0, 1, 0, 0, 0, 1, 0x8f, 206, 0, 3, 0, 0, 0, 1, 0, 0, 0, 0, b'A', b'F', b'B', 0];
        let items = ours(&xr);
        assert!(matches!(items[0], Rtcp::Unknown { packet_type: 207, format: 0 }));
        assert!(matches!(items[1], Rtcp::Unknown { packet_type: 206, format: 15 }));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_to_the_end(bytes in proptest::collection::vec(any::<u8>(), 0..256), head in any::<bool>(), kind in 200u8..208) {
            let mut bytes = bytes;
            if head && bytes.len() > 4 {
                let words = u16::try_from(bytes.len() / 4 - 1).unwrap();
                let words = words.to_be_bytes();
                bytes[0] = 0x80 | (bytes[0] & 0x3f);
                bytes[1] = kind;
                bytes[2..4].copy_from_slice(&words);
            }
            let mut parts = 0_usize;
            for item in parse(&bytes).flatten() {
                parts += match item {
                    Rtcp::SenderReport(sr) => sr.reports.count(),
                    Rtcp::ReceiverReport { reports, .. } => reports.count(),
                    Rtcp::Bye(ssrcs) | Rtcp::Remb { ssrcs, .. } => ssrcs.count(),
                    Rtcp::Nack { seqs, .. } => seqs.count(),
                    Rtcp::Fir { entries, .. } => entries.count(),
                    Rtcp::TransportCc(feedback) => feedback.packets().count().min(1),
                    _ => 1,
                };
            }
            prop_assert!(parts <= bytes.len() * 5);
        }

        #[test]
        fn nacks_ask_for_exactly_what_is_missing(first in any::<u16>(), steps in proptest::collection::vec(1u16..40, 0..60)) {
            let mut seqs = vec![first];
            for step in steps {
                let last = *seqs.last().unwrap();
                seqs.push(last.wrapping_add(step));
            }
            let mut out = Vec::new();
            prop_assert_eq!(write_nack(&mut out, US, THEM, &seqs), seqs.len());
            let Rtcp::Nack { seqs: read, .. } = ours(&out).remove(0) else { panic!() };
            prop_assert_eq!(read.collect::<Vec<_>>(), seqs);
        }
    }
}
