//! The built-in detectors: what each finds, and what a text must have at least for it to look at all.
use super::api_key::ApiKeys;
use super::{card, iban, ip, named, phone};
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
    /// Keys of well-known services, bearer tokens, JWTs, private keys, passwords in URLs, and what
    /// is called a key, a token or a password, in a text or as a member of an object.
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
    ApiKey(Box<ApiKeys>),
    Own(Regex),
}

/// A string as a detector sees it.
#[derive(Debug, Clone, Copy)]
pub(super) struct View<'t> {
    /// What is looked at.
    pub(super) text: &'t str,
    /// The text before its escapes were read, or the same if it has none. `None` where another
    /// view has them read.
    pub(super) source: Option<&'t str>,
}

/// What a text holds, so that most detectors need not look at most texts.
#[derive(Debug, Clone, Copy)]
pub(super) struct Traits {
    digits: usize,
}

impl Traits {
    pub(super) fn of(text: &str) -> Self {
        // In parts of which a byte can hold the count, so that many are counted at once.
        let count = |part: &[u8]| {
            part.iter()
                .map(|byte| u8::from(byte.is_ascii_digit()))
                .sum::<u8>()
        };
        let parts = text.as_bytes().chunks(usize::from(u8::MAX));
        Self {
            digits: parts.map(|part| usize::from(count(part))).sum(),
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
            Detector::ApiKey => Finder::ApiKey(Box::new(ApiKeys::new()?)),
        })
    }

    /// Hands the place of each find to `hit`; two may overlap. An own regex is asked for just over `most`: with some, each
    /// find can take as long as the text.
    pub(super) fn find(
        &self,
        view: View<'_>,
        traits: Traits,
        most: usize,
        hit: &mut dyn FnMut(Range<usize>),
    ) {
        let text = view.text;
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
            Finder::ApiKey(keys) => {
                keys.find(text, view.source.is_some(), hit);
                if let Some(source) = view.source {
                    named::find(text, source, hit);
                }
            }
            Finder::Own(regex) => {
                let finds = regex.find_iter(text).take(most.saturating_add(1));
                finds.for_each(|found| hit(found.range()));
            }
        }
    }
}

/// Letters of Latin, Greek and Cyrillic count, those of scripts that part no words by blanks do not: whole sentences would.
const EMAIL: &str = r"(?x)
    [A-Za-z0-9_+\x{C0}-\x{24F}\x{370}-\x{52F}] [A-Za-z0-9._%+'&\x{C0}-\x{24F}\x{370}-\x{52F}-]* (?:@|%40)
    (?:[A-Za-z0-9\x{C0}-\x{24F}\x{370}-\x{52F}-]+\.)+
    (?:xn--[A-Za-z0-9-]+ | [A-Za-z\x{C0}-\x{24F}\x{370}-\x{52F}]{2,24})";

/// Every find of a function in a text, for tests.
#[cfg(test)]
pub(super) fn found(text: &str, find: impl FnOnce(&str, &mut dyn FnMut(Range<usize>))) -> Vec<&str> {
    let mut hits = Vec::new();
    find(text, &mut |range| hits.push(&text[range]));
    hits
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(detector: Detector, text: &str) -> Vec<&str> {
        let finder = Finder::of(detector).expect("its regexes are right");
        let mut hits = Vec::new();
        let view = View {
            text,
            source: Some(text),
        };
        finder.find(view, Traits::of(text), 100, &mut |range| hits.push(&text[range]));
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
}
