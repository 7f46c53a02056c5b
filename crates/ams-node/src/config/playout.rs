//! `media.playout_delay`: how long viewers are asked to hold pictures before they are shown.
//!
//! Owns the text and the bytes of the wish. Browsers follow it within what their own buffers need.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use humantime_serde::re::humantime;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The extension counts in steps of this.
const STEP: Duration = Duration::from_millis(10);
/// 12 bits of steps.
const MAX: Duration = Duration::from_millis(40_950);

/// Least and most delay, in whole steps of 10 ms up to 40.95 s; none to leave it to the publisher and the browser.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct PlayoutDelay(Option<(Duration, Duration)>);

impl PlayoutDelay {
    /// The value of the `playout-delay` header extension: 12 bits of minimum, 12 of maximum, in 10 ms.
    pub(crate) fn bytes(self) -> Option<[u8; 3]> {
        let (least, most) = self.0?;
        let steps = |delay: Duration| (delay.as_millis() / STEP.as_millis()) as u32;
        let [_, a, b, c] = (steps(least) << 12 | steps(most)).to_be_bytes();
        Some([a, b, c])
    }
}

impl FromStr for PlayoutDelay {
    type Err = String;

    /// Reads `LEAST-MOST`, one time for both, or nothing.
    fn from_str(text: &str) -> Result<Self, String> {
        if text.trim().is_empty() {
            return Ok(Self(None));
        }
        let delay = |text: &str| {
            let delay = humantime::parse_duration(text.trim()).ok();
            let fits = |delay: &Duration| *delay <= MAX && delay.as_nanos().is_multiple_of(STEP.as_nanos());
            delay.filter(fits).ok_or("write LEAST-MOST in steps of 10ms up to 40s 950ms, such as \"0ms-400ms\"")
        };
        let (least, most) = text.split_once('-').unwrap_or((text, text));
        let (least, most) = (delay(least)?, delay(most)?);
        if least > most {
            return Err("the least is more than the most; write LEAST-MOST, such as \"0ms-400ms\"".into());
        }
        Ok(Self(Some((least, most))))
    }
}

impl fmt::Display for PlayoutDelay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some((least, most)) = self.0 else { return Ok(()) };
        write!(f, "{}-{}", humantime::format_duration(least), humantime::format_duration(most))
    }
}

impl Serialize for PlayoutDelay {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for PlayoutDelay {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_become_bytes_and_texts_again() {
        for (text, want) in [
            ("", Ok(None)),
            ("0ms-400ms", Ok(Some([0, 0, 40]))),
            (" 100ms - 1s ", Ok(Some([0, 0xa0, 100]))),
            ("200ms", Ok(Some([0x01, 0x40, 20]))),
            ("0s-40s 950ms", Ok(Some([0, 0x0f, 0xff]))),
            ("400ms-0ms", Err("more than the most")),
            ("5ms", Err("steps of 10ms")),
            ("41s", Err("up to 40s 950ms")),
            ("soon", Err("write LEAST-MOST")),
            ("100", Err("write LEAST-MOST")),
        ] {
            match (text.parse::<PlayoutDelay>(), want) {
                (Ok(delay), Ok(want)) => {
                    assert_eq!(delay.bytes(), want, "{text:?}");
                    assert_eq!(delay.to_string().parse(), Ok(delay), "{text:?}");
                }
                (Err(error), Err(part)) => assert!(error.contains(part), "{text:?}: {error}"),
                (got, want) => panic!("{text:?}: {got:?} instead of {want:?}"),
            }
        }
    }
}
