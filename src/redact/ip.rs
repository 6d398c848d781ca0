//! Addresses of IP version 4 and 6. Versions of software look like the former, so what is called one is left alone.
use super::around::is_word;
use memchr::memchr;
use std::net::Ipv6Addr;
use std::ops::Range;

/// Longest text of an address.
const MOST_BYTES: usize = 45;

/// Hands the place of each to `hit`. One of version 4 at the end of one of version 6 comes a second time.
pub(super) fn find(text: &str, hit: &mut dyn FnMut(Range<usize>)) {
    for_each_run(
        text,
        b':',
        |byte| byte.is_ascii_hexdigit() || matches!(byte, b':' | b'.'),
        |run| {
            let address = v6_in(text, run);
            if !address.is_empty() && is_v6(&text[address.clone()]) && !followed_by_word(text, address.end) {
                hit(address);
            }
        },
    );
    for_each_run(
        text,
        b'.',
        |byte| byte.is_ascii_digit() || byte == b'.',
        |run| {
            let address = trimmed(text, run, '.');
            if is_v4(&text[address.clone()]) && is_free(text, &address) && !is_version(text, &address) {
                hit(address);
            }
        },
    );
}

/// Every longest row of such bytes that holds the mark, which is one of them and rare.
fn for_each_run(text: &str, mark: u8, is_part: impl Fn(u8) -> bool, mut see: impl FnMut(Range<usize>)) {
    let bytes = text.as_bytes();
    let mut at = 0;
    while let Some(next) = bytes.get(at..).and_then(|rest| memchr(mark, rest)) {
        let (before, behind) = (&bytes[at..at + next], &bytes[at + next..]);
        let begun = before.iter().rev().take_while(|byte| is_part(**byte)).count();
        let start = at + next - begun;
        at += next + behind.iter().take_while(|byte| is_part(**byte)).count();
        see(start..at);
    }
}

/// Without that mark of a sentence at its ends.
fn trimmed(text: &str, run: Range<usize>, mark: char) -> Range<usize> {
    let inner = text[run.clone()].trim_end_matches(mark);
    let end = run.start + inner.len();
    end - inner.trim_start_matches(mark).len()..end
}

/// The part of a run that may be an address: in `source:2001:db8::1.` the run begins amid the word.
fn v6_in(text: &str, run: Range<usize>) -> Range<usize> {
    let Range { mut start, end } = trimmed(text, run, '.');
    if text[..start].ends_with(is_word) {
        start = text[start..end].find(':').map_or(end, |colon| start + colon + 1);
    }
    let is_lone = |first: Option<&u8>, second: Option<&u8>| first == Some(&b':') && second != Some(&b':');
    let bytes = &text.as_bytes()[start..end];
    let cut_front = usize::from(is_lone(bytes.first(), bytes.get(1)));
    let mut from_behind = bytes.iter().rev();
    let cut_back = usize::from(is_lone(from_behind.next(), from_behind.next()));
    start + cut_front..end.saturating_sub(cut_back).max(start + cut_front)
}

/// An address in full, or with `::`, some digit, and enough of it to be more than an operator of some language.
fn is_v6(token: &str) -> bool {
    let is_one = token.len() <= MOST_BYTES && token.parse::<Ipv6Addr>().is_ok();
    let telling = token.bytes().filter(u8::is_ascii_hexdigit).count() >= 4;
    is_one && telling && token.bytes().any(|byte| byte.is_ascii_digit())
}

/// Four numbers up to 255 with dots between.
fn is_v4(token: &str) -> bool {
    let mut parts = token.split('.');
    token.len() <= MOST_BYTES
        && parts.by_ref().take(4).filter(|part| is_octet(part)).count() == 4
        && parts.next().is_none()
}

fn is_octet(part: &str) -> bool {
    (part == "0" || !part.starts_with('0')) && part.parse::<u8>().is_ok()
}

/// Whether it is a token of its own, and no part of `v1.2.3.4` or `app-1.2.3.4-beta.jar`.
fn is_free(text: &str, address: &Range<usize>) -> bool {
    let mut before = text[..address.start].chars().rev();
    let is_inside = match (before.next(), before.next()) {
        (Some('-'), Some(c)) => c.is_alphabetic(),
        (Some(c), _) => is_word(c),
        (None, _) => false,
    };
    !is_inside && !followed_by_word(text, address.end)
}

fn followed_by_word(text: &str, end: usize) -> bool {
    let mut after = text[end..].chars();
    match (after.next(), after.next()) {
        (Some('.' | '-'), Some(c)) => c.is_alphabetic(),
        (Some(c), _) => is_word(c),
        (None, _) => false,
    }
}

/// Whether what stands before it calls it a version: `version 1.2.3.4`, `build: 10.0.0.1`, `Chrome/120.0.0.0`.
fn is_version(text: &str, address: &Range<usize>) -> bool {
    let (before, address) = (&text[..address.start], &text[address.clone()]);
    let of_product = before
        .strip_suffix('/')
        .is_some_and(|name| name.ends_with(|c: char| c.is_ascii_alphabetic()));
    if of_product && address.ends_with(".0.0") {
        return true;
    }
    let word_end = before.trim_end_matches([' ', ':', '=', '"', '\'', '#']);
    let word = word_end
        .rsplit(|c: char| !c.is_ascii_alphabetic())
        .next()
        .unwrap_or_default();
    ["v", "ver", "version", "versions", "release", "build", "firmware"]
        .iter()
        .any(|name| word.eq_ignore_ascii_case(name))
}

#[cfg(test)]
mod tests {
    use super::super::detector;
    use super::*;

    fn found(text: &str) -> Vec<&str> {
        detector::found(text, find)
    }

    #[test]
    fn addresses_are_found_in_sentences_urls_and_lists() {
        for (text, addresses) in [
            ("10.0.0.1", vec!["10.0.0.1"]),
            ("from 203.0.113.7.", vec!["203.0.113.7"]),
            ("http://203.0.113.7:8080/x", vec!["203.0.113.7"]),
            ("10.0.0.0/8, 192.168.1.255", vec!["10.0.0.0", "192.168.1.255"]),
            ("localhost/127.0.0.1", vec!["127.0.0.1"]),
            ("2001:db8::1", vec!["2001:db8::1"]),
            ("[2001:db8::1]:443 said", vec!["2001:db8::1"]),
            ("at fe80::1%eth0:", vec!["fe80::1"]),
            (
                "2001:0db8:85a3:0000:0000:8a2e:0370:7334.",
                vec!["2001:0db8:85a3:0000:0000:8a2e:0370:7334"],
            ),
            (
                "::ffff:203.0.113.7 came",
                vec!["::ffff:203.0.113.7", "203.0.113.7"],
            ),
            ("source:203.0.113.7", vec!["203.0.113.7"]),
            ("source:2001:db8::1", vec!["2001:db8::1"]),
            ("10.0.0.1-10.0.0.5", vec!["10.0.0.1", "10.0.0.5"]),
            ("ip:203.0.113.7", vec!["203.0.113.7"]),
            ("ip=203.0.113.7", vec!["203.0.113.7"]),
        ] {
            assert_eq!(found(text), addresses, "{text}");
        }
    }

    #[test]
    fn versions_times_and_operators_are_no_addresses() {
        for text in [
            "version 1.2.3.4",
            "Version: 10.0.0.1",
            "build=10.0.0.1",
            "v1.2.3.4",
            "app-1.2.3.4.jar",
            "app-1.2.3.4",
            "1.2.3.4-beta",
            "Mozilla Chrome/120.0.0.0 Safari",
            "1.2.3",
            "1.2.3.4.5",
            "256.1.1.1",
            "01.02.03.04",
            "12:30:45",
            "std::vector",
            "a::b",
            "x :: y",
            "::",
            "::1",
            "00:1a:2b:3c:4d:5e",
            "face:b00c",
            "1.2.3.4x",
            "",
        ] {
            assert_eq!(found(text), Vec::<&str>::new(), "{text}");
        }
    }
}
