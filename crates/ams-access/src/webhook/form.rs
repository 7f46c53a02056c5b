//! `application/x-www-form-urlencoded` (WHATWG URL §5).

use std::fmt::Write;

/// Encodes pairs, in their order.
pub(super) fn encode<'a>(pairs: impl Iterator<Item = (&'a str, String)>) -> String {
    let mut text = String::new();
    for (key, value) in pairs {
        if !text.is_empty() {
            text.push('&');
        }
        escape(key, &mut text);
        text.push('=');
        escape(&value, &mut text);
    }
    text
}

fn escape(plain: &str, text: &mut String) {
    for byte in plain.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'*' | b'-' | b'.' | b'_' => text.push(char::from(byte)),
            b' ' => text.push('+'),
            // Writing to a string never fails.
            _ => _ = write!(text, "%{byte:02X}"),
        }
    }
}

/// Decodes pairs; `None` if an escape is broken or the bytes are not UTF-8.
pub(super) fn decode(text: &str) -> Option<Vec<(String, String)>> {
    let pairs = text.split('&').filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            Some((unescape(key)?, unescape(value)?))
        })
        .collect()
}

fn unescape(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let mut digit = || char::from(rest.next()?).to_digit(16);
                (digit()? * 16 + digit()?) as u8
            }
            byte => byte,
        });
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn forms_look_as_browsers_write_them() {
        let pairs = [("id", "stream 1".to_owned()), ("q", "a=b&c+é*-._~".to_owned())];
        assert_eq!(encode(pairs.into_iter()), "id=stream+1&q=a%3Db%26c%2B%C3%A9*-._%7E");
        assert_eq!(decode("a&b=&=c&&d=%41%zz"), None);
        assert_eq!(decode("%4"), None);
        assert_eq!(decode("%FF"), None);
        assert_eq!(decode("a&b=1=2").unwrap(), [("a".into(), String::new()), ("b".into(), "1=2".into())]);
    }

    proptest! {
        #[test]
        fn what_is_encoded_comes_back(key in r"\PC{1,20}", value in any::<String>()) {
            let text = encode([(key.as_str(), value.clone())].into_iter());
            prop_assert_eq!(decode(&text).unwrap(), vec![(key, value)]);
        }

        #[test]
        fn no_text_panics(text in any::<String>()) {
            let _ = decode(&text);
        }
    }
}
