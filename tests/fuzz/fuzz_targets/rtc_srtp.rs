//! SRTP and SRTCP: nothing that was not sealed opens, and what opens is what was sealed, once.
#![no_main]

use ams_fuzz::Input;
use ams_rtc::srtp::{SRTP_OVERHEAD_MAX, SrtpKeys, SrtpProfile};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let mut input = Input::new(bytes);
    let profile = if input.u8() & 1 == 0 { SrtpProfile::AeadAes128Gcm } else { SrtpProfile::Aes128CmHmacSha1_80 };
    let material = vec![0x5a; profile.keying_material_len()];
    let keys = SrtpKeys::from_keying_material(profile, &material).expect("the right length");
    let (mut sealer, _) = keys.session(true).expect("a session");
    let (_, mut opener) = keys.session(false).expect("a session");
    let mut ext_seq = u64::from(input.u16());
    while !input.is_empty() {
        let what = input.u8();
        match what & 0x07 {
            // A packet of a real peer, perhaps damaged on the way, perhaps twice.
            0..=2 => {
                ext_seq += u64::from(what >> 3) + 1;
                let payload = input.part();
                let payload = &payload[..payload.len().min(1200)];
                let mut packet = vec![0x80, 96];
                packet.extend_from_slice(&(ext_seq as u16).to_be_bytes());
                packet.extend_from_slice(&[0, 0, 0, 1, 0, 0, 0, 2]);
                packet.extend_from_slice(payload);
                let plain = packet.clone();
                packet.resize(plain.len() + SRTP_OVERHEAD_MAX, 0);
                let len = sealer.seal_rtp(ext_seq, &mut packet, 12, payload.len()).expect("room and numbers");
                packet.truncate(len);
                let (sealed, damage) = (packet.clone(), what & 0x07 == 1);
                if damage {
                    let place = usize::from(input.u16()) % packet.len();
                    packet[place] ^= input.u8() | 1;
                    assert!(opener.open_rtp(&mut packet).is_err(), "a damaged packet opened");
                    continue;
                }
                // Far ahead, the opener may guess the rollover counter wrong; it must say so.
                if let Ok(opened) = opener.open_rtp(&mut packet) {
                    assert_eq!(packet[..opened], plain, "another packet than was sealed");
                    assert!(opener.open_rtp(&mut sealed.clone()).is_err(), "opened twice");
                }
            }
            3 | 4 => {
                let body = input.part();
                let body = &body[..body.len().min(1200)];
                let mut packet = vec![0x80, 201, 0, 1, 0, 0, 0, 2];
                packet.extend_from_slice(body);
                let plain = packet.clone();
                packet.resize(plain.len() + SRTP_OVERHEAD_MAX, 0);
                let len = sealer.seal_rtcp(&mut packet, plain.len()).expect("room and numbers");
                packet.truncate(len);
                if what & 0x07 == 4 {
                    let place = usize::from(input.u16()) % packet.len();
                    packet[place] ^= input.u8() | 1;
                    assert!(opener.open_rtcp(&mut packet).is_err(), "a damaged report opened");
                    continue;
                }
                let opened = opener.open_rtcp(&mut packet).expect("a sealed report opens");
                assert_eq!(packet[..opened], plain);
            }
            5 => assert!(opener.open_rtcp(&mut input.part().to_vec()).is_err(), "a forged report opened"),
            _ => assert!(opener.open_rtp(&mut input.part().to_vec()).is_err(), "a forged packet opened"),
        }
    }
});
