//! Published vectors, another implementation as witness, and what an attacker or a bad network sends.

use super::cipher::{Cipher, Purpose, cm_iv};
use super::*;
use rtc_dtls::crypto_provider::providers::AwsLcRsProvider;
use rtc_srtp::context::Context;
use rtc_srtp::protection_profile::ProtectionProfile;

const PROFILES: [(SrtpProfile, ProtectionProfile); 2] = [
    (SrtpProfile::AeadAes128Gcm, ProtectionProfile::AeadAes128Gcm),
    (SrtpProfile::Aes128CmHmacSha1_80, ProtectionProfile::Aes128CmHmacSha1_80),
];

fn unhex(text: &str) -> Vec<u8> {
    hex::decode(text.replace([' ', '\n'], "")).unwrap()
}

fn keys(profile: SrtpProfile) -> SrtpKeys {
    let material: Vec<u8> = (0..profile.keying_material_len()).map(|n| n as u8 ^ 0x5a).collect();
    SrtpKeys::from_keying_material(profile, &material).unwrap()
}

/// Sealer of the DTLS client, opener of the server.
fn pair(profile: SrtpProfile) -> (SrtpSealer, SrtpOpener) {
    let keys = keys(profile);
    (keys.session(true).unwrap().0, keys.session(false).unwrap().1)
}

fn packet(seq: u16, ssrc: u32) -> Vec<u8> {
    // One CSRC, an extension of one word, a payload that tells the packet.
    let mut packet = vec![0x91, 0xe0];
    packet.extend_from_slice(&seq.to_be_bytes());
    packet.extend_from_slice(&90_000u32.to_be_bytes());
    packet.extend_from_slice(&ssrc.to_be_bytes());
    packet.extend_from_slice(&[0, 0, 0, 5, 0xbe, 0xde, 0, 1, 0x10, 0xaa, 0, 0]);
    packet.extend_from_slice(format!("payload of {seq} from {ssrc}").as_bytes());
    packet
}

const HEADER_LEN: usize = 24;

fn seal(sealer: &SrtpSealer, index: u64, ssrc: u32) -> Vec<u8> {
    let mut packet = packet(index as u16, ssrc);
    let plain_len = packet.len();
    packet.resize(plain_len + sealer.profile().rtp_overhead(), 0);
    let len = sealer.seal_rtp(index, &mut packet, HEADER_LEN, plain_len - HEADER_LEN).unwrap();
    assert_eq!(len, packet.len());
    packet
}

fn open(opener: &mut SrtpOpener, sealed: &[u8]) -> Result<Vec<u8>, SrtpError> {
    let mut buffer = sealed.to_vec();
    opener.open_rtp(&mut buffer).map(|len| buffer[..len].to_vec())
}

/// RFC 3711 B.3: session keys from a master key and salt.
#[test]
fn keys_are_derived_as_in_rfc_3711() {
    let mut master = MasterKey { key: [0; 16], salt: [0; 14] };
    master.key.copy_from_slice(&unhex("E1F97A0D3E018BE0D64FA32C06DE4139"));
    master.salt.copy_from_slice(&unhex("0EC675AD498AFEEBB6960B3AABE6"));
    let Ok(Cipher::CmSha1(cm)) = Cipher::new(SrtpProfile::Aes128CmHmacSha1_80, &master, Purpose::Rtp) else {
        panic!("keys refused")
    };
    let super::cipher::CmSha1 { key, salt, auth } = *cm;
    assert_eq!(salt.to_vec(), unhex("30CBBC08863D8C85D49DB34A9AE1"));
    // The keys themselves cannot be read back: what they do to a block of zeros tells them.
    let mut ours = [0; 16];
    super::cipher::cm_apply(&key, [0; 16], &mut ours).unwrap();
    let expected_key: [u8; 16] = unhex("C61E7A93744F39EE10734AFE3FF7A087").try_into().unwrap();
    let mut wanted = [0; 16];
    let reference = aws_lc_rs::cipher::UnboundCipherKey::new(&aws_lc_rs::cipher::AES_128, &expected_key).unwrap();
    let reference = aws_lc_rs::cipher::EncryptingKey::ctr(reference).unwrap();
    super::cipher::cm_apply(&reference, [0; 16], &mut wanted).unwrap();
    assert_eq!(ours, wanted);
    let auth_key = unhex("CEBE321F6FF7716B6FD4AB49AF256A156D38BAA4");
    let reference = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, &auth_key);
    assert_eq!(super::cipher::hmac80(&auth, b"x", b"y"), super::cipher::hmac80(&reference, b"x", b"y"));
}

/// RFC 3711 B.2: AES-CM key stream.
#[test]
fn the_key_stream_is_that_of_rfc_3711() {
    let key = unhex("2B7E151628AED2A6ABF7158809CF4F3C");
    let key = aws_lc_rs::cipher::UnboundCipherKey::new(&aws_lc_rs::cipher::AES_128, &key).unwrap();
    let key = aws_lc_rs::cipher::EncryptingKey::ctr(key).unwrap();
    let salt: [u8; 14] = unhex("F0F1F2F3F4F5F6F7F8F9FAFBFCFD").try_into().unwrap();
    let mut stream = [0; 48];
    super::cipher::cm_apply(&key, cm_iv(&salt, 0, 0), &mut stream).unwrap();
    let wanted = "E03EAD0935C95E80E166B16DD92B4EB4 D23513162B02D0F72A43A2FE4A5F97AB 41E95B3BB0A2E8DD477901E4FCA894C0";
    assert_eq!(stream.to_vec(), unhex(wanted));
}

/// RFC 7714 §16.1.1 and §17.1: session keys are given there, so the ciphers are built from them.
#[test]
fn packets_are_sealed_as_in_rfc_7714() {
    let gcm = || {
        let key =
            aws_lc_rs::aead::UnboundKey::new(&aws_lc_rs::aead::AES_128_GCM, &unhex("000102030405060708090a0b0c0d0e0f"));
        Cipher::Gcm {
            key: aws_lc_rs::aead::LessSafeKey::new(key.unwrap()),
            salt: unhex("517569642070726f2071756f").try_into().unwrap(),
        }
    };
    let mut sealer = SrtpSealer::with_ciphers(SrtpProfile::AeadAes128Gcm, gcm(), gcm(), 0x5d4);
    let mut rtp = unhex(
        "8040f17b 8041f8d3 5501a0b2 47616c6c 69612065 7374206f 6d6e6973 20646976 69736120 696e2070 61727465 \
         73207472 6573",
    );
    let plain_len = rtp.len();
    rtp.resize(plain_len + 16, 0);
    sealer.seal_rtp(0xf17b, &mut rtp, 12, plain_len - 12).unwrap();
    let wanted = "8040f17b 8041f8d3 5501a0b2 f24de3a3 fb34de6c acba861c 9d7e4bca be633bd5 0d294e6f 42a5f47a 51c7d19b \
        36de3adf 8833899d 7f27beb1 6a9152cf 765ee439 0cce";
    assert_eq!(rtp, unhex(wanted));

    let mut rtcp = unhex(
        "81c8000d 4d617273 4e545031 4e545032 52545020 0000042a 0000e930 4c756e61 deadbeef deadbeef deadbeef \
         deadbeef deadbeef",
    );
    let plain_len = rtcp.len();
    rtcp.resize(plain_len + 20, 0);
    sealer.seal_rtcp(&mut rtcp, plain_len).unwrap();
    let wanted = "81c8000d 4d617273 63e94885 dcdab67c a727d766 2f6b7e99 7ff5c0f7 6c06f32d c676a5f1 730d6fda 4ce09b46 \
        86303ded 0bb9275b c84aa458 96cf4d2f c5abf872 45d9eade 800005d4";
    assert_eq!(rtcp, unhex(wanted));
}

fn witness(theirs: ProtectionProfile, ours: SrtpProfile, is_client: bool) -> Context {
    let keys = keys(ours);
    let master = if is_client { keys.client } else { keys.server };
    let crypto = AwsLcRsProvider::new();
    let crypto = rtc_dtls::crypto_provider::RTCCryptoProvider::crypto(&crypto);
    Context::new(&master.key, &master.salt[..ours.salt_len()], theirs, None, None, crypto).unwrap()
}

#[test]
fn another_implementation_understands_us_and_is_understood() {
    for (ours, theirs) in PROFILES {
        let (mut sealer, mut opener) = pair(ours);
        let mut their_opener = witness(theirs, ours, true);
        let mut their_sealer = witness(theirs, ours, true);
        for index in [10u64, 11, 13, 12, 65_534, 65_535, 65_536, 65_537, 90_000, 120_000, 131_072] {
            let plain = packet(index as u16, 77);
            let sealed = seal(&sealer, index, 77);
            assert_eq!(their_opener.decrypt_rtp(&sealed).unwrap(), plain, "{ours:?} {index}");
            let sealed = their_sealer.encrypt_rtp(&plain).unwrap();
            assert_eq!(open(&mut opener, &sealed).unwrap(), plain, "{ours:?} {index}");
        }
        let report = unhex("80c90001 0000004d 81ca0002 0000004d 01000000");
        for _ in 0..3 {
            let mut sealed = report.clone();
            sealed.resize(report.len() + ours.rtcp_overhead(), 0);
            sealer.seal_rtcp(&mut sealed, report.len()).unwrap();
            assert_eq!(their_opener.decrypt_rtcp(&sealed).unwrap(), report, "{ours:?}");
            let mut sealed = their_sealer.encrypt_rtcp(&report).unwrap().to_vec();
            let len = opener.open_rtcp(&mut sealed).unwrap();
            assert_eq!(&sealed[..len], report, "{ours:?}");
        }
    }
}

#[test]
fn packets_around_a_wrap_open_in_any_order_once() {
    for (profile, _) in PROFILES {
        let (sealer, mut opener) = pair(profile);
        let order = [
            65_530u64, 65_535, 65_536, 65_533, 65_540, 65_534, 65_537, 65_531, 90_000, 120_000, 131_071, 131_073,
            131_072,
        ];
        for index in order {
            assert_eq!(
                open(&mut opener, &seal(&sealer, index, 5)).unwrap(),
                packet(index as u16, 5),
                "{profile:?} {index}"
            );
        }
        for index in order {
            // Those a whole cycle back are taken for the next cycle's and fail its authentication.
            let again = open(&mut opener, &seal(&sealer, index, 5));
            assert!(matches!(again, Err(SrtpError::Replayed | SrtpError::Unauthenticated)), "{profile:?} {index}");
        }
    }
}

#[test]
fn a_source_first_heard_after_its_wrap_is_understood() {
    for (profile, _) in PROFILES {
        let (sealer, mut opener) = pair(profile);
        for index in [65_539u64, 65_540, 65_533] {
            assert_eq!(open(&mut opener, &seal(&sealer, index, 5)).unwrap(), packet(index as u16, 5), "{profile:?}");
        }
    }
}

#[test]
fn what_is_not_authentic_is_refused_and_leaves_no_trace() {
    for (profile, _) in PROFILES {
        let (mut sealer, mut opener) = pair(profile);
        let good = seal(&sealer, 100, 5);
        for at in 0..good.len() {
            let mut forged = good.clone();
            forged[at] ^= 0x20;
            assert!(open(&mut opener, &forged).is_err(), "{profile:?}: byte {at}");
        }
        for len in 0..good.len() {
            assert!(open(&mut opener, &good[..len]).is_err(), "{profile:?}: cut to {len}");
        }
        assert_eq!(opener.sources(), (0, 0), "{profile:?}: no state before authentication");
        assert!(open(&mut opener, &good).is_ok(), "{profile:?}: the real one still opens");

        let report = unhex("80c90001 0000004d");
        let mut good = report.clone();
        good.resize(report.len() + profile.rtcp_overhead(), 0);
        sealer.seal_rtcp(&mut good, report.len()).unwrap();
        for at in 0..good.len() {
            let mut forged = good.clone();
            forged[at] ^= 0x20;
            assert!(opener.open_rtcp(&mut forged).is_err(), "{profile:?}: byte {at}");
        }
        for len in 0..good.len() {
            assert!(opener.open_rtcp(&mut good[..len].to_vec()).is_err(), "{profile:?}: cut to {len}");
        }
        assert_eq!(opener.sources(), (1, 0), "{profile:?}");
        assert!(opener.open_rtcp(&mut good.clone()).is_ok());
        assert_eq!(opener.open_rtcp(&mut good), Err(SrtpError::Replayed), "{profile:?}");
    }
}

#[test]
fn sources_are_bounded_and_the_oldest_gives_way() {
    let (sealer, mut opener) = pair(SrtpProfile::AeadAes128Gcm);
    for ssrc in 0..200 {
        open(&mut opener, &seal(&sealer, 1, ssrc)).unwrap();
        // A source in use stays known however many others come and go.
        open(&mut opener, &seal(&sealer, 10 + u64::from(ssrc), 0)).unwrap();
    }
    assert_eq!(opener.sources().0, SOURCES_MAX);
    assert_eq!(open(&mut opener, &seal(&sealer, 1, 0)), Err(SrtpError::Replayed));
}

#[test]
fn a_caller_s_mistakes_are_errors() {
    for (profile, _) in PROFILES {
        let (mut sealer, _) = pair(profile);
        let mut tight = packet(1, 5);
        let payload_len = tight.len() - HEADER_LEN;
        assert_eq!(sealer.seal_rtp(1, &mut tight, HEADER_LEN, payload_len), Err(SrtpError::NoRoom));
        assert_eq!(sealer.seal_rtp(1, &mut tight, 8, 0), Err(SrtpError::TooShort));
        assert_eq!(sealer.seal_rtp(1 << 48, &mut tight, HEADER_LEN, 0), Err(SrtpError::IndexUsedUp));
        assert_eq!(sealer.seal_rtcp(&mut [0; 64], 7), Err(SrtpError::TooShort));
        assert_eq!(sealer.seal_rtcp(&mut [0; 64], 64), Err(SrtpError::NoRoom));
        assert!(SrtpKeys::from_keying_material(profile, &[0; 55]).is_err());
    }
}

proptest::proptest! {
    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
        for (profile, _) in PROFILES {
            let (_, mut opener) = pair(profile);
            let _ = opener.open_rtp(&mut bytes.clone());
            let _ = opener.open_rtcp(&mut bytes.clone());
        }
    }
}
