//! Text frames on the signalling WebSocket: single messages, and a session fed with them, one per line.
#![no_main]

use ams_fuzz::at;
use ams_signal::{ClientMessage, IceServer, Output, Session, SignalLimits};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let mut session = Session::new(SignalLimits::default(), IceServer::default(), at(0));
    for (n, message) in text.lines().enumerate() {
        let now = at(100 * n as u64);
        ClientMessage::parse(message);
        session.handle(now, message);
        session.handle_timeout(now);
        let mut outputs = 0;
        while let Some(output) = session.poll_output() {
            outputs += 1;
            if let Output::Send(sent) = output {
                serde_json::from_str::<serde_json::Value>(&sent).expect("what is sent is JSON");
            }
        }
        assert!(outputs < 100, "one message makes {outputs} outputs");
    }
});
