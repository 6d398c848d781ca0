//! One HTTP attempt against the phospho API. No policy, no retry.
//!
//! What holds for every request (contract.md sections 1 and 4, security.md): the key goes to the configured base URL
//! and nowhere else, so redirects are not followed and the environment's proxy variables are not read; bodies go
//! uncompressed; a reply is read up to a bound. Connections are kept and used again.

mod fault;
#[cfg(test)]
pub(crate) mod script;

use crate::ids::{ProjectId, TaskId};
use crate::secret::Secret;
use crate::verdict::{Answer, Failure, FailureKind, Outcome};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use reqwest::{Certificate, Client, Method, Proxy, Response, Url};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// Longest that making a connection may take, name lookup and TLS included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest that a feedback request may take: the API holds one for 31 s (contract.md section 2).
const FEEDBACK_TIMEOUT: Duration = Duration::from_secs(40);
/// Longest that an unused connection is kept. Servers commonly close theirs after 60 s or more.
const POOL_IDLE: Duration = Duration::from_secs(50);
/// Most bytes of a 2xx reply's body; the echo of a full batch is a little larger than the batch.
const MAX_REPLY_BYTES: usize = 64 << 20;
/// Most bytes of any other body; what is beyond is cut off, because only an excerpt of it is of use.
const MAX_ERROR_BYTES: usize = 64 << 10;
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
    /// Longest that a log request or a read-back may take. Default 30 s.
    pub timeout: Duration,
    /// Further trusted certificates, PEM.
    pub ca_file: Option<PathBuf>,
    /// Proxy URL.
    pub proxy: Option<String>,
}

/// Why no client could be made. The sentence names the key.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct UpstreamError(pub String);

/// A client with its connection pool. Cheap to clone; all clones share the pool.
#[derive(Debug, Clone)]
pub struct Upstream {
    client: Client,
    /// A function of a test, in place of the client.
    #[cfg(test)]
    script: Option<script::Script>,
    /// Without the trailing slash.
    base: Arc<str>,
    timeout: Duration,
}

impl Upstream {
    /// Builds the client. Opens no connection.
    ///
    /// # Errors
    /// If `base_url` is no plain http or https URL, or `ca_file` or `proxy` cannot be used.
    pub fn new(settings: &Settings) -> Result<Self, UpstreamError> {
        let base = check_base(&settings.base_url)?;
        let mut builder = Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .no_proxy()
            .connect_timeout(CONNECT_TIMEOUT)
            .pool_idle_timeout(POOL_IDLE)
            .user_agent(concat!("phosphod/", env!("CARGO_PKG_VERSION")));
        if let Some(proxy) = &settings.proxy {
            let proxy = Proxy::all(proxy).map_err(|_| {
                UpstreamError("upstream.proxy is not a proxy URL: write it like http://host:3128".into())
            })?;
            builder = builder.proxy(proxy);
        }
        if let Some(path) = &settings.ca_file {
            builder = builder.tls_certs_merge(read_certificates(path)?);
        } else if base.starts_with("http:") && settings.proxy.is_none() {
            // Nothing will be verified, so a machine without any certificates is fine too.
            builder = builder.tls_certs_only(std::iter::empty());
        }
        let client = builder.build().map_err(|err| {
            UpstreamError(format!(
                "no TLS client could be made ({}): install the ca-certificates package or set upstream.ca_file",
                fault::describe(&err)
            ))
        })?;
        Ok(Self {
            client,
            #[cfg(test)]
            script: None,
            base: base.into(),
            timeout: settings.timeout,
        })
    }

    /// `upstream.base_url`, without a trailing slash.
    pub fn base_url(&self) -> &str {
        &self.base
    }

    /// `POST /v2/log/{project}`.
    pub async fn post_log(&self, project: &ProjectId, key: &Secret, body: Vec<u8>) -> Outcome {
        let path = ["log", project.as_str()];
        self.attempt(Method::POST, &path, key, Some(body), self.timeout)
            .await
    }

    /// `POST /v2/tasks/{task}/human-eval`; allows 40 s, because the API holds it for up to 31 s (contract.md section 2).
    pub async fn post_feedback(&self, task: &TaskId, key: &Secret, body: Vec<u8>) -> Outcome {
        let path = ["tasks", task.as_str(), "human-eval"];
        self.attempt(Method::POST, &path, key, Some(body), FEEDBACK_TIMEOUT)
            .await
    }

    /// `GET /v2/tasks/{task}`: 200 or 404 tells whether a task is stored.
    pub async fn get_task(&self, task: &TaskId, key: &Secret) -> Outcome {
        self.attempt(Method::GET, &["tasks", task.as_str()], key, None, self.timeout)
            .await
    }

    async fn attempt(
        &self,
        method: Method,
        path: &[&str],
        key: &Secret,
        body: Option<Vec<u8>>,
        timeout: Duration,
    ) -> Outcome {
        #[cfg(test)]
        if let Some(script) = &self.script {
            return script.ask(path, key, body, timeout).await;
        }
        match self.exchange(method, path, key, body, timeout).await {
            Ok(answer) => Outcome::Answered(answer),
            Err(failure) => Outcome::Failed(failure),
        }
    }

    async fn exchange(
        &self,
        method: Method,
        path: &[&str],
        key: &Secret,
        body: Option<Vec<u8>>,
        timeout: Duration,
    ) -> Result<Answer, Failure> {
        let mut request = self
            .client
            .request(method, self.url(path)?)
            .timeout(timeout)
            .header(AUTHORIZATION, bearer(key)?);
        if let Some(body) = body {
            request = request.header(CONTENT_TYPE, "application/json").body(body);
        }
        let response = request.send().await.map_err(|err| fault::while_sending(&err))?;
        let status = response.status().as_u16();
        let retry_after = response
            .headers()
            .get(RETRY_AFTER)
            .and_then(|value| retry_after(value.to_str().ok()?, SystemTime::now()));
        Ok(Answer {
            status,
            retry_after,
            body: read_body(response, (200..300).contains(&status)).await?,
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

/// The whole body of a 2xx, or as much of another reply's as an excerpt needs.
async fn read_body(mut response: Response, whole: bool) -> Result<bytes::Bytes, Failure> {
    let limit = if whole { MAX_REPLY_BYTES } else { MAX_ERROR_BYTES };
    let mut body = bytes::BytesMut::new();
    loop {
        match response.chunk().await {
            Ok(None) => return Ok(body.freeze()),
            Ok(Some(chunk)) if body.len() + chunk.len() <= limit => body.extend_from_slice(&chunk),
            Ok(Some(_)) if whole => {
                return Err(garbled(
                    "the upstream's reply is over 64 MiB: is upstream.base_url the phospho API?",
                ));
            }
            Ok(Some(chunk)) => {
                body.extend_from_slice(&chunk[..limit - body.len()]);
                return Ok(body.freeze());
            }
            // The status is worth more than the rest of its explanation.
            Err(_) if !whole && !body.is_empty() => return Ok(body.freeze()),
            Err(err) => return Err(fault::while_reading(&err)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
