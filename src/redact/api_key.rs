//! Keys of well-known services, credentials of HTTP, private keys. What is called a key, a token
//! or a password stands in [`super::named`], passwords of URLs in [`super::url`].
//!
//! Each regex stands behind a quick look at whether it can find anything: in most texts none can,
//! and looking costs a fraction of what the regexes do.
use super::basic::is_credentials;
use super::secret_name::is_words;
use super::{steps, url};
use memchr::memmem;
use regex::Regex;
use std::ops::Range;

/// The regexes. Where one has groups, the first that took part is the find.
#[derive(Debug, Clone)]
pub(super) struct ApiKeys {
    beginnings: Regex,
    known: Regex,
    schemes: Regex,
    credentials: Regex,
    webhook: Regex,
    private_key: Regex,
}

impl ApiKeys {
    pub(super) fn new() -> Result<Self, regex::Error> {
        Ok(Self {
            beginnings: Regex::new(BEGINNINGS)?,
            known: Regex::new(KNOWN_KEYS)?,
            schemes: Regex::new(SCHEMES)?,
            credentials: Regex::new(CREDENTIALS)?,
            webhook: Regex::new(WEBHOOK)?,
            private_key: Regex::new(PRIVATE_KEY)?,
        })
    }

    /// Hands the place of each find to `hit`; two may overlap. Where another view of the text has
    /// its escapes read, `is_read` is false: a key of several lines is then left to that one.
    pub(super) fn find(&self, text: &str, is_read: bool, hit: &mut dyn FnMut(Range<usize>)) {
        let bytes = text.as_bytes();
        if self.beginnings.is_match(text) {
            find_groups(&self.known, text, &mut |place| {
                // `sk-loading-indicator-wrapper` is a name of a style sheet.
                if !(text[place.clone()].starts_with("sk-") && is_words(&text[place.clone()])) {
                    hit(place);
                }
            });
        }
        if self.schemes.is_match(text) {
            self.find_credentials(text, hit);
        }
        if memmem::find(bytes, b"hooks").is_some() {
            find_groups(&self.webhook, text, hit);
        }
        if is_read && memmem::find(bytes, b"-----BEGIN").is_some() {
            self.find_private_keys(text, hit);
        }
        if memmem::find(bytes, b"://").is_some() {
            url::find(text, hit);
        }
    }

    /// What stands behind `Bearer` and `Basic`, if it is more than a word.
    fn find_credentials(&self, text: &str, hit: &mut dyn FnMut(Range<usize>)) {
        for found in self.credentials.captures_iter(text) {
            let is_key = |key: &str| !is_words(key);
            match (found.get(1), found.get(2)) {
                (Some(bearer), _) if is_key(bearer.as_str()) => hit(bearer.range()),
                (_, Some(basic)) if is_credentials(basic.as_str()) => hit(basic.range()),
                _ => {}
            }
        }
    }

    /// Keys in PEM, from the first line to the last, or as far as they go.
    fn find_private_keys(&self, text: &str, hit: &mut dyn FnMut(Range<usize>)) {
        let mut behind = 0;
        for begin in self.private_key.find_iter(text) {
            if begin.start() < behind {
                continue;
            }
            let end = begin.end() + end_of_pem(&text[begin.end()..]);
            behind = end;
            hit(begin.start()..end);
        }
    }
}

/// The bytes of what stands behind the first line of a key in PEM and belongs to it.
fn end_of_pem(rest: &str) -> usize {
    let bytes = rest.as_bytes();
    let is_part = |byte: u8| {
        byte.is_ascii_alphanumeric() || byte.is_ascii_whitespace() || b"+/=-_:,.()".contains(&byte)
    };
    let mut length = 0;
    while let Some(byte) = bytes.get(length).filter(|byte| is_part(**byte)) {
        if *byte == b'-' && bytes[length..].starts_with(b"-----") {
            // Another one begins there, if none ends.
            let last = rest[length..].strip_prefix("-----END").unwrap_or_default();
            let last = &last.as_bytes()[..last.len().min(MOST_LAST_LINE)];
            let close = memmem::find(last, b"-----");
            return close.map_or(length, |close| length + "-----END".len() + close + "-----".len());
        }
        length += 1;
        steps::add(1);
    }
    rest[..length].trim_end().len()
}

fn find_groups(regex: &Regex, text: &str, hit: &mut dyn FnMut(Range<usize>)) {
    for found in regex.captures_iter(text) {
        let telling = found.iter().skip(1).flatten().next().or_else(|| found.get(0));
        if let Some(telling) = telling {
            hit(telling.range());
        }
    }
}

/// Keys that say by their beginning what they are, and JSON web tokens.
const KNOWN_KEYS: &str = r"(?x)
    (?-u:\b)(?:
        sk-[A-Za-z0-9_-]{16,}
      | (?:sk|pk|rk)_(?:live|test)_[A-Za-z0-9]{10,}
      | whsec_[A-Za-z0-9+/=]{20,}
      | gh[opusr]_[A-Za-z0-9]{20,}
      | github_pat_[A-Za-z0-9_]{20,}
      | gl(?:pat|rt|ptt|dt|ft)-[A-Za-z0-9_-]{16,}
      | (?:AKIA|ASIA|ABIA|ACCA)[A-Z0-9]{16}
      | AIza[A-Za-z0-9_-]{30,}
      | GOCSPX-[A-Za-z0-9_-]{20,}
      | ya29\.[A-Za-z0-9_-]{20,}
      | xox[abceoprs]-[A-Za-z0-9-]{10,}
      | xoxd-(?:[A-Za-z0-9/+=-]|%2[BFbf]|%3[Dd]){10,}
      | xapp-[A-Za-z0-9-]{10,}
      | hf_[A-Za-z0-9]{20,}
      | gsk_[A-Za-z0-9]{20,}
      | xai-[A-Za-z0-9]{20,}
      | pplx-[A-Za-z0-9]{20,}
      | r8_[A-Za-z0-9]{20,}
      | npm_[A-Za-z0-9]{30,}
      | pypi-[A-Za-z0-9_-]{30,}
      | dckr_pat_[A-Za-z0-9_-]{20,}
      | do[opr]_v1_[a-f0-9]{40,}
      | shp(?:at|ca|pa|ss)_[A-Fa-f0-9]{32,}
      | lin_api_[A-Za-z0-9]{30,}
      | ATATT3[A-Za-z0-9_=-]{30,}
      | SG\.[A-Za-z0-9_-]{16,}\.[A-Za-z0-9_-]{16,}
      | eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}(?:\.[A-Za-z0-9_-]*)?
    )";

/// What [`KNOWN_KEYS`] begin with: plain texts alone, which are looked for all at once.
const BEGINNINGS: &str = "sk-|sk_|pk_|rk_|whsec_|gho_|ghp_|ghu_|ghs_|ghr_|github_pat_|glpat-|glrt-|glptt-|gldt-|glft-|AKIA|ASIA\
    |ABIA|ACCA|AIza|GOCSPX-|ya29[.]|xoxa-|xoxb-|xoxc-|xoxd-|xoxe-|xoxo-|xoxp-|xoxr-|xoxs-|xapp-|hf_|gsk_|xai-|pplx-|r8_|npm_|pypi-\
    |dckr_pat_|doo_v1_|dop_v1_|dor_v1_|shpat_|shpca_|shppa_|shpss_|lin_api_|ATATT3|SG[.]|eyJ";

/// The token after `Bearer`, and what stands after `Basic`.
const CREDENTIALS: &str = r"(?x)
    (?i-u:\bbearer)(?-u:\s+)([A-Za-z0-9._~+/-]{16,}=*)
  | (?i-u:\bbasic)(?-u:\s+)([A-Za-z0-9+/_-]{4,}={0,2})";

/// What [`CREDENTIALS`] begins with.
const SCHEMES: &str = "(?i-u)bear|basi";

/// The secret part of a URL that takes messages for Slack or Discord.
const WEBHOOK: &str = r"(?x)
    hooks\.slack(?:-gov)?\.com/(?:services|workflows|triggers)/([A-Za-z0-9/_-]{16,})
  | discord(?:app)?\.com/api/webhooks/[0-9]+/([A-Za-z0-9_-]{30,})";

/// Most bytes of the last line of a private key in PEM, behind its `END`.
const MOST_LAST_LINE: usize = 40;

/// The first line of a private key in PEM.
const PRIVATE_KEY: &str = r"-----BEGIN [A-Z ]{0,20}PRIVATE KEY(?: BLOCK)?-----";

#[cfg(test)]
mod tests {
    use super::super::detector;
    use super::*;
    use proptest::prelude::*;

    fn found(text: &str) -> Vec<&str> {
        let keys = ApiKeys::new().expect("its regexes are right");
        detector::found(text, |text, hit| keys.find(text, true, hit))
    }

    #[test]
    fn keys_are_found_by_their_beginning_or_what_stands_before_them() {
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
            (
                format!("dop_v1_{hex}01234567").as_str(),
                &format!("dop_v1_{hex}01234567"),
            ),
            (
                "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==",
                "QWxhZGRpbjpvcGVuIHNlc2FtZQ==",
            ),
            (
                "https://hooks.slack.com/services/T00000000/B00000000/0123456789abcdef",
                "T00000000/B00000000/0123456789abcdef",
            ),
            ("postgres://app:s3cr3t!@db/x", "s3cr3t!"),
            (
                "-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY-----",
                "-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY-----",
            ),
            (
                "-----BEGIN PRIVATE KEY-----\nMIIE",
                "-----BEGIN PRIVATE KEY-----\nMIIE",
            ),
            (
                "{\"k\": \"-----BEGIN PRIVATE KEY-----\nMIIE\", \"a\": 1}",
                "-----BEGIN PRIVATE KEY-----\nMIIE",
            ),
            (
                "-----BEGIN PGP PRIVATE KEY BLOCK-----\nMIIE\n-----END PGP PRIVATE KEY BLOCK----- a",
                "-----BEGIN PGP PRIVATE KEY BLOCK-----\nMIIE\n-----END PGP PRIVATE KEY BLOCK-----",
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
            "bearer responsibilities",
            "basic understanding",
            "sk-loading-indicator-wrapper",
            "https://hooks.slack.com/services",
            "git hooks",
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
            "sk-[0-9][A-Za-z0-9_-]{15,19}",
            "(sk|pk|rk)_(live|test)_[A-Za-z0-9]{10,14}",
            "gh[opusr]_[A-Za-z0-9]{20,24}",
            "(github_pat_|hf_|gsk_|xai-|pplx-|r8_|dckr_pat_|whsec_|GOCSPX-)[A-Za-z0-9]{20,24}",
            "gl(pat|rt|ptt|dt|ft)-[A-Za-z0-9_-]{16,20}",
            "(AKIA|ASIA|ABIA|ACCA)[A-Z0-9]{16}",
            "(AIza|npm_|pypi-|lin_api_|ATATT3)[A-Za-z0-9]{30,34}",
            "ya29\\.[A-Za-z0-9_-]{20,24}",
            "xox[abcdeoprs]-[A-Za-z0-9-]{10,14}",
            "xapp-[A-Za-z0-9-]{10,14}",
            "do[opr]_v1_[a-f0-9]{40}",
            "shp(at|ca|pa|ss)_[a-f0-9]{32}",
            "SG\\.[A-Za-z0-9_-]{16,20}\\.[A-Za-z0-9_-]{16,20}",
            "eyJ[A-Za-z0-9_-]{8,12}\\.[A-Za-z0-9_-]{8,12}",
            "-----BEGIN (RSA )?PRIVATE KEY-----\n[A-Za-z0-9]{0,9}",
            "(https://)?hooks\\.slack\\.com/services/T[A-Z0-9]{8}/B[A-Z0-9]{8}/[A-Za-z0-9]{24}",
            "[bB][eE][aA][rR][eE][rR][ \n]{1,3}[0-9][A-Za-z0-9._~+/-]{16,20}=?",
            "[bB][aA][sS][iI][cC][ \n]{1,3}dXNlcj[p][A-Za-z0-9]",
            "[a-z]{0,3}://[a-z]{0,5}:[a-z]{3,6}@",
        ]) {
            let text = format!("{before}{key}");
            prop_assert!(!found(&text).is_empty(), "{}", text);
        }
    }
}
