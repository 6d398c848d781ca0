//! Who may call (security.md): by Host, by token, by user, and not from a web page.

use super::reply::{Refused, detail};
use super::{Call, Guard, Peer, Peers, Transport};
use crate::secret::Secret;
use hyper::header::{AUTHORIZATION, HOST, HeaderMap, HeaderValue, ORIGIN, WWW_AUTHENTICATE};
use hyper::{StatusCode, Uri};

/// What a caller must show.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Gate {
    /// Bearer token of every request over TCP but health checks. Default none.
    pub token: Option<Secret>,
    /// Further names of this machine that a `Host` may bear over TCP, without port. Default none.
    pub hosts: Vec<String>,
    /// The `Origin`s that requests which write may bear, exactly as browsers send them. Default none.
    pub origins: Vec<String>,
    /// Who may use the Unix socket.
    pub peers: Peers,
}

impl Gate {
    /// Refuses a request whatever its route is: over TCP it must name this machine by a local name, over the Unix socket it must
    /// come from a user who may hand in or administer.
    pub(super) fn check_caller(
        &self,
        transport: Transport,
        uri: &Uri,
        headers: &HeaderMap,
    ) -> Result<(), Refused> {
        if let Transport::Unix(peer) = transport {
            return match self.check_administers(peer) {
                Ok(()) => Ok(()),
                Err(_) => self.check_hands_in(peer),
            };
        }
        self.check_names(uri, headers)
    }

    /// Refuses a request over TCP that does not name this machine, once and unambiguously. A web page that has its own
    /// name resolved to this machine (DNS rebinding) ends here.
    ///
    /// # Errors
    /// 400 without exactly one `Host`, 403 for a name that is not served.
    pub fn check_names(&self, uri: &Uri, headers: &HeaderMap) -> Result<(), Refused> {
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
            if !is_local(name) && !self.is_named(name) {
                let sentence = format!(
                    "the host {:?} is not served here: call 127.0.0.1, localhost or [::1], or the Unix socket, or add its name to \
                     intake.hosts",
                    String::from_utf8_lossy(name)
                );
                return Err(refused(StatusCode::FORBIDDEN, &sentence));
            }
        }
        Ok(())
    }

    /// Refuses a request over TCP that does not name this machine, for handlers without a [`super::Router`].
    pub fn check_host(&self, call: &Call) -> Result<(), Refused> {
        self.check_caller(call.transport(), call.request().uri(), call.request().headers())
    }

    /// The sentence for a Unix connection of a user who may not hand in.
    pub fn check_peer(&self, peer: Option<Peer>) -> Result<(), String> {
        self.peers.check_hands_in(peer)
    }

    fn check_hands_in(&self, peer: Option<Peer>) -> Result<(), Refused> {
        let checked = self.peers.check_hands_in(peer);
        checked.map_err(|sentence| refused(StatusCode::FORBIDDEN, &sentence))
    }

    fn check_administers(&self, peer: Option<Peer>) -> Result<(), Refused> {
        let own = rustix::process::geteuid().as_raw();
        let checked = self.peers.check_administers(peer, own);
        checked.map_err(|sentence| refused(StatusCode::FORBIDDEN, &sentence))
    }

    /// Whether `intake.hosts` has it.
    fn is_named(&self, host: &[u8]) -> bool {
        self.hosts.iter().any(|name| is_host(host, name.as_bytes()))
    }

    /// Whether the request comes from no web page, or from one that is listed.
    fn may_write(&self, headers: &HeaderMap) -> bool {
        !headers.contains_key(ORIGIN) || listed_origin(headers, &self.origins).is_some()
    }

    /// Refuses a caller whom the route is not for.
    pub(super) fn check_route(
        &self,
        guard: Guard,
        transport: Transport,
        headers: &HeaderMap,
    ) -> Result<(), Refused> {
        if guard == Guard::Write && !self.may_write(headers) {
            return Err(refused(
                StatusCode::FORBIDDEN,
                "requests from web pages (with an Origin header) are refused: send from the server side of the app, or add the \
                 origin to intake.origins",
            ));
        }
        if let Transport::Unix(peer) = transport {
            return match guard {
                Guard::UnixOnly => self.check_administers(peer),
                Guard::Open | Guard::Token | Guard::Write => self.check_hands_in(peer),
            };
        }
        if let Some(token) = &self.token
            && guard != Guard::Open
        {
            check_token(token, headers)?;
        }
        if guard == Guard::UnixOnly {
            return Err(refused(
                StatusCode::FORBIDDEN,
                "this route shows what clients sent, so it is on the Unix socket only: call it with curl --unix-socket PATH, \
                 as root or as the daemon's user",
            ));
        }
        Ok(())
    }
}

/// The one `Origin` of a request, if it is one of these.
pub fn listed_origin<'a>(headers: &'a HeaderMap, origins: &[String]) -> Option<&'a HeaderValue> {
    let mut given = headers.get_all(ORIGIN).iter();
    let (Some(origin), None) = (given.next(), given.next()) else {
        return None;
    };
    origins
        .iter()
        .any(|listed| listed.as_bytes() == origin.as_bytes())
        .then_some(origin)
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
    [&b"127.0.0.1"[..], b"localhost", b"[::1]"]
        .iter()
        .any(|name| is_host(host, name))
}

/// Whether a Host is this name, with or without a port, in whatever case.
fn is_host(host: &[u8], name: &[u8]) -> bool {
    let Some((start, rest)) = host.split_at_checked(name.len()) else {
        return false;
    };
    start.eq_ignore_ascii_case(name)
        && match rest {
            [] => true,
            [b':', port @ ..] => port.iter().all(u8::is_ascii_digit),
            _ => false,
        }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TCP: Transport = Transport::Tcp(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST));
    /// A user as whom no test runs.
    const STRANGER: u32 = 4_100_000_000;
    const UNIX: Transport = Transport::Unix(Some(Peer {
        uid: STRANGER,
        gid: 100,
    }));
    const ROOT: Transport = Transport::Unix(Some(Peer { uid: 0, gid: 0 }));

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            map.append(*name, HeaderValue::from_static(value));
        }
        map
    }

    fn host_status(uri: &str, pairs: &[(&'static str, &'static str)]) -> Option<u16> {
        let uri = uri.parse().expect("a URI");
        let checked = Gate::default().check_caller(TCP, &uri, &headers(pairs));
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
            ..Gate::default()
        };
        let evil = headers(&[("host", "evil.example")]);
        assert!(gate.check_caller(UNIX, &Uri::from_static("/"), &evil).is_ok());
        assert!(gate.check_route(Guard::Write, UNIX, &evil).is_ok());
        assert!(gate.check_route(Guard::UnixOnly, ROOT, &evil).is_ok());
    }

    #[test]
    fn each_route_asks_for_its_own_right_on_the_unix_socket() {
        let none = HeaderMap::new();
        let uri = Uri::from_static("/");
        let admits = |gate: &Gate, guard, from| {
            gate.check_caller(from, &uri, &none).is_ok() && gate.check_route(guard, from, &none).is_ok()
        };
        let handing_in = [Guard::Open, Guard::Token, Guard::Write];
        let open = Gate::default();
        let listed = |uids: &[u32], admin_uids: &[u32]| Gate {
            peers: Peers {
                uids: uids.to_vec(),
                admin_uids: admin_uids.to_vec(),
                ..Peers::default()
            },
            ..Gate::default()
        };
        for guard in handing_in {
            assert!(admits(&open, guard, UNIX) && admits(&listed(&[STRANGER], &[]), guard, UNIX));
            assert!(!admits(&listed(&[1], &[STRANGER]), guard, UNIX));
            assert!(!admits(&listed(&[1], &[]), guard, ROOT));
        }
        for gate in [&open, &listed(&[STRANGER], &[]), &listed(&[1], &[])] {
            assert!(!admits(gate, Guard::UnixOnly, UNIX), "{gate:?}");
            assert!(admits(gate, Guard::UnixOnly, ROOT), "{gate:?}");
        }
        assert!(admits(&listed(&[1], &[STRANGER]), Guard::UnixOnly, UNIX));
    }

    #[test]
    fn over_tcp_a_token_is_asked_for_on_every_route_but_health() {
        let gate = Gate {
            token: Secret::new("s3cret"),
            ..Gate::default()
        };
        let status = |guard, pairs: &[(&'static str, &'static str)]| {
            let checked = gate.check_route(guard, TCP, &headers(pairs));
            checked.err().map(|reply| reply.status().as_u16())
        };
        assert_eq!(status(Guard::Open, &[]), None);
        for guard in [Guard::Token, Guard::Write, Guard::UnixOnly] {
            assert_eq!(status(guard, &[]), Some(401));
            assert_eq!(status(guard, &[("authorization", "Bearer wrong")]), Some(401));
            assert_eq!(status(guard, &[("authorization", "s3cret")]), Some(401));
        }
        for guard in [Guard::Token, Guard::Write] {
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
        assert!(gate.check_route(Guard::Write, TCP, &page).is_err());
        assert!(gate.check_route(Guard::Write, UNIX, &page).is_err());
        assert!(gate.check_route(Guard::Token, TCP, &page).is_ok());
    }

    #[test]
    fn an_origin_writes_if_it_is_listed_exactly_and_alone() {
        let gate = Gate {
            origins: vec!["https://app.example".into()],
            ..Gate::default()
        };
        let writes = |pairs: &[(&'static str, &'static str)]| {
            gate.check_route(Guard::Write, TCP, &headers(pairs)).is_ok()
        };
        assert!(writes(&[("origin", "https://app.example")]));
        for other in [
            "https://app.example:8443",
            "http://app.example",
            "https://app.example.evil",
            "HTTPS://app.example",
            "null",
            "",
        ] {
            assert!(!writes(&[("origin", other)]), "{other}");
        }
        let twice = ("origin", "https://app.example");
        assert!(!writes(&[twice, twice]));
    }

    #[test]
    fn a_further_host_is_served_if_it_is_listed() {
        let gate = Gate {
            hosts: vec!["logs.internal".into()],
            ..Gate::default()
        };
        let served = |host| {
            let headers = headers(&[("host", host)]);
            gate.check_caller(TCP, &Uri::from_static("/log"), &headers)
                .is_ok()
        };
        assert!(served("logs.internal") && served("Logs.Internal:4710") && served("localhost"));
        assert!(!served("logs.internal.evil") && !served("x.logs.internal") && !served("logs.internal:x"));
    }
}
