//! Two associations against each other, without a network.

use super::*;

fn exchange(now: Instant, a: &mut Dtls, b: &mut Dtls) -> Result<(), DtlsError> {
    loop {
        let mut quiet = true;
        while let Some(datagram) = a.poll_transmit() {
            quiet = false;
            b.handle_datagram(now, &datagram, |_| {})?;
        }
        while let Some(datagram) = b.poll_transmit() {
            quiet = false;
            a.handle_datagram(now, &datagram, |_| {})?;
        }
        if quiet {
            return Ok(());
        }
    }
}

fn connected(
    client_identity: &Arc<DtlsIdentity>,
    server_identity: &Arc<DtlsIdentity>,
    client_config: Option<Arc<rtc_dtls::config::HandshakeConfig>>,
) -> (Dtls, Dtls) {
    let now = Instant::now();
    let mut client = Dtls::new(client_identity.clone(), DtlsRole::Client);
    let mut server = Dtls::new(server_identity.clone(), DtlsRole::Server);
    match client_config {
        Some(config) => {
            client.state = State::Handshaking;
            client.endpoint.connect(now, PEER, config, None).unwrap();
        }
        None => client.start(now).unwrap(),
    }
    exchange(now, &mut client, &mut server).unwrap();
    assert!(client.is_complete() && server.is_complete());
    (client, server)
}

#[test]
fn both_sides_export_the_same_keys_whatever_the_certificates_are() {
    let ecdsa = Arc::new(DtlsIdentity::generate().unwrap());
    let rsa = Arc::new(DtlsIdentity::generate_rsa().unwrap());
    for (name, theirs, ours) in
        [("both ecdsa", &ecdsa, &ecdsa), ("rsa client", &rsa, &ecdsa), ("rsa server", &ecdsa, &rsa)]
    {
        let (client, server) = connected(theirs, ours, None);
        let (ours, theirs) = (ours.fingerprint(), theirs.fingerprint());
        let (at_client, at_server) = (client.srtp_keys(ours).unwrap(), server.srtp_keys(theirs).unwrap());
        assert_eq!(sealed_by(&at_client), sealed_by(&at_server), "{name}");
        if ours != theirs {
            assert_eq!(server.srtp_keys(ours).err(), Some(DtlsError::FingerprintMismatch), "{name}");
        }
    }
}

#[test]
fn the_profile_is_gcm_if_the_client_lists_it_wherever() {
    let identity = Arc::new(DtlsIdentity::generate().unwrap());
    const GCM: SrtpProtectionProfile = SrtpProtectionProfile::Srtp_Aead_Aes_128_Gcm;
    const CM: SrtpProtectionProfile = SrtpProtectionProfile::Srtp_Aes128_Cm_Hmac_Sha1_80;
    const CM32: SrtpProtectionProfile = SrtpProtectionProfile::Srtp_Aes128_Cm_Hmac_Sha1_32;
    for (name, offered, want) in [
        ("gcm last", vec![CM32, CM, GCM], SrtpProfile::AeadAes128Gcm),
        ("gcm first", vec![GCM, CM], SrtpProfile::AeadAes128Gcm),
        ("no gcm", vec![CM32, CM], SrtpProfile::Aes128CmHmacSha1_80),
    ] {
        let config = identity::client_offering(&identity, &offered);
        let (client, server) = connected(&identity, &identity, Some(config));
        assert_eq!(server.srtp_keys(identity.fingerprint()).unwrap().profile(), want, "{name}");
        assert_eq!(client.srtp_keys(identity.fingerprint()).unwrap().profile(), want, "{name}");
    }
}

#[test]
fn a_client_without_a_profile_of_ours_gets_no_keys() {
    let identity = Arc::new(DtlsIdentity::generate().unwrap());
    let now = Instant::now();
    for (name, offered) in
        [("other profile", vec![SrtpProtectionProfile::Srtp_Aes128_Cm_Hmac_Sha1_32]), ("none at all", vec![])]
    {
        let mut client = Dtls::new(identity.clone(), DtlsRole::Client);
        let mut server = Dtls::new(identity.clone(), DtlsRole::Server);
        client.state = State::Handshaking;
        client.endpoint.connect(now, PEER, identity::client_offering(&identity, &offered), None).unwrap();
        let failed = exchange(now, &mut client, &mut server).err();
        let keys = server.srtp_keys(identity.fingerprint()).err();
        assert!(failed.or(keys) == Some(DtlsError::NoSrtpProfile), "{name}");
    }
}

#[test]
fn application_data_goes_both_ways_and_close_is_heard() {
    let identity = Arc::new(DtlsIdentity::generate().unwrap());
    let (mut client, mut server) = connected(&identity, &identity, None);
    let now = Instant::now();
    client.write(now, b"to the server").unwrap();
    let mut heard = Vec::new();
    let datagram = client.poll_transmit().unwrap();
    for _ in 0..2 {
        server
            .handle_datagram(now, &datagram, |event| match event {
                DtlsEvent::Data(data) => heard.push(data.to_vec()),
                _ => panic!("unexpected"),
            })
            .unwrap();
    }
    assert_eq!(heard, [b"to the server".to_vec()], "and a replay is not heard");
    server.close(now);
    assert_eq!(server.write(now, b"late"), Err(DtlsError::Closed));
    let mut closed = false;
    while let Some(datagram) = server.poll_transmit() {
        client.handle_datagram(now, &datagram, |event| closed |= matches!(event, DtlsEvent::Closed)).unwrap();
    }
    assert!(closed);
    assert_eq!(client.handle_datagram(now, &datagram, |_| {}), Err(DtlsError::Closed));
}

#[test]
fn an_unanswered_client_backs_off_and_gives_up() {
    let identity = Arc::new(DtlsIdentity::generate().unwrap());
    let mut now = Instant::now();
    let began = now;
    let mut client = Dtls::new(identity, DtlsRole::Client);
    client.start(now).unwrap();
    let mut gaps = Vec::new();
    let result = loop {
        while client.poll_transmit().is_some() {}
        let Some(at) = client.poll_timeout() else { panic!("no timer") };
        gaps.push(at - now);
        now = at;
        if let Err(error) = client.handle_timeout(now) {
            break error;
        }
        assert!(now - began < Duration::from_secs(30));
    };
    assert_eq!(result, DtlsError::Unanswered);
    assert_eq!(gaps[..3], [300, 600, 1200].map(Duration::from_millis));
    assert!(gaps.iter().all(|gap| *gap <= RETRANSMIT_MAX), "{gaps:?}");
    assert!(now - began > Duration::from_secs(8));
}

#[test]
fn a_flood_before_the_handshake_is_bounded() {
    let identity = Arc::new(DtlsIdentity::generate().unwrap());
    let now = Instant::now();
    let mut client = Dtls::new(identity.clone(), DtlsRole::Client);
    client.start(now).unwrap();
    let hello = client.poll_transmit().unwrap();
    let mut server = Dtls::new(identity, DtlsRole::Server);
    let mut flood = vec![23, 0xfe, 0xfd, 0, 1, 0, 0, 0, 0, 0, 0, 0x04, 0];
    flood.resize(13 + 1024, 7);
    server.handle_datagram(now, &hello, |_| {}).unwrap();
    for sequence in 0..1000u16 {
        flood[9..11].copy_from_slice(&sequence.to_be_bytes());
        server.handle_datagram(now, &flood, |_| {}).unwrap();
    }
    assert!(server.dropped() > 800, "{}", server.dropped());
}

/// Runs a handshake with the `openssl` command over loopback and compares the keys both export.
fn handshake_with_openssl(is_server: bool, rsa: bool) -> Option<(Sealed, Sealed)> {
    use std::io::Read;
    use std::process::{Command, Stdio};

    let directory = tempfile::tempdir().unwrap();
    let (certificate, key) = (directory.path().join("cert.pem"), directory.path().join("key.pem"));
    let algorithm: &[&str] = if rsa { &["rsa:2048"] } else { &["ec", "-pkeyopt", "ec_paramgen_curve:P-256"] };
    let made = Command::new("openssl")
        .args(["req", "-x509", "-nodes", "-days", "2", "-subj", "/CN=peer", "-newkey"])
        .args(algorithm)
        .args(["-keyout".as_ref(), key.as_os_str(), "-out".as_ref(), certificate.as_os_str()])
        .stderr(Stdio::null())
        .status()
        .ok()?;
    assert!(made.success());
    let der =
        Command::new("openssl").args(["x509", "-outform", "DER", "-in"]).arg(&certificate).output().unwrap().stdout;
    let fingerprint = Fingerprint::of(&der, FingerprintHash::Sha256);

    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    let theirs = std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut command = Command::new("openssl");
    if is_server {
        command.args(["s_client", "-connect", &socket.local_addr().unwrap().to_string()]);
    } else {
        command.args(["s_server", "-Verify", "1", "-naccept", "1", "-accept", &theirs.to_string()]);
    }
    command
        .args(["-dtls1_2", "-use_srtp", "SRTP_AES128_CM_SHA1_80:SRTP_AEAD_AES_128_GCM"])
        .args(["-keymatexport", "EXTRACTOR-dtls_srtp", "-keymatexportlen", "60", "-cert"])
        .args([certificate.as_os_str(), "-key".as_ref(), key.as_os_str()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    let mut openssl = command.spawn().unwrap();

    let identity = Arc::new(DtlsIdentity::generate().unwrap());
    let role = if is_server { DtlsRole::Server } else { DtlsRole::Client };
    let mut dtls = Dtls::new(identity, role);
    let mut peer = (!is_server).then_some(theirs);
    let deadline = Instant::now() + Duration::from_secs(20);
    let mut buffer = [0; 2048];
    while !dtls.is_complete() {
        let now = Instant::now();
        assert!(now < deadline, "no handshake with openssl");
        dtls.start(now).unwrap();
        dtls.handle_timeout(now).unwrap();
        while let (Some(to), Some(datagram)) = (peer, dtls.poll_transmit()) {
            let _ = socket.send_to(&datagram, to);
        }
        if let Ok((len, from)) = socket.recv_from(&mut buffer) {
            peer = Some(from);
            dtls.handle_datagram(Instant::now(), &buffer[..len], |_| {}).unwrap();
        }
    }
    let keys = dtls.srtp_keys(&fingerprint).unwrap();
    dtls.close(Instant::now());
    while let (Some(to), Some(datagram)) = (peer, dtls.poll_transmit()) {
        let _ = socket.send_to(&datagram, to);
    }
    drop(openssl.stdin.take());
    let mut text = String::new();
    openssl.stdout.take().unwrap().read_to_string(&mut text).unwrap();
    let _ = openssl.wait();
    let line = text.lines().find_map(|line| line.trim().strip_prefix("Keying material: "));
    let mut material = hex::decode(line.unwrap_or_else(|| panic!("no keys in {text}"))).unwrap();
    material.truncate(keys.profile().keying_material_len());
    Some((sealed_by(&keys), sealed_by(&SrtpKeys::from_keying_material(keys.profile(), &material).unwrap())))
}

/// What both directions' keys make of one packet: equal if the keys are.
type Sealed = [Vec<u8>; 2];

fn sealed_by(keys: &SrtpKeys) -> Sealed {
    [true, false].map(|is_client| {
        let (mut sealer, _) = keys.session(is_client).unwrap();
        let mut packet = [0x80, 201, 0, 1, 0, 0, 0, 7].to_vec();
        packet.resize(40, 0);
        sealer.seal_rtcp(&mut packet, 8).unwrap();
        packet
    })
}

#[test]
fn openssl_agrees_in_either_role_with_either_certificate() {
    for (is_server, rsa) in [(true, false), (true, true), (false, false), (false, true)] {
        let Some((ours, theirs)) = handshake_with_openssl(is_server, rsa) else {
            eprintln!("SKIPPED: the openssl command is not installed");
            return;
        };
        assert_eq!(ours, theirs, "we are server: {is_server}, rsa: {rsa}");
    }
}
