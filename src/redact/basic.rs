//! What stands behind `Basic`: the name and the password of a user, in base64.

/// Whether a token is base64 of a text with a colon in it, as credentials are. Words are not.
pub(super) fn is_credentials(token: &str) -> bool {
    let digits = token.trim_end_matches('=');
    let bits = digits.bytes().map(value).collect::<Option<Vec<u8>>>();
    let Some(bits) = bits.filter(|bits| bits.len() % 4 != 1) else {
        return false;
    };
    let padded = token.len() == digits.len() || token.len().is_multiple_of(4);
    let mut has_colon = false;
    let is_text = bits.chunks(4).all(|part| {
        let mut bytes = [0; 3];
        for (place, byte) in bytes.iter_mut().take(part.len() - 1).enumerate() {
            *byte = part[place] << (2 * (place + 1)) | part[place + 1] >> (4 - 2 * place);
        }
        let bytes = &bytes[..part.len() - 1];
        has_colon |= bytes.contains(&b':');
        bytes.iter().all(|byte| *byte >= 0x80 || !byte.is_ascii_control())
    });
    padded && is_text && has_colon
}

/// The six bits of a digit.
fn value(digit: u8) -> Option<u8> {
    match digit {
        b'A'..=b'Z' => Some(digit - b'A'),
        b'a'..=b'z' => Some(digit - b'a' + 26),
        b'0'..=b'9' => Some(digit - b'0' + 52),
        b'+' | b'-' => Some(62),
        b'/' | b'_' => Some(63),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_have_a_colon_and_words_do_not() {
        for credentials in [
            "QWxhZGRpbjpvcGVuIHNlc2FtZQ==", // Aladdin:open sesame
            "YTpi",                         // a:b
            "dXNlcjpwYXNz",                 // user:pass
            "dXNlcjpwYXNzd29yZA",           // user:password, without its padding
            "OnNlY3JldA==",                 // :secret
            "dTrDqcOp",                     // u:éé
        ] {
            assert!(is_credentials(credentials), "{credentials}");
        }
        for other in [
            "understanding",
            "information",
            "knowledge",
            "=",
            "",
            "A",
            "dXNlcg==",
            "YTpi=",
        ] {
            assert!(!is_credentials(other), "{other}");
        }
    }
}
