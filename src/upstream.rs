//! One HTTP attempt against the phospho API. No policy, no retry.
//!
//! What holds for every request (contract.md sections 1 and 4, security.md): the key goes to the configured base URL
//! and nowhere else, so redirects are not followed and the environment's proxy variables are not read; bodies go
//! uncompressed; a reply is read up to a bound (`reply`). Connections are kept and used again.

mod fault;
mod progress;
mod reply;
#[cfg(test)]
pub(crate) mod script;

use crate::ids::{ProjectId, TaskId};
use crate::secret::{Secret, Secrets};
use crate::verdict::{self, Answer, Failure, FailureKind, Outcome};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use progress::{Progress, Upload};
use reply::{Need, Room};
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use reqwest::{Body, Certificate, Client, Method, Proxy, RequestBuilder, Url};
use std::borrow::Cow;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// Longest that making a connection may take, name lookup and TLS included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest that a feedback request may go without progress: the API holds one for 31 s (contract.md section 2).
const FEEDBACK_TIMEOUT: Duration = Duration::from_secs(40);
/// Longest that an unused connection is kept. Servers commonly close theirs after 60 s or more.
const POOL_IDLE: Duration = Duration::from_secs(50);
/// Everything in a path segment but the characters that RFC 3986 leaves unreserved is percent-encoded.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// How the upstream is reached (`[upstream]`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Without `/v2`. Default `https://api.phospho.ai`. A trailing slash or a path prefix is fine.
    pub base_url: String,
    /// Longest that a log request or a read-back may go without any progress. Default 30 s. An attempt as a whole may take twice
    /// as long, and a second more for every 16 KiB.
    pub timeout: Duration,
    /// Further trusted certificates, PEM.
    pub ca_file: Option<PathBuf>,
    /// Proxy URL. Not for an upstream on this machine ([`is_loopback`]).
    pub proxy: Option<String>,
}

impl Settings {
    /// Whether the upstream is on this machine, so that no proxy is used.
    pub fn is_local(&self) -> bool {
        Url::parse(&self.base_url).is_ok_and(|url| is_loopback(&url))
    }
}

/// Whether a URL names this machine. Then http is fine, because the key does not leave it; by a proxy it would.
pub fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    host == "localhost" || host.parse().is_ok_and(|ip: IpAddr| ip.is_loopback())
}

/// Why no client could be made. The sentence names the key.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct UpstreamError(pub String);

/// A client with its connection pool. Cheap to clone; all clones share the pool.
#[derive(Debug, Clone)]
pub struct Upstream {
    client: Client,
    /// The same without kept connections.
    unpooled: Client,
    /// A function of a test, in place of the client.
    #[cfg(test)]
    script: Option<script::Script>,
    /// Without the trailing slash.
    base: Arc<str>,
    timeout: Duration,
    /// What is masked in all that comes from outside.
    secrets: Secrets,
    /// The memory for answers.
    room: Room,
}

impl Upstream {
    /// Builds the client. Opens no connection.
    ///
    /// # Errors
    /// If `base_url` is no plain http or https URL, or `ca_file` or `proxy` cannot be used.
    pub fn new(settings: &Settings) -> Result<Self, UpstreamError> {
        let base = check_base(&settings.base_url)?;
        Ok(Self {
            client: client(settings, &base, usize::MAX)?,
            unpooled: client(settings, &base, 0)?,
            #[cfg(test)]
            script: None,
            base: base.into(),
            timeout: settings.timeout,
            secrets: Secrets::default(),
            room: Room::default(),
        })
    }

    /// The same upstream, with these secrets masked in every word that comes from it, or from what is in between.
    pub fn masking(self, secrets: Secrets) -> Self {
        Self { secrets, ..self }
    }

    /// The same upstream, with a new connection for each request. The API drops a connection after a batch that it
    /// could not store, and a request on such a connection fails in a way that leaves open whether it was taken.
    pub fn on_fresh_connections(&self) -> Self {
        Self {
            client: self.unpooled.clone(),
            ..self.clone()
        }
    }

    /// `upstream.base_url`, without a trailing slash.
    pub fn base_url(&self) -> &str {
        &self.base
    }

    /// `POST /v2/log/{project}`.
    pub async fn post_log(&self, project: &ProjectId, key: &Secret, body: Vec<u8>) -> Outcome {
        let need = Need::echo_of(&body);
        let path = ["log", project.as_str()];
        self.attempt(Method::POST, &path, key, Some(body), self.timeout, need)
            .await
    }

    /// `POST /v2/tasks/{task}/human-eval`; allows 40 s, because the API holds it for up to 31 s (contract.md section 2). The
    /// task that it answers with is not kept.
    pub async fn post_feedback(&self, task: &TaskId, key: &Secret, body: Vec<u8>) -> Outcome {
        let path = ["tasks", task.as_str(), "human-eval"];
        let limit = FEEDBACK_TIMEOUT;
        self.attempt(Method::POST, &path, key, Some(body), limit, Need::Nothing)
            .await
    }

    /// `GET /v2/tasks/{task}`: 200 or 404 tells whether a task is stored. The task itself is not kept.
    pub async fn get_task(&self, task: &TaskId, key: &Secret) -> Outcome {
        let path = ["tasks", task.as_str()];
        self.attempt(Method::GET, &path, key, None, self.timeout, Need::Nothing)
            .await
    }

    /// The same with the task.
    pub async fn read_task(&self, task: &TaskId, key: &Secret) -> Outcome {
        let path = ["tasks", task.as_str()];
        self.attempt(Method::GET, &path, key, None, self.timeout, Need::task())
            .await
    }

    async fn attempt(
        &self,
        method: Method,
        path: &[&str],
        key: &Secret,
        body: Option<Vec<u8>>,
        timeout: Duration,
        need: Need,
    ) -> Outcome {
        #[cfg(test)]
        if let Some(script) = &self.script {
            return script.ask(path, key, body, timeout).await;
        }
        let progress = Progress::new(body.as_ref().map_or(0, Vec::len));
        let exchange = async {
            let request = self.request(method, path, key, body, &progress)?;
            self.exchange(request, need, &progress).await
        };
        let ended = tokio::select! {
            biased;
            ended = exchange => ended,
            () = progress.stalled(timeout) => Err(Failure {
                kind: FailureKind::Timeout,
                detail: "time ran out".into(),
            }),
        };
        self.masked(match ended {
            Ok(answer) => Outcome::Answered(answer),
            Err(failure) => Outcome::Failed(failure),
        })
    }

    /// The one way for words from outside into the daemon: without its secrets, whoever echoes them. What a 2xx says is read
    /// by its errors alone, so an event or a task in it stays as it is.
    fn masked(&self, outcome: Outcome) -> Outcome {
        match outcome {
            Outcome::Answered(answer) => {
                let body = match answer.status {
                    200..=299 => verdict::mask_errors(&answer.body, |text| self.secrets.mask(text)),
                    _ => match self.secrets.mask_bytes(&answer.body) {
                        Cow::Borrowed(_) => None,
                        Cow::Owned(masked) => Some(masked),
                    },
                };
                let body = body.map_or(answer.body, bytes::Bytes::from);
                Outcome::Answered(Answer { body, ..answer })
            }
            Outcome::Failed(failure) => Outcome::Failed(Failure {
                detail: self.secrets.mask(&failure.detail).into_owned(),
                ..failure
            }),
        }
    }

    fn request(
        &self,
        method: Method,
        path: &[&str],
        key: &Secret,
        body: Option<Vec<u8>>,
        progress: &Progress,
    ) -> Result<RequestBuilder, Failure> {
        let request = self
            .client
            .request(method, self.url(path)?)
            .header(AUTHORIZATION, bearer(key)?);
        Ok(match body {
            Some(body) => {
                let body = Body::wrap(Upload::new(body, progress));
                request.header(CONTENT_TYPE, "application/json").body(body)
            }
            None => request,
        })
    }

    async fn exchange(
        &self,
        request: RequestBuilder,
        need: Need,
        progress: &Progress,
    ) -> Result<Answer, Failure> {
        let response = request.send().await.map_err(|err| fault::while_sending(&err))?;
        progress.came(0);
        let status = response.status().as_u16();
        let retry_after = response
            .headers()
            .get(RETRY_AFTER)
            .and_then(|value| retry_after(value.to_str().ok()?, SystemTime::now()));
        let body = match status {
            200..=299 => reply::success(response, need, &self.room, progress).await?,
            _ => reply::refusal(response, status, progress).await?,
        };
        Ok(Answer {
            status,
            retry_after,
            body,
        })
    }

    fn url(&self, path: &[&str]) -> Result<Url, Failure> {
        let mut text = format!("{}/v2", self.base);
        for segment in path {
            text.push('/');
            text.extend(utf8_percent_encode(segment, SEGMENT));
        }
        // A URL cannot name "." or "..": they would be resolved away, and the request would go elsewhere.
        match Url::parse(&text) {
            Ok(url) if !path.iter().any(|segment| matches!(*segment, "." | "..")) => Ok(url),
            _ => Err(garbled(
                "an id of \".\" or \"..\" cannot stand in a URL: use another id",
            )),
        }
    }
}

/// A client that keeps so many unused connections.
fn client(settings: &Settings, base: &str, idle: usize) -> Result<Client, UpstreamError> {
    let mut builder = Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .retry(reqwest::retry::never())
        .no_proxy()
        .connect_timeout(CONNECT_TIMEOUT)
        .pool_idle_timeout(POOL_IDLE)
        .pool_max_idle_per_host(idle)
        .user_agent(concat!("phosphod/", env!("CARGO_PKG_VERSION")));
    let proxy = settings.proxy.as_ref().filter(|_| !settings.is_local());
    if let Some(proxy) = proxy {
        let proxy = Proxy::all(proxy).map_err(|_| {
            UpstreamError("upstream.proxy is not a proxy URL: write it like http://host:3128".into())
        })?;
        builder = builder.proxy(proxy);
    }
    if let Some(path) = &settings.ca_file {
        builder = builder.tls_certs_merge(read_certificates(path)?);
    } else if base.starts_with("http:") && proxy.is_none() {
        // Nothing will be verified, so a machine without any certificates is fine too.
        builder = builder.tls_certs_only(std::iter::empty());
    }
    builder.build().map_err(|err| {
        UpstreamError(format!(
            "no TLS client could be made ({}): install the ca-certificates package or set upstream.ca_file",
            fault::describe(&err)
        ))
    })
}

fn garbled(detail: &str) -> Failure {
    Failure {
        kind: FailureKind::Garbled,
        detail: detail.into(),
    }
}

fn bearer(key: &Secret) -> Result<HeaderValue, Failure> {
    let mut value = HeaderValue::from_str(&format!("Bearer {}", key.expose())).map_err(|_| {
        garbled("the API key holds characters that no HTTP header can carry: check the key file")
    })?;
    value.set_sensitive(true);
    Ok(value)
}

/// The base URL without its trailing slash. Never quoted in an error, because it may hold a password.
fn check_base(text: &str) -> Result<String, UpstreamError> {
    let fail = |what: &str| Err(UpstreamError(format!("upstream.base_url {what}")));
    let Ok(url) = Url::parse(text) else {
        return fail("is not a URL: write it like https://api.phospho.ai");
    };
    if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
        return fail("is not an http or https URL: write it like https://api.phospho.ai");
    }
    if !url.username().is_empty() || url.password().is_some() {
        return fail("holds a user name or password: remove it, the key belongs in upstream.api_key_file");
    }
    if url.query().is_some() || url.fragment().is_some() {
        return fail("holds a ? or #: write it without, like https://api.phospho.ai");
    }
    Ok(url.as_str().trim_end_matches('/').to_owned())
}

fn read_certificates(path: &PathBuf) -> Result<Vec<Certificate>, UpstreamError> {
    let shown = path.display();
    let pem = std::fs::read(path)
        .map_err(|err| UpstreamError(format!("upstream.ca_file {shown} cannot be read: {err}")))?;
    match Certificate::from_pem_bundle(&pem) {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        _ => Err(UpstreamError(format!(
            "upstream.ca_file {shown} holds no PEM certificate: check the file"
        ))),
    }
}

/// Retry-After, seconds or an HTTP date, as a duration from `now`; a date that has passed is zero.
fn retry_after(value: &str, now: SystemTime) -> Option<Duration> {
    let value = value.trim();
    if let Ok(seconds) = value.parse::<u64>() {
        return Some(Duration::from_secs(seconds));
    }
    let at = httpdate::parse_http_date(value).ok()?;
    Some(at.duration_since(now).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn upstream(base_url: &str) -> Result<Upstream, UpstreamError> {
        Upstream::new(&Settings {
            base_url: base_url.into(),
            timeout: Duration::from_secs(1),
            ca_file: None,
            proxy: None,
        })
    }

    #[test]
    fn ids_cannot_break_out_of_their_place_in_the_url() {
        let upstream = upstream("http://127.0.0.1:1/prefix/").expect("builds");
        let url = |id: &str| upstream.url(&["log", id]).map(|url| url.to_string());
        assert_eq!(
            url("p-1_x.y~z"),
            Ok("http://127.0.0.1:1/prefix/v2/log/p-1_x.y~z".into())
        );
        assert_eq!(
            url("a/../b?c#d%41 ü"),
            Ok("http://127.0.0.1:1/prefix/v2/log/a%2F..%2Fb%3Fc%23d%2541%20%C3%BC".into())
        );
        assert!(url("..").is_err());
        assert!(url(".").is_err());
    }

    /// The id that the API finds in a URL: it decodes the path, then routes it.
    fn id_in(url: &Url) -> Option<String> {
        let path = percent_encoding::percent_decode_str(url.path())
            .decode_utf8()
            .ok()?;
        match path.split('/').collect::<Vec<_>>().as_slice() {
            ["", "v2", "tasks", id] if !id.is_empty() => Some((*id).to_owned()),
            _ => None,
        }
    }

    proptest! {
        #[test]
        fn an_id_is_addressable_exactly_if_the_api_finds_it_in_its_url(
            text in prop_oneof![
                "[^\\p{Cc}]{1,20}",
                "[./%?#\\\\ a2eEfF:;@&=+~]{1,6}",
                "[a-zA-Z0-9_-]{1,20}",
            ],
        ) {
            let upstream = upstream("http://127.0.0.1:1").expect("builds");
            let task = TaskId::new(&text).expect("an id");
            let found = upstream.url(&["tasks", task.as_str()]).ok().and_then(|url| id_in(&url));
            prop_assert_eq!(found == Some(text), task.is_addressable());
            if task.is_plain() {
                prop_assert!(task.is_addressable());
            }
        }
    }

    #[test]
    fn a_base_url_that_cannot_work_is_refused_without_being_quoted() {
        for bad in [
            "",
            "api.phospho.ai",
            "ftp://host",
            "https://u:hunter2@host",
            "https://host?hunter2",
            "unix:/x",
        ] {
            let err = upstream(bad).expect_err(bad).to_string();
            assert!(err.starts_with("upstream.base_url "), "{err}");
            assert!(!err.contains("hunter2"), "{err}");
        }
    }

    #[test]
    fn retry_after_is_read_as_seconds_or_as_a_date() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        assert_eq!(retry_after(" 120 ", now), Some(Duration::from_secs(120)));
        assert_eq!(
            retry_after("Sun, 06 Nov 1994 08:50:37 GMT", now),
            Some(Duration::from_secs(60))
        );
        assert_eq!(
            retry_after("Sun, 06 Nov 1994 08:00:00 GMT", now),
            Some(Duration::ZERO)
        );
        assert_eq!(retry_after("soon", now), None);
        assert_eq!(retry_after("-1", now), None);
    }

    #[test]
    fn the_key_does_not_show_in_the_header_s_debug_text() {
        let key = Secret::new("sk-canary").expect("not empty");
        assert!(!format!("{:?}", bearer(&key)).contains("canary"));
    }
}
