//! The built-in detectors: what each finds, and what a text must have at least for it to look at all.
use super::{card, iban, ip, phone};
use memchr::{memchr, memmem};
use regex::Regex;
use std::ops::Range;

/// A built-in detector.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Detector {
    /// E-mail addresses.
    Email,
    /// Telephone numbers with a country code or in a telling national form.
    Phone,
    /// Card numbers whose check digit (Luhn) is right.
    CreditCard,
    /// Keys of well-known services, bearer tokens, JWTs, private keys, passwords in URLs, `api_key = ...`.
    ApiKey,
    /// International bank account numbers whose remainder (mod 97) is right.
    Iban,
    /// IP addresses of version 4 and 6.
    Ip,
}

impl Detector {
    /// All there are.
    pub const ALL: [Detector; 6] = [
        Detector::Email,
        Detector::Phone,
        Detector::CreditCard,
        Detector::ApiKey,
        Detector::Iban,
        Detector::Ip,
    ];

    /// Its name in the configuration, in marks and in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Detector::Email => "email",
            Detector::Phone => "phone",
            Detector::CreditCard => "credit_card",
            Detector::ApiKey => "api_key",
            Detector::Iban => "iban",
            Detector::Ip => "ip",
        }
    }

    /// The one with that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|detector| detector.name() == name)
    }
}

/// What finds: a detector's code or regexes.
#[derive(Debug, Clone)]
pub(super) enum Finder {
    Phone,
    CreditCard,
    Iban,
    Ip,
    Email(Regex),
    /// Where a regex has groups, the first that took part is the find.
    ApiKey(Vec<Regex>),
    Own(Regex),
}

/// What a text holds, so that most detectors need not look at most texts.
#[derive(Debug, Clone, Copy)]
pub(super) struct Traits {
    digits: usize,
}

impl Traits {
    pub(super) fn of(text: &str) -> Self {
        Self {
            digits: text.bytes().filter(u8::is_ascii_digit).count(),
        }
    }
}

impl Finder {
    pub(super) fn of(detector: Detector) -> Result<Self, regex::Error> {
        Ok(match detector {
            Detector::Phone => Finder::Phone,
            Detector::CreditCard => Finder::CreditCard,
            Detector::Iban => Finder::Iban,
            Detector::Ip => Finder::Ip,
            Detector::Email => Finder::Email(Regex::new(EMAIL)?),
            Detector::ApiKey => {
                let sources = [KNOWN_KEYS, BEARER, NAMED_KEYS, URL_PASSWORD];
                Finder::ApiKey(sources.map(Regex::new).into_iter().collect::<Result<_, _>>()?)
            }
        })
    }

    /// Hands the place of each find to `hit`; two may overlap. An own regex is asked for just over `most`: with some, each
    /// find can take as long as the text.
    pub(super) fn find(&self, text: &str, traits: Traits, most: usize, hit: &mut dyn FnMut(Range<usize>)) {
        match self {
            Finder::Phone if traits.digits >= phone::FEWEST_DIGITS => phone::find(text, hit),
            Finder::CreditCard if traits.digits >= card::FEWEST_DIGITS => card::find(text, hit),
            Finder::Iban if traits.digits >= iban::FEWEST_DIGITS => iban::find(text, hit),
            Finder::Ip if traits.digits > 0 => ip::find(text, hit),
            Finder::Phone | Finder::CreditCard | Finder::Iban | Finder::Ip => {}
            Finder::Email(regex) => {
                if memchr(b'@', text.as_bytes()).is_some() || memmem::find(text.as_bytes(), b"%40").is_some()
                {
                    regex.find_iter(text).for_each(|found| hit(found.range()));
                }
            }
            Finder::ApiKey(regexes) => regexes.iter().for_each(|regex| find_groups(regex, text, hit)),
            Finder::Own(regex) => {
                let finds = regex.find_iter(text).take(most.saturating_add(1));
                finds.for_each(|found| hit(found.range()));
            }
        }
    }
}

fn find_groups(regex: &Regex, text: &str, hit: &mut dyn FnMut(Range<usize>)) {
    for found in regex.captures_iter(text) {
        let telling = found.iter().skip(1).flatten().next().or_else(|| found.get(0));
        if let Some(telling) = telling {
            hit(telling.range());
        }
    }
}

/// Letters of Latin, Greek and Cyrillic count, those of scripts that part no words by blanks do not: whole sentences would.
const EMAIL: &str = r"(?x)
    [A-Za-z0-9_+\x{C0}-\x{24F}\x{370}-\x{52F}] [A-Za-z0-9._%+'&\x{C0}-\x{24F}\x{370}-\x{52F}-]* (?:@|%40)
    (?:[A-Za-z0-9\x{C0}-\x{24F}\x{370}-\x{52F}-]+\.)+
    (?:xn--[A-Za-z0-9-]+ | [A-Za-z\x{C0}-\x{24F}\x{370}-\x{52F}]{2,24})";

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

#[cfg(test)]
mod tests {
    use super::*;

    fn found(detector: Detector, text: &str) -> Vec<&str> {
        let finder = Finder::of(detector).expect("its regexes are right");
        let mut hits = Vec::new();
        finder.find(text, Traits::of(text), 100, &mut |range| hits.push(&text[range]));
        hits
    }

    #[test]
    fn every_detector_has_a_name_of_its_own() {
        for detector in Detector::ALL {
            assert_eq!(Detector::from_name(detector.name()), Some(detector));
        }
        assert_eq!(Detector::from_name("all"), None);
    }

    #[test]
    fn emails_are_found_in_sentences_headers_and_urls() {
        for (text, email) in [
            ("write to bob@example.com.", "bob@example.com"),
            (
                "<bob.o'hara+tag@mail.example.co.uk>",
                "bob.o'hara+tag@mail.example.co.uk",
            ),
            ("mailto:bob@example.com?subject=x", "bob@example.com"),
            ("'bob@example.com'", "bob@example.com"),
            ("?to=bob%40example.com&x", "bob%40example.com"),
            ("jürgen@müller.de", "jürgen@müller.de"),
            ("a@b.co", "a@b.co"),
            ("邮箱bob@example.com。", "bob@example.com"),
            ("x@xn--bcher-kva.example", "x@xn--bcher-kva.example"),
        ] {
            assert_eq!(found(Detector::Email, text), [email], "{text}");
        }
    }

    #[test]
    fn what_only_has_an_at_is_no_email() {
        for text in [
            "bob@localhost",
            "react@18.2.0",
            "@bob",
            "a @ b.co",
            "bob@.com",
            "50% @ 40%",
            "bob at example.com",
        ] {
            assert_eq!(found(Detector::Email, text), Vec::<&str>::new(), "{text}");
        }
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
            assert_eq!(found(Detector::ApiKey, text), [key], "{text}");
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
            assert_eq!(found(Detector::ApiKey, text), Vec::<&str>::new(), "{text}");
        }
    }
}
