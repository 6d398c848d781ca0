//! Keys of well-known services, and what is called a key, a token or a password. Each regex stands behind a quick look at whether it
//! can find anything: in most texts none can, and looking costs a fraction of what the regexes do.
use memchr::{memchr2_iter, memmem};
use regex::Regex;
use std::ops::Range;

/// The regexes. Where one has groups, the first that took part is the find.
#[derive(Debug, Clone)]
pub(super) struct ApiKeys {
    beginnings: Regex,
    known: Regex,
    bear: Regex,
    bearer: Regex,
    named: Regex,
    url_password: Regex,
}

impl ApiKeys {
    pub(super) fn new() -> Result<Self, regex::Error> {
        Ok(Self {
            beginnings: Regex::new(BEGINNINGS)?,
            known: Regex::new(KNOWN_KEYS)?,
            bear: Regex::new(BEAR)?,
            bearer: Regex::new(BEARER)?,
            named: Regex::new(NAMED_KEYS)?,
            url_password: Regex::new(URL_PASSWORD)?,
        })
    }

    /// Hands the place of each find to `hit`; two may overlap.
    pub(super) fn find(&self, text: &str, hit: &mut dyn FnMut(Range<usize>)) {
        if self.beginnings.is_match(text) {
            find_groups(&self.known, text, hit);
        }
        if self.bear.is_match(text) {
            find_groups(&self.bearer, text, hit);
        }
        if may_hold_named(text) {
            find_groups(&self.named, text, hit);
        }
        if memmem::find(text.as_bytes(), b"://").is_some() {
            find_groups(&self.url_password, text, hit);
        }
    }
}

/// Whether a colon or an equals sign may have a key behind it.
fn may_hold_named(text: &str) -> bool {
    let bytes = text.as_bytes();
    memchr2_iter(b':', b'=', bytes).any(|at| {
        let rest = bytes[at + 1..].iter();
        let is_blank = |byte: &&u8| matches!(byte, b' ' | b'\t'..=b'\r');
        let mut rest = rest.skip_while(is_blank).peekable();
        rest.next_if(|byte| matches!(byte, b'"' | b'\''));
        let key = rest.take(NAMED_BYTES).take_while(|byte| {
            byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'~' | b'+' | b'/' | b'-')
        });
        key.count() == NAMED_BYTES
    })
}

fn find_groups(regex: &Regex, text: &str, hit: &mut dyn FnMut(Range<usize>)) {
    for found in regex.captures_iter(text) {
        let telling = found.iter().skip(1).flatten().next().or_else(|| found.get(0));
        if let Some(telling) = telling {
            hit(telling.range());
        }
    }
}

/// Keys that say by their beginning what they are, JSON web tokens, private keys in PEM.
const KNOWN_KEYS: &str = r"(?x)
    (?-u:\b)(?:
        sk-[A-Za-z0-9_-]{16,}
      | (?:sk|pk|rk)_(?:live|test)_[A-Za-z0-9]{10,}
      | gh[opusr]_[A-Za-z0-9]{20,}
      | github_pat_[A-Za-z0-9_]{20,}
      | glpat-[A-Za-z0-9_-]{16,}
      | (?:AKIA|ASIA)[A-Z0-9]{16}
      | AIza[A-Za-z0-9_-]{30,}
      | ya29\.[A-Za-z0-9_-]{20,}
      | xox[abeoprs]-[A-Za-z0-9-]{10,}
      | xapp-[A-Za-z0-9-]{10,}
      | hf_[A-Za-z0-9]{20,}
      | gsk_[A-Za-z0-9]{20,}
      | xai-[A-Za-z0-9]{20,}
      | npm_[A-Za-z0-9]{30,}
      | pypi-[A-Za-z0-9_-]{30,}
      | SG\.[A-Za-z0-9_-]{16,}\.[A-Za-z0-9_-]{16,}
      | eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}(?:\.[A-Za-z0-9_-]*)?
    )
  | -----BEGIN\ [A-Z\ ]{0,20}PRIVATE\ KEY-----(?s:.*?)(?:-----END\ [A-Z\ ]{0,20}PRIVATE\ KEY-----|\z)";

/// The token after `Bearer`.
const BEARER: &str = r"(?i-u:\bbearer)(?-u:\s+)([A-Za-z0-9._~+/-]{16,}=*)";

/// The value of what is called an API key, a token or a secret: `api_key = ...`, `X-Api-Key: ...`, `"client_secret": "..."`.
const NAMED_KEYS: &str = r#"(?x)
    (?i-u:api[_-]?key | access[_-]?token | auth[_-]?token | refresh[_-]?token | secret[_-]?key | client[_-]?secret)
    ["']? (?-u:\s)* [:=] (?-u:\s)* ["']?
    ([A-Za-z0-9._~+/-]{12,}=*)"#;

/// The password in `https://user:password@host`.
const URL_PASSWORD: &str = r"://[^\s/:@]*:([^\s/@]{3,})@";

/// What [`KNOWN_KEYS`] begin with: plain texts alone, which are looked for all at once.
const BEGINNINGS: &str = "sk-|sk_|pk_|rk_|gho_|ghp_|ghu_|ghs_|ghr_|github_pat_|glpat-|AKIA|ASIA|AIza|ya29[.]|xoxa-|xoxb-|xoxe-|xoxo-\
    |xoxp-|xoxr-|xoxs-|xapp-|hf_|gsk_|xai-|npm_|pypi-|SG[.]|eyJ|-----BEGIN";

/// What [`BEARER`] begins with.
const BEAR: &str = "(?i-u)bear";

/// Fewest characters of the key that [`NAMED_KEYS`] find.
const NAMED_BYTES: usize = 12;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn found(text: &str) -> Vec<&str> {
        let keys = ApiKeys::new().expect("its regexes are right");
        let mut hits = Vec::new();
        keys.find(text, &mut |range| hits.push(&text[range]));
        hits
    }

    #[test]
    fn keys_are_found_by_their_beginning_or_by_what_they_are_called() {
        let hex = "0123456789abcdef0123456789abcdef";
        for (text, key) in [
            ("key sk-proj-abcDEF0123456789_x.", "sk-proj-abcDEF0123456789_x"),
            ("sk_live_0123456789abcdef", "sk_live_0123456789abcdef"),
            ("ghp_0123456789abcdefghij0123", "ghp_0123456789abcdefghij0123"),
            ("AKIAIOSFODNN7EXAMPLE,", "AKIAIOSFODNN7EXAMPLE"),
            (
                "AIzaSyA0123456789abcdefghijklmnopqrstuv",
                "AIzaSyA0123456789abcdefghijklmnopqrstuv",
            ),
            ("xoxb-0123456789-abc", "xoxb-0123456789-abc"),
            (
                "Authorization: Bearer abc.def-0123456789==",
                "abc.def-0123456789==",
            ),
            (
                "t eyJhbGciOiJIUzI1.eyJzdWIiOiIx.sig-1 u",
                "eyJhbGciOiJIUzI1.eyJzdWIiOiIx.sig-1",
            ),
            (format!("X-API-Key: {hex}").as_str(), hex),
            (format!("{{\"client_secret\": \"{hex}\"}}").as_str(), hex),
            (format!("apikey={hex}&x").as_str(), hex),
            ("postgres://app:s3cr3t!@db/x", "s3cr3t!"),
            (
                "-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY-----",
                "-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY-----",
            ),
            (
                "-----BEGIN PRIVATE KEY-----\nMIIE",
                "-----BEGIN PRIVATE KEY-----\nMIIE",
            ),
        ] {
            assert_eq!(found(text), [key], "{text}");
        }
    }

    #[test]
    fn talk_about_keys_is_no_key() {
        for text in [
            "my api key is lost",
            "api_key: none",
            "the bearer of news",
            "sk-short",
            "task-0123456789abcdef0123",
            "https://example.com:8080/x@y",
            "-----BEGIN CERTIFICATE-----",
            "AKIASHORT",
        ] {
            assert_eq!(found(text), Vec::<&str>::new(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_quick_look_passes_a_key_by(before in "[ ,(]{0,2}", key in prop_oneof![
            "sk-[A-Za-z0-9_-]{16,20}",
            "(sk|pk|rk)_(live|test)_[A-Za-z0-9]{10,14}",
            "gh[opusr]_[A-Za-z0-9]{20,24}",
            "(github_pat_|hf_|gsk_|xai-)[A-Za-z0-9]{20,24}",
            "glpat-[A-Za-z0-9_-]{16,20}",
            "(AKIA|ASIA)[A-Z0-9]{16}",
            "(AIza|npm_|pypi-)[A-Za-z0-9]{30,34}",
            "ya29\\.[A-Za-z0-9_-]{20,24}",
            "xox[abeoprs]-[A-Za-z0-9-]{10,14}",
            "xapp-[A-Za-z0-9-]{10,14}",
            "SG\\.[A-Za-z0-9_-]{16,20}\\.[A-Za-z0-9_-]{16,20}",
            "eyJ[A-Za-z0-9_-]{8,12}\\.[A-Za-z0-9_-]{8,12}",
            "-----BEGIN (RSA )?PRIVATE KEY-----\n[A-Za-z0-9]{0,9}",
        ], named in "(api[_-]?key|ACCESS[_-]?TOKEN|Auth_token|refresh-token|secretkey|client_secret)[\"']?[ \t\n]{0,3}[:=][ \r\n]{0,3}[\"']?[A-Za-z0-9._~+/-]{12,16}",
            bearer in "[bB][eE][aA][rR][eE][rR][ \n]{1,3}[A-Za-z0-9._~+/-]{16,20}=?", password in "[a-z]{0,3}://[a-z]{0,5}:[a-z]{3,6}@") {
            for text in [&key, &named, &bearer, &password] {
                let text = format!("{before}{text}");
                prop_assert!(!found(&text).is_empty(), "{}", text);
            }
        }

        #[test]
        fn what_the_regexes_find_is_found_behind_the_quick_looks(text in "([:= \\t\"'a-c/@.-]|bearer |api_key|token|sk-|ghp_|[a-z0-9]{12}){0,12}") {
            let keys = ApiKeys::new().expect("its regexes are right");
            let mut all = Vec::new();
            for regex in [&keys.known, &keys.bearer, &keys.named, &keys.url_password] {
                find_groups(regex, &text, &mut |range| all.push(range));
            }
            let mut quick = Vec::new();
            keys.find(&text, &mut |range| quick.push(range));
            prop_assert_eq!(quick, all);
        }
    }
}
