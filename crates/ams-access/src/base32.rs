//! Base32 (RFC 4648 §6), as subscribers' secrets are written.

/// Longest text that is decoded, in characters. A secret has 16 to 128.
pub(crate) const TEXT_LEN_MAX: usize = 1024;

const ALPHABET: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";

/// Decodes whole blocks of eight characters, padded with `=` at the end, in either case. `None` for anything else.
pub(crate) fn decode(text: &str) -> Option<Vec<u8>> {
    if text.is_empty() || text.len() > TEXT_LEN_MAX || !text.len().is_multiple_of(8) {
        return None;
    }
    let digits = text.trim_end_matches('=');
    // How many characters of the last block may carry bits: 2, 4, 5, 7 or all 8 of them.
    if text.len() - digits.len() > 6 || [1, 3, 6].contains(&(digits.len() % 8)) {
        return None;
    }
    let mut bytes = Vec::with_capacity(text.len() / 8 * 5);
    let (mut bits, mut held) = (0u32, 0u32);
    for digit in digits.bytes() {
        let value = match digit {
            b'A'..=b'Z' => digit - b'A',
            b'a'..=b'z' => digit - b'a',
            b'2'..=b'7' => digit - b'2' + 26,
            _ => return None,
        };
        bits = (bits << 5) | u32::from(value);
        held += 5;
        if held >= 8 {
            held -= 8;
            bytes.push((bits >> held) as u8);
            bits &= (1 << held) - 1;
        }
    }
    Some(bytes)
}

/// Encodes with padding, in upper case.
pub(crate) fn encode(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(5) * 8);
    for block in bytes.chunks(5) {
        let mut bits = [0; 8];
        bits[3..3 + block.len()].copy_from_slice(block);
        let bits = u64::from_be_bytes(bits);
        let digits = (block.len() * 8).div_ceil(5);
        for at in 0..8 {
            let value = (bits >> (35 - 5 * at)) & 31;
            text.push(if at < digits { char::from(ALPHABET[value as usize]) } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_vectors_of_the_rfc_pass() {
        for (plain, text) in [
            ("f", "MY======"),
            ("fo", "MZXQ===="),
            ("foo", "MZXW6==="),
            ("foob", "MZXW6YQ="),
            ("fooba", "MZXW6YTB"),
            ("foobar", "MZXW6YTBOI======"),
        ] {
            assert_eq!(encode(plain.as_bytes()), text);
            assert_eq!(decode(text).unwrap(), plain.as_bytes());
            assert_eq!(decode(&text.to_lowercase()).unwrap(), plain.as_bytes());
        }
    }

    #[test]
    fn what_is_not_base32_is_refused() {
        for text in
            ["", "MY", "MZXW6YT1", "MZXW6YT8", "========", "M=======", "MZX=====", "MY=====A", "MY=A====", "ééé="]
        {
            assert_eq!(decode(text), None, "{text}");
        }
        assert_eq!(decode(&"A".repeat(TEXT_LEN_MAX + 8)), None);
    }

    proptest! {
        #[test]
        fn what_is_encoded_comes_back(bytes in prop::collection::vec(any::<u8>(), 1..200)) {
            prop_assert_eq!(decode(&encode(&bytes)).unwrap(), bytes);
        }

        #[test]
        fn no_text_panics(text in ".{0,64}") {
            let _ = decode(&text);
        }
    }
}
