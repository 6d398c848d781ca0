//! Passwords in URLs: `https://user:password@host`, also those that hold an `@` or a `/`.
use super::steps;
use memchr::memmem;
use std::ops::Range;

/// Hands the place of each to `hit`.
pub(super) fn find(text: &str, hit: &mut dyn FnMut(Range<usize>)) {
    let mut begins = memmem::find_iter(text.as_bytes(), b"://")
        .map(|at| at + 3)
        .peekable();
    while let Some(start) = begins.next() {
        // What belongs to the next URL is not read twice.
        let end = begins.peek().map_or(text.len(), |next| next - 3);
        if let Some(rest) = text.get(start..end)
            && let Some(place) = password(rest, end < text.len())
        {
            hit(start + place.start..start + place.end);
        }
    }
}

/// The place of the password in what stands behind `://`. Up to where the next URL begins, whose
/// scheme is cut off if `is_cut`.
fn password(rest: &str, is_cut: bool) -> Option<Range<usize>> {
    let ends = |c: char| c.is_whitespace() || matches!(c, '"' | '<' | '>' | '`');
    let mut url = rest.split(ends).next()?;
    steps::add(url.len());
    if is_cut && url.len() == rest.len() {
        url = url.trim_end_matches(|c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'));
    }
    // A quote that is coded ends it too.
    let url = url.split("u0022").next()?;
    let colon = url.find([':', '/', '@'])?;
    let password = url.get(colon..)?.strip_prefix(':')?;
    let slash = password.find('/').unwrap_or(password.len());
    let at = password.find('@')?;
    // Digits up to a slash are a port, and what comes behind is a path.
    if slash < at && password[..slash].bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    // The last sign before a query may be the one before the host: the others are then of the password.
    let reach = password.find(['?', '#', '\'']).unwrap_or(password.len());
    let end = match password[..reach].rfind('@') {
        Some(last) => last,
        None if at < slash => at,
        None => return None,
    };
    (end > 0).then(|| colon + 1..colon + 1 + end)
}

#[cfg(test)]
mod tests {
    use super::super::detector;
    use super::*;

    fn found(text: &str) -> Vec<&str> {
        detector::found(text, find)
    }

    #[test]
    fn passwords_are_found_whatever_is_in_them() {
        for (text, passwords) in [
            ("postgres://app:s3cr3t!@db/x", vec!["s3cr3t!"]),
            ("postgres://app:p@ss@db:5432/x", vec!["p@ss"]),
            ("postgres://app:p/ss@db", vec!["p/ss"]),
            (
                "see postgres://app:p@s/s@w0rd@db.example/x, it",
                vec!["p@s/s@w0rd"],
            ),
            ("amqp://a:p%40s%2Fs@mq", vec!["p%40s%2Fs"]),
            ("redis://:only@r", vec!["only"]),
            ("a://b:c@d", vec!["c"]),
            ("https://u:p@h/x?mail=a@b.co", vec!["p"]),
            ("https://u:p?q#r@h", vec!["p?q#r"]),
            ("'https://u:it's@h','x@y'", vec!["it's"]),
            (
                "u1=redis://u:p1@h1,redis://u:p2@h2 <ftp://x:y@z>",
                vec!["p1", "p2", "y"],
            ),
            ("http://a/b http://u:é@h", vec!["é"]),
        ] {
            assert_eq!(found(text), passwords, "{text}");
        }
    }

    #[test]
    fn ports_paths_and_names_alone_are_no_passwords() {
        for text in [
            "https://example.com:8080/x@y",
            "https://example.com/a:b@c",
            "http://localhost:3000/@user",
            "https://bob@example.com",
            "https://bob:@example.com",
            "http://host:/x@y",
            "https://h:80 x@y",
            "https://example.com:443",
            "://",
        ] {
            assert_eq!(found(text), Vec::<&str>::new(), "{text}");
        }
    }
}
