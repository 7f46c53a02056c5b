//! DTLS: a handshake with a real peer whose datagrams are lost, damaged or joined by a stranger's.
#![no_main]

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use ams_fuzz::{Input, at};
use ams_rtc::dtls::{Dtls, DtlsIdentity, DtlsRole};
use libfuzzer_sys::fuzz_target;

fn identity() -> Arc<DtlsIdentity> {
    static IDENTITY: OnceLock<Arc<DtlsIdentity>> = OnceLock::new();
    IDENTITY.get_or_init(|| Arc::new(DtlsIdentity::generate().expect("a certificate"))).clone()
}

fuzz_target!(|bytes: &[u8]| {
    let mut input = Input::new(bytes);
    let server_is_ours = input.u8() & 1 == 0;
    let (our_role, their_role) =
        if server_is_ours { (DtlsRole::Server, DtlsRole::Client) } else { (DtlsRole::Client, DtlsRole::Server) };
    let (mut ours, mut theirs) = (Dtls::new(identity(), our_role), Dtls::new(identity(), their_role));
    let mut now = at(0);
    let _ = ours.start(now);
    let _ = theirs.start(now);
    let mut on_the_way: Vec<Vec<u8>> = Vec::new();
    for _ in 0..64 {
        if input.is_empty() {
            break;
        }
        let what = input.u8();
        while let Some(datagram) = ours.poll_transmit() {
            let _ = theirs.handle_datagram(now, &datagram, |_| {});
        }
        while let Some(datagram) = theirs.poll_transmit() {
            on_the_way.push(datagram.to_vec());
        }
        on_the_way.truncate(64);
        match what & 0x07 {
            0 | 1 => {
                for datagram in on_the_way.drain(..) {
                    let _ = ours.handle_datagram(now, &datagram, |_| {});
                }
            }
            2 if !on_the_way.is_empty() => {
                let mut datagram = on_the_way.remove(usize::from(what >> 3) % on_the_way.len());
                let place = usize::from(input.u16()) % datagram.len().max(1);
                if let Some(byte) = datagram.get_mut(place) {
                    *byte = input.u8();
                }
                let _ = ours.handle_datagram(now, &datagram, |_| {});
            }
            3 if !on_the_way.is_empty() => {
                let mut datagram = on_the_way.remove(0);
                datagram.truncate(usize::from(input.u16()));
                let _ = ours.handle_datagram(now, &datagram, |_| {});
            }
            4 => {
                now += Duration::from_millis(u64::from(input.u8()) * 20);
                let _ = ours.handle_timeout(now);
                let _ = theirs.handle_timeout(now);
            }
            5 => {
                let _ = theirs.write(now, input.part());
            }
            _ => {
                let _ = ours.handle_datagram(now, input.part(), |_| {});
            }
        }
        assert!(ours.poll_timeout().is_none_or(|due| due >= at(0)));
    }
});
