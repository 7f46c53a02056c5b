//! RTP headers and their extensions: lengths that lie, and that what is read can be written and reads the same.
#![no_main]

use ams_fuzz::Input;
use ams_rtc::ext::{Ext, ExtMap, ExtValues};
use ams_rtc::rtp::{HEADER_LEN_MAX, HeaderFields, RtpHeader, header_len, is_rtcp, peek, write_header};
use ams_types::{Pt, Ssrc};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let mut input = Input::new(bytes);
    let what = input.u8();
    let mut map = ExtMap::default();
    for ext in Ext::ALL {
        map.insert(ext, if what & 1 == 0 { ext.own_id() } else { input.u8() });
    }
    map.allow_mixed = what & 2 != 0;
    let packet = input.rest();
    is_rtcp(packet);
    let Ok(header) = RtpHeader::parse(packet) else { return };
    assert!(header.header_len <= header.payload.start && header.payload.end <= packet.len());
    let peeked = peek(packet).expect("what can be parsed can be looked at");
    assert_eq!((peeked.ssrc, peeked.seq, peeked.pt), (header.ssrc, header.seq, header.pt));
    assert_eq!(header_len(packet), Ok(header.header_len));
    for (id, data) in header.exts() {
        assert!(data.len() <= 255 && header.ext(id).is_some());
    }
    if let Some(original) = header.clone().unwrap_rtx(packet, Ssrc(1), Pt(2)) {
        assert!(original.payload.start <= original.payload.end && original.payload.end <= packet.len());
    }
    let media = ExtValues::read(&header, &map).to_media();
    let mut again = [0; HEADER_LEN_MAX];
    let fields = HeaderFields {
        marker: header.marker,
        pt: header.pt,
        seq: header.seq,
        timestamp: header.timestamp,
        ssrc: header.ssrc,
    };
    let len = write_header(&mut again, &fields, &map, &ExtValues::from_media(&media)).expect("it always fits");
    let second = RtpHeader::parse(&again[..len]).expect("what is written can be read");
    assert_eq!((second.header_len, second.seq, second.timestamp), (len, header.seq, header.timestamp));
    if map.allow_mixed {
        assert_eq!(ExtValues::read(&second, &map).to_media(), media);
    }
});
