//! Names what went wrong below HTTP, from the chain of sources of a client error.

use crate::verdict::{Failure, FailureKind};
use std::error::Error;
use std::io::ErrorKind;

/// Longest description, in bytes.
const MAX_DETAIL_BYTES: usize = 300;

/// A fault before a reply's head was there.
pub(super) fn while_sending(err: &reqwest::Error) -> Failure {
    let kind = if err.is_dns() {
        FailureKind::Dns
    } else if err.is_connect() {
        if chain(err).any(is_tls) {
            FailureKind::Tls
        } else {
            FailureKind::Connect
        }
    } else if err.is_timeout() {
        FailureKind::Timeout
    } else if chain(err).any(is_closed) {
        FailureKind::Closed
    } else {
        FailureKind::Garbled
    };
    Failure {
        kind,
        detail: describe(err),
    }
}

/// A fault after the head: the reply has begun, so this is not a kept connection that went stale.
pub(super) fn while_reading(err: &reqwest::Error) -> Failure {
    let kind = if err.is_timeout() {
        FailureKind::Timeout
    } else {
        FailureKind::Garbled
    };
    Failure {
        kind,
        detail: describe(err),
    }
}

/// The causes, outermost first, without the URL (it may hold a password) and each said once.
pub(super) fn describe(err: &reqwest::Error) -> String {
    // reqwest's own text holds the URL; what it adds beyond that is told by the causes.
    let mut text = String::new();
    for cause in chain(err).skip(1) {
        let cause = cause.to_string();
        if !text.contains(&cause) {
            if !text.is_empty() {
                text.push_str(": ");
            }
            text.push_str(&cause);
        }
    }
    if text.is_empty() {
        text = if err.is_timeout() {
            "time ran out".into()
        } else {
            "the request failed".into()
        };
    }
    bounded(without_userinfo(&text))
}

fn chain(err: &reqwest::Error) -> impl Iterator<Item = &(dyn Error + 'static)> {
    let first: &(dyn Error + 'static) = err;
    std::iter::successors(Some(first), |&err| err.source())
}

/// TLS faults arrive as I/O errors of two kinds, whose text is all there is to tell them by.
fn is_tls(err: &(dyn Error + 'static)) -> bool {
    let text = err.to_string().to_ascii_lowercase();
    [
        "certificate",
        "tls",
        "handshake",
        "fatal alert",
        "corrupt message",
    ]
    .iter()
    .any(|word| text.contains(word))
}

fn is_closed(err: &(dyn Error + 'static)) -> bool {
    if let Some(err) = err.downcast_ref::<hyper::Error>() {
        return err.is_incomplete_message()
            || err.is_closed()
            || err.is_canceled()
            || err.is_body_write_aborted();
    }
    err.downcast_ref::<std::io::Error>().is_some_and(|err| {
        matches!(
            err.kind(),
            ErrorKind::ConnectionReset
                | ErrorKind::ConnectionAborted
                | ErrorKind::BrokenPipe
                | ErrorKind::NotConnected
                | ErrorKind::UnexpectedEof
        )
    })
}

/// Cuts `user:password@` out of every URL in the text.
fn without_userinfo(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find("://") {
        let (head, tail) = rest.split_at(start + 3);
        out.push_str(head);
        let end = tail.find(['/', ' ', '?', '#', '"', ')']).unwrap_or(tail.len());
        rest = tail[..end].rfind('@').map_or(tail, |at| &tail[at + 1..]);
    }
    out + rest
}

fn bounded(mut text: String) -> String {
    if text.len() > MAX_DETAIL_BYTES {
        text.truncate(text.floor_char_boundary(MAX_DETAIL_BYTES));
        text.push_str("...");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_description_keeps_no_password_and_stays_short() {
        assert_eq!(
            without_userinfo("proxy http://u:p@h:1/x and a@b"),
            "proxy http://h:1/x and a@b"
        );
        assert_eq!(without_userinfo("https://h/a@b"), "https://h/a@b");
        assert_eq!(without_userinfo("x://"), "x://");
        assert!(bounded("é".repeat(400)).len() <= MAX_DETAIL_BYTES + 3);
    }
}
