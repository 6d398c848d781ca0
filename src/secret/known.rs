//! Every secret that the daemon holds, in one place, to be masked wherever it turns up in words.
//!
//! What an upstream or a proxy answers can hold the headers that it got. So all words from there pass
//! [`Secrets::mask_bytes`] before anybody sees them. What the daemon prints of its own passes as well: an application
//! can be configured so that its key stands where its project belongs.
//!
//! A secret is found as it is, in base64 (alone or within a longer text), and behind percent-coding and the escapes of
//! JSON and HTML, up to [`ROUNDS`] of them around each other. One that was cut, hashed or compressed is not found.

use super::Secret;
use aho_corasick::{AhoCorasick, MatchKind};
use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt;
use std::ops::Range;
use std::sync::{Arc, PoisonError, RwLock};

/// Shorter secrets are not looked for: they would be found in ordinary words.
const LEAST_BYTES: usize = 6;
/// How many escapes around each other are undone.
const ROUNDS: usize = 3;
/// Most secrets that are remembered from before a reload.
const MOST_FORMER: usize = 1_024;
/// What stands in a secret's place.
const MASK: &str = "***";
/// Words by which an answer of the API is understood. A secret that is a part of one is no secret.
const PROTOCOL: [&str; 2] = ["\"detail\"", "Not Found"];

/// All secrets that are known. Clones are the same; a reload adds to them.
#[derive(Clone, Default)]
pub struct Secrets(Arc<RwLock<Arc<Known>>>);

#[derive(Default)]
struct Known {
    secrets: Vec<Secret>,
    /// `None` while there is nothing to look for.
    finder: Option<AhoCorasick>,
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secrets(***)")
    }
}

impl Secrets {
    /// Adds secrets. Former ones stay known, because an answer to a request with one of them may still come.
    pub fn learn(&self, secrets: impl IntoIterator<Item = Secret>) {
        let mut all: Vec<Secret> = Vec::new();
        for secret in secrets {
            if !all.contains(&secret) {
                all.push(secret);
            }
        }
        let former = self.known();
        let more = former.secrets.iter().filter(|secret| !all.contains(secret));
        let more: Vec<Secret> = more.take(MOST_FORMER).cloned().collect();
        if all.iter().all(|secret| former.secrets.contains(secret)) {
            return;
        }
        all.extend(more);
        let finder = finder(&all);
        let known = Arc::new(Known { secrets: all, finder });
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = known;
    }

    fn known(&self) -> Arc<Known> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The text with every secret masked.
    pub fn mask<'a>(&self, text: &'a str) -> Cow<'a, str> {
        match self.mask_bytes(text.as_bytes()) {
            Cow::Borrowed(_) => Cow::Borrowed(text),
            Cow::Owned(bytes) => Cow::Owned(String::from_utf8_lossy(&bytes).into_owned()),
        }
    }

    /// The same for any bytes.
    pub fn mask_bytes<'a>(&self, text: &'a [u8]) -> Cow<'a, [u8]> {
        let known = self.known();
        let Some(finder) = &known.finder else {
            return Cow::Borrowed(text);
        };
        let mut found = all_in(finder, text);
        let mut view = View::of(text);
        for _ in 0..ROUNDS {
            let Some(inner) = view.decoded() else { break };
            found.extend(
                all_in(finder, &inner.bytes)
                    .into_iter()
                    .map(|span| inner.origin(span)),
            );
            view = inner;
        }
        if found.is_empty() {
            return Cow::Borrowed(text);
        }
        found.sort_unstable_by_key(|span| (span.start, span.end));
        Cow::Owned(without(text, &found))
    }
}

/// The text with the ranges, which are in order, replaced. Those that overlap are one.
fn without(text: &[u8], ranges: &[Range<usize>]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut done = 0;
    for (at, range) in ranges.iter().enumerate() {
        if at == 0 || range.start >= done {
            out.extend_from_slice(text.get(done..range.start).unwrap_or_default());
            out.extend_from_slice(MASK.as_bytes());
        }
        done = done.max(range.end);
    }
    out.extend_from_slice(text.get(done..).unwrap_or_default());
    out
}

fn all_in(finder: &AhoCorasick, text: &[u8]) -> Vec<Range<usize>> {
    finder.find_iter(text).map(|found| found.range()).collect()
}

fn finder(secrets: &[Secret]) -> Option<AhoCorasick> {
    let mut forms: BTreeSet<Vec<u8>> = BTreeSet::new();
    for secret in secrets {
        let text = secret.expose();
        if text.len() < LEAST_BYTES || PROTOCOL.iter().any(|word| word.contains(text)) {
            continue;
        }
        forms.insert(text.as_bytes().to_vec());
        for lead in 0..3 {
            let coded = core_of_base64(text.as_bytes(), lead);
            let url_safe = coded.iter().map(|byte| match byte {
                b'+' => b'-',
                b'/' => b'_',
                byte => *byte,
            });
            forms.insert(url_safe.collect());
            forms.insert(coded);
        }
    }
    if forms.is_empty() {
        return None;
    }
    // Only absurdly many patterns are an error.
    AhoCorasick::builder()
        .match_kind(MatchKind::LeftmostLongest)
        .build(&forms)
        .ok()
}

/// The characters of base64 that a text has wherever it is coded behind `lead` other bytes (modulo 3), whatever they are
/// and whatever follows.
fn core_of_base64(text: &[u8], lead: usize) -> Vec<u8> {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let bit = |at: usize| {
        let byte = at / 8;
        text.get(byte.wrapping_sub(lead))
            .map_or(0, |value| usize::from(value >> (7 - at % 8) & 1))
    };
    let (first, end) = ((lead * 8).div_ceil(6), (lead + text.len()) * 8 / 6);
    (first..end)
        .filter_map(|at| {
            let value = (at * 6..at * 6 + 6).fold(0, |value, at| value << 1 | bit(at));
            ALPHABET.get(value).copied()
        })
        .collect()
}

/// A text behind some rounds of escapes, and where each of its bytes came from.
struct View<'a> {
    bytes: Cow<'a, [u8]>,
    /// The ends in the first text of each byte, and its beginning. `None`: this is the first text.
    from: Option<Vec<(usize, usize)>>,
}

impl<'a> View<'a> {
    fn of(text: &'a [u8]) -> Self {
        View {
            bytes: Cow::Borrowed(text),
            from: None,
        }
    }

    fn origin(&self, span: Range<usize>) -> Range<usize> {
        let Some(from) = &self.from else { return span };
        let start = from.get(span.start).map_or(0, |(start, _)| *start);
        let end = span.end.checked_sub(1).and_then(|last| from.get(last));
        start..end.map_or(start, |(_, end)| *end)
    }

    /// The text with one round of escapes undone; `None` if it has none.
    fn decoded(&self) -> Option<View<'static>> {
        memchr::memchr3(b'%', b'\\', b'&', &self.bytes)?;
        let (mut bytes, mut from) = (Vec::with_capacity(self.bytes.len()), Vec::new());
        let (mut at, mut changed) = (0, false);
        while let Some(rest) = self.bytes.get(at..).filter(|rest| !rest.is_empty()) {
            let (plain, length) = match escape(rest) {
                Some((plain, length)) => {
                    changed = true;
                    (plain, length)
                }
                None => (u32::from(rest[0]), 1),
            };
            let span = self.origin(at..at + length);
            let mut push = |byte: u8| {
                bytes.push(byte);
                from.push((span.start, span.end));
            };
            match (length, char::from_u32(plain)) {
                // A byte as it was, or one that was percent-coded: such bytes may be parts of a character.
                _ if plain < 0x80 || length == 1 || rest[0] == b'%' => push(plain as u8),
                (_, Some(c)) => c.encode_utf8(&mut [0; 4]).bytes().for_each(push),
                (_, None) => push(b'?'),
            }
            at += length;
        }
        changed.then_some(View {
            bytes: Cow::Owned(bytes),
            from: Some(from),
        })
    }
}

/// What an escape at the beginning of a text stands for, and its length.
fn escape(text: &[u8]) -> Option<(u32, usize)> {
    let number = |digits: &[u8], radix| {
        let digits = std::str::from_utf8(digits).ok()?;
        let sound = digits.bytes().all(|byte| byte.is_ascii_alphanumeric());
        sound.then(|| u32::from_str_radix(digits, radix).ok()).flatten()
    };
    match text {
        [b'%', ..] => Some((number(text.get(1..3)?, 16)?, 3)),
        [b'\\', b'u', ..] => Some((number(text.get(2..6)?, 16)?, 6)),
        [b'\\', b'x', ..] => Some((number(text.get(2..4)?, 16)?, 4)),
        [b'\\', c @ (b'\\' | b'/' | b'"' | b'\''), ..] => Some((u32::from(*c), 2)),
        [b'&', b'#', ..] => {
            let end = 2 + text.get(2..)?.iter().take(8).position(|byte| *byte == b';')?;
            let number = match text.get(2..end)? {
                [b'x' | b'X', hex @ ..] => number(hex, 16)?,
                decimal => number(decimal, 10)?,
            };
            Some((number, end + 1))
        }
        [b'&', ..] => [("&amp;", b'&'), ("&quot;", b'"'), ("&lt;", b'<'), ("&gt;", b'>')]
            .iter()
            .find(|(name, _)| text.starts_with(name.as_bytes()))
            .map(|(name, c)| (u32::from(*c), name.len())),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const KEY: &str = "sk-canary/4f1d+9a7c=2é";

    fn knowing(secrets: &[&str]) -> Secrets {
        let known = Secrets::default();
        known.learn(secrets.iter().filter_map(|text| Secret::new(text)));
        known
    }

    fn percent(text: &str) -> String {
        text.bytes().map(|byte| format!("%{byte:02x}")).collect()
    }

    fn base64(text: &[u8]) -> String {
        let mut coded = core_of_base64(text, 0);
        if !text.len().is_multiple_of(3) {
            let filled = [text, &[0; 2]].concat();
            coded = core_of_base64(&filled[..text.len().next_multiple_of(3)], 0);
            coded.truncate(text.len() * 8 / 6 + 1);
        }
        String::from_utf8(coded).expect("ASCII")
    }

    #[test]
    fn a_secret_is_masked_however_an_answer_writes_it() {
        let known = knowing(&[KEY]);
        let json = serde_json::to_string(KEY).expect("text");
        let escaped: String = KEY.chars().map(|c| format!("\\u{:04X}", u32::from(c))).collect();
        let html: String = KEY.chars().map(|c| format!("&#x{:x};", u32::from(c))).collect();
        let decimal: String = KEY.chars().map(|c| format!("&#{};", u32::from(c))).collect();
        let slashes = KEY.replace('/', "\\/");
        let twice = percent(&percent(KEY));
        let nested = serde_json::to_string(&json).expect("text");
        for form in [
            KEY,
            json.trim_matches('"'),
            &escaped,
            &html,
            &decimal,
            &slashes,
            &percent(KEY),
            &percent(KEY).to_uppercase(),
            &twice,
            nested.trim_matches(['"', '\\']),
        ] {
            let said = format!("got Bearer {form}; good bye");
            assert_eq!(known.mask(&said), "got Bearer ***; good bye", "{form}");
        }
    }

    #[test]
    fn base64_is_found_wherever_the_secret_begins_in_what_is_coded() {
        assert_eq!(base64(b"Man"), "TWFu");
        assert_eq!(base64(b"user:pass"), "dXNlcjpwYXNz");
        assert_eq!(base64(b"light w"), "bGlnaHQgdw");
        let known = knowing(&[KEY]);
        for (before, after) in [
            ("", ""),
            ("a", "b"),
            ("ab", ""),
            ("Bearer ", "\n"),
            ("user:", "xyz"),
        ] {
            let coded = base64(format!("{before}{KEY}{after}").as_bytes());
            for coded in [coded.clone(), coded.replace('+', "-").replace('/', "_")] {
                let masked = known.mask(&coded).into_owned();
                assert!(masked.contains("***"), "{before:?} {after:?}: {masked}");
                let left = masked.replace("***", "").len();
                assert!(
                    left <= base64(format!("{before}{after}").as_bytes()).len() + 4,
                    "{masked}"
                );
            }
        }
    }

    #[test]
    fn base64_is_found_behind_percent_coding() {
        let coded = percent(&base64(KEY.as_bytes()));
        let masked = knowing(&[KEY]).mask(&coded).into_owned();
        // What is coded last depends on what follows.
        assert!(
            masked.starts_with("***") && masked.len() <= "***%6b".len(),
            "{masked}"
        );
    }

    #[test]
    fn several_secrets_and_several_finds_are_masked_and_the_rest_stays() {
        let known = knowing(&["first-key", "second-key", "key-second"]);
        assert_eq!(
            known.mask("first-key, second-key-second and first-ke"),
            "***, ***-second and first-ke"
        );
        assert!(matches!(
            known.mask("nothing %41 \\u0041 &#65; here"),
            Cow::Borrowed(_)
        ));
        assert_eq!(
            known.mask_bytes(b"\xff first-key \xfe").as_ref(),
            b"\xff *** \xfe"
        );
    }

    #[test]
    fn what_is_too_short_or_a_word_of_the_protocol_is_not_looked_for() {
        let known = knowing(&["any", "detail", "Found"]);
        let said = r#"{"detail":"Not Found"} for any"#;
        assert_eq!(known.mask(said), said);
    }

    #[test]
    fn former_secrets_stay_known_and_nothing_prints_them() {
        let known = knowing(&["first-key"]);
        let other = known.clone();
        other.learn(Secret::new("second-key"));
        assert_eq!(known.mask("first-key second-key"), "*** ***");
        assert_eq!(format!("{known:?}"), "Secrets(***)");
        for n in 0..2 * MOST_FORMER {
            other.learn(Secret::new(&format!("key number {n}")));
        }
        assert!(known.known().secrets.len() <= MOST_FORMER + 1);
    }

    proptest! {
        #[test]
        fn no_bytes_make_masking_panic_and_no_secret_is_left(
            parts in prop::collection::vec(
                prop_oneof![
                    Just(KEY.to_owned()), Just(percent(KEY)), Just("%".to_owned()), Just("\\u00".to_owned()),
                    Just("&#".to_owned()), "[%\\\\&#;x0-9a-fé]{0,12}", Just(base64(KEY.as_bytes())),
                ],
                0..12,
            ),
        ) {
            let known = knowing(&[KEY]);
            let masked = known.mask(&parts.concat()).into_owned();
            prop_assert!(!masked.contains(KEY) && !masked.contains(&percent(KEY)), "{}", masked);
        }
    }
}
