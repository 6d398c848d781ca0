//! Who may call (security.md): by Host, by token, and not from a web page. Pure.

use super::reply::{Refused, detail};
use super::{Guard, Transport};
use crate::secret::Secret;
use hyper::header::{AUTHORIZATION, HOST, HeaderMap, HeaderValue, ORIGIN, WWW_AUTHENTICATE};
use hyper::{StatusCode, Uri};

/// What a caller must show.
#[derive(Debug, Clone, Default)]
pub struct Gate {
    /// Bearer token of every request over TCP but health checks. Default none.
    pub token: Option<Secret>,
}

impl Gate {
    /// Refuses a request whatever its route is: over TCP it must name this machine by a local name.
    pub(super) fn check_host(
        &self,
        transport: Transport,
        uri: &Uri,
        headers: &HeaderMap,
    ) -> Result<(), Refused> {
        if transport == Transport::Unix {
            return Ok(());
        }
        let mut hosts = headers.get_all(HOST).iter();
        let (Some(host), None) = (hosts.next(), hosts.next()) else {
            return Err(refused(
                StatusCode::BAD_REQUEST,
                "the request must have exactly one Host header, such as \"Host: localhost\"",
            ));
        };
        // The host of an absolute URL outranks the header, so both must be local.
        let absolute = uri.authority().map(|authority| authority.as_str().as_bytes());
        for name in [Some(host.as_bytes()), absolute].into_iter().flatten() {
            if !is_local(name) {
                let sentence = format!(
                    "the host {:?} is not served here: call 127.0.0.1, localhost or [::1], or the Unix socket",
                    String::from_utf8_lossy(name)
                );
                return Err(refused(StatusCode::FORBIDDEN, &sentence));
            }
        }
        Ok(())
    }

    /// Refuses a caller whom the route is not for.
    pub(super) fn check_route(
        &self,
        guard: Guard,
        transport: Transport,
        headers: &HeaderMap,
    ) -> Result<(), Refused> {
        if guard == Guard::Write && headers.contains_key(ORIGIN) {
            return Err(refused(
                StatusCode::FORBIDDEN,
                "requests from web pages (with an Origin header) are refused: send from the server side of the app",
            ));
        }
        if transport == Transport::Unix {
            return Ok(());
        }
        if guard == Guard::UnixOnly {
            return Err(refused(
                StatusCode::FORBIDDEN,
                "this route shows what clients sent, so it is on the Unix socket only: call it with curl --unix-socket PATH",
            ));
        }
        match &self.token {
            Some(token) if guard != Guard::Open => check_token(token, headers),
            _ => Ok(()),
        }
    }
}

fn refused(status: StatusCode, sentence: &str) -> Refused {
    Box::new(detail(status, sentence))
}

fn check_token(token: &Secret, headers: &HeaderMap) -> Result<(), Refused> {
    let given = headers
        .get(AUTHORIZATION)
        .map(HeaderValue::as_bytes)
        .and_then(bearer);
    if given.is_some_and(|given| token.matches(given)) {
        return Ok(());
    }
    let mut reply = detail(
        StatusCode::UNAUTHORIZED,
        "a token is required over TCP: send \"Authorization: Bearer TOKEN\" with the content of the file that \
         intake.token_file names, or use the Unix socket",
    );
    reply
        .headers_mut()
        .insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    Err(Box::new(reply))
}

/// The token of an `Authorization: Bearer` header; the scheme's case does not matter (RFC 7235).
fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = value.split_at_checked(7)?;
    scheme
        .eq_ignore_ascii_case(b"bearer ")
        .then(|| token.trim_ascii())
}

/// Whether a Host, with or without a port, is a loopback name.
fn is_local(host: &[u8]) -> bool {
    let host = host.to_ascii_lowercase();
    [&b"127.0.0.1"[..], b"localhost", b"[::1]"].iter().any(|name| {
        host.strip_prefix(*name).is_some_and(|rest| match rest {
            [] => true,
            [b':', port @ ..] => port.iter().all(u8::is_ascii_digit),
            _ => false,
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            map.append(*name, HeaderValue::from_static(value));
        }
        map
    }

    fn host_status(uri: &str, pairs: &[(&'static str, &'static str)]) -> Option<u16> {
        let uri = uri.parse().expect("a URI");
        let checked = Gate::default().check_host(Transport::Tcp, &uri, &headers(pairs));
        checked.err().map(|reply| reply.status().as_u16())
    }

    #[test]
    fn only_one_local_host_is_served_over_tcp() {
        for host in [
            "localhost",
            "LOCALHOST:4710",
            "127.0.0.1",
            "127.0.0.1:80",
            "[::1]",
            "[::1]:4710",
        ] {
            assert_eq!(host_status("/log", &[("host", host)]), None, "{host}");
        }
        for host in [
            "evil.example",
            "localhost.evil.example",
            "127.0.0.1.nip.io",
            "localhost:80@evil",
            "",
            "::1",
        ] {
            assert_eq!(host_status("/log", &[("host", host)]), Some(403), "{host}");
        }
        assert_eq!(host_status("/log", &[]), Some(400));
        assert_eq!(
            host_status("/log", &[("host", "localhost"), ("host", "localhost")]),
            Some(400)
        );
        assert_eq!(
            host_status("http://evil.example/log", &[("host", "localhost")]),
            Some(403)
        );
        assert_eq!(
            host_status("http://localhost/log", &[("host", "localhost")]),
            None
        );
    }

    #[test]
    fn neither_host_nor_token_is_asked_for_on_the_unix_socket() {
        let gate = Gate {
            token: Secret::new("t"),
        };
        let evil = headers(&[("host", "evil.example")]);
        assert!(
            gate.check_host(Transport::Unix, &Uri::from_static("/"), &evil)
                .is_ok()
        );
        assert!(gate.check_route(Guard::Write, Transport::Unix, &evil).is_ok());
        assert!(gate.check_route(Guard::UnixOnly, Transport::Unix, &evil).is_ok());
    }

    #[test]
    fn over_tcp_a_token_is_asked_for_on_every_route_but_health() {
        let gate = Gate {
            token: Secret::new("s3cret"),
        };
        let status = |guard, pairs: &[(&'static str, &'static str)]| {
            let checked = gate.check_route(guard, Transport::Tcp, &headers(pairs));
            checked.err().map(|reply| reply.status().as_u16())
        };
        assert_eq!(status(Guard::Open, &[]), None);
        for guard in [Guard::Token, Guard::Write] {
            assert_eq!(status(guard, &[]), Some(401));
            assert_eq!(status(guard, &[("authorization", "Bearer wrong")]), Some(401));
            assert_eq!(status(guard, &[("authorization", "s3cret")]), Some(401));
            assert_eq!(status(guard, &[("authorization", "bearer s3cret")]), None);
        }
        assert_eq!(
            status(Guard::UnixOnly, &[("authorization", "Bearer s3cret")]),
            Some(403)
        );
    }

    #[test]
    fn a_web_page_writes_nothing() {
        let gate = Gate::default();
        let page = headers(&[("origin", "null")]);
        assert!(gate.check_route(Guard::Write, Transport::Tcp, &page).is_err());
        assert!(gate.check_route(Guard::Write, Transport::Unix, &page).is_err());
        assert!(gate.check_route(Guard::Token, Transport::Tcp, &page).is_ok());
    }
}
