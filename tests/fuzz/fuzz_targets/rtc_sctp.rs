//! SCTP and data channels: a real association, into which any chunks come with the right tag and checksum.
#![no_main]

use std::time::Duration;

use ams_fuzz::{Input, at};
use ams_rtc::dtls::DtlsRole;
use ams_rtc::sctp::DataChannels;
use bytes::Bytes;
use libfuzzer_sys::fuzz_target;

/// Puts the CRC32c right (RFC 9260 §6.8): without it nothing gets further than the first line.
fn with_checksum(mut packet: Vec<u8>) -> Bytes {
    if let Some(place) = packet.get_mut(8..12) {
        place.fill(0);
        let sum = crc32c(&packet);
        packet[8..12].copy_from_slice(&sum.to_le_bytes());
    }
    packet.into()
}

fn crc32c(bytes: &[u8]) -> u32 {
    let step = |crc: u32, _| if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 };
    !bytes.iter().fold(!0, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), step))
}

fuzz_target!(|bytes: &[u8]| {
    let mut input = Input::new(bytes);
    let (mut ours, mut theirs) = (DataChannels::new(DtlsRole::Server), DataChannels::new(DtlsRole::Client));
    let mut now = at(0);
    ours.start(now);
    theirs.start(now);
    // Ports and tag of the peer's last packet.
    let mut header = vec![0x13, 0x88, 0x13, 0x88, 0, 0, 0, 0, 0, 0, 0, 0];
    let mut on_the_way: Vec<Bytes> = Vec::new();
    for _ in 0..64 {
        if input.is_empty() {
            break;
        }
        let what = input.u8();
        while let Some(packets) = ours.poll_transmit(now) {
            packets.into_iter().for_each(|packet| theirs.handle_packet(now, packet));
        }
        while let Some(packets) = theirs.poll_transmit(now) {
            on_the_way.extend(packets);
        }
        on_the_way.truncate(64);
        if let Some(last) = on_the_way.last().and_then(|packet| packet.get(..12)) {
            header = last.to_vec();
        }
        match what & 0x07 {
            0 | 1 => on_the_way.drain(..).for_each(|packet| ours.handle_packet(now, packet)),
            2 if !on_the_way.is_empty() => {
                let mut packet = on_the_way.remove(usize::from(what >> 3) % on_the_way.len()).to_vec();
                let place = usize::from(input.u16()) % packet.len().max(1);
                if let Some(byte) = packet.get_mut(place) {
                    *byte = input.u8();
                }
                ours.handle_packet(now, with_checksum(packet));
            }
            3 => {
                now += Duration::from_millis(u64::from(input.u8()) * 50);
                ours.handle_timeout(now);
                theirs.handle_timeout(now);
            }
            4 => {
                let _ = theirs.open(now, "channel");
            }
            5 => {
                let _ = ours.open(now, "ours");
            }
            6 => {
                let mut packet = header.clone();
                packet.extend_from_slice(input.part());
                ours.handle_packet(now, with_checksum(packet));
            }
            _ => ours.handle_packet(now, Bytes::copy_from_slice(input.part())),
        }
        while ours.poll_event().is_some() {}
        while theirs.poll_event().is_some() {}
    }
});
