//! What must hold between keys, and of values that only make sense as a whole. Which of two sizes or times may not be
//! more than the other is in [`super::derived`], since defaults follow from that.
use super::keys::PROJECT_KEY;
use super::resolve::Resolver;
use super::{inline, values};
use crate::upstream::is_loopback;

/// Longest path of a Unix socket in bytes, the closing NUL excluded.
pub const MOST_SOCKET_PATH_BYTES: usize = if cfg!(target_os = "linux") { 107 } else { 103 };

/// Looks at all the rules; a rule whose keys could not be read is passed over.
pub(super) fn check(resolver: &mut Resolver) {
    listeners(resolver);
    remote(resolver, "intake.http");
    remote(resolver, "intake.browser.listen");
    browser(resolver);
    hosts(resolver);
    origins(resolver, "intake.origins");
    origins(resolver, "intake.browser.origins");
    socket_path(resolver);
    one_key(resolver);
    base_url(resolver);
    proxy(resolver);
}

fn written_empty(resolver: &Resolver, path: &str) -> bool {
    !resolver.is_wrong(path) && resolver.text(path).is_none() && resolver.address(path).is_none()
}

fn listeners(resolver: &mut Resolver) {
    if written_empty(resolver, "intake.http") && written_empty(resolver, "intake.unix") {
        let sentence =
            "intake.unix is off as well, so nothing could reach the daemon: give one of the two an address";
        resolver.wrong("intake.http", sentence);
    }
}

fn remote(resolver: &mut Resolver, key: &str) {
    let Some(address) = resolver.address(key) else {
        return;
    };
    let allowed = resolver.flag("intake.allow_remote") != Some(false)
        && resolver.values.contains_key("intake.token_file");
    if !address.ip().is_loopback() && !allowed {
        let sentence = format!(
            "{address} can be reached from other machines: set intake.token_file and write intake.allow_remote = true, \
             or listen on 127.0.0.1"
        );
        resolver.wrong(key, sentence);
    }
}

fn browser(resolver: &mut Resolver) {
    let (listen, origins) = ("intake.browser.listen", "intake.browser.origins");
    let Some(address) = resolver.address(listen) else {
        return;
    };
    if resolver.list(origins).is_empty() && !resolver.is_wrong(origins) {
        let sentence = format!("no page could use it: name the pages in {origins}, or set it to \"\"");
        resolver.wrong(listen, sentence);
    }
    if address.port() != 0 && resolver.address("intake.http") == Some(address) {
        let sentence = "it is also intake.http: give the two different ports";
        resolver.wrong(listen, sentence);
    }
}

/// A name as `Host` has it, but for the port.
fn hosts(resolver: &mut Resolver) {
    let plain = |host: &str| {
        host.bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte))
    };
    let wrong: Vec<String> = resolver
        .list("intake.hosts")
        .iter()
        .filter(|host| !plain(host) && !inline::is_address(host))
        .map(|host| values::quote(host))
        .collect();
    for host in wrong {
        let sentence = format!(
            "{host} is no host name: write it without scheme, port, path and *, as in \"logs.internal\""
        );
        resolver.wrong("intake.hosts", sentence);
    }
}

/// An origin exactly as browsers send it, or it would never be equal to one.
fn origins(resolver: &mut Resolver, key: &str) {
    let sent = |text: &str| {
        let origin = reqwest::Url::parse(text).ok()?.origin();
        origin.is_tuple().then(|| origin.ascii_serialization())
    };
    let wrong: Vec<(String, Option<String>)> = resolver
        .list(key)
        .iter()
        .map(|text| (text, sent(text)))
        .filter(|(text, sent)| sent.as_ref() != Some(text))
        .map(|(text, sent)| (values::quote(&values::without_secrets(text)), sent))
        .collect();
    for (text, sent) in wrong {
        let meant = sent.unwrap_or_else(|| "https://app.example".to_owned());
        let sentence = format!(
            "{text} is not how a browser names a page's origin: write \"{meant}\" (scheme, host and port; no *)"
        );
        resolver.wrong(key, sentence);
    }
}

fn socket_path(resolver: &mut Resolver) {
    let Some(path) = resolver.text("intake.unix") else {
        return;
    };
    if path.len() > MOST_SOCKET_PATH_BYTES {
        let sentence = format!(
            "{path} is {} bytes long and a socket's path may have {MOST_SOCKET_PATH_BYTES}: set intake.unix to a \
             shorter one",
            path.len()
        );
        resolver.wrong("intake.unix", sentence);
    }
}

fn given(resolver: &Resolver, path: &str) -> bool {
    resolver.text(path).is_some() || resolver.secret(path).is_some()
}

fn one_key(resolver: &mut Resolver) {
    if given(resolver, "upstream.api_key") && given(resolver, "upstream.api_key_file") {
        let other = resolver.origin("upstream.api_key_file").to_owned();
        let sentence = format!(
            "upstream.api_key_file ({other}) is set as well: keep one of the two, set the other to \"\""
        );
        resolver.wrong("upstream.api_key", sentence);
    }
    let example = PROJECT_KEY;
    if let Some(token) = resolver.text("intake.token_file")
        && Some(token) == resolver.text("upstream.api_key_file")
    {
        let sentence = format!(
            "it is also upstream.api_key_file, so clients would be told the API key: make a token of its own \
             (keys of single projects go to {example})"
        );
        resolver.wrong("intake.token_file", sentence);
    }
}

fn base_url(resolver: &mut Resolver) {
    let Some(text) = resolver.text("upstream.base_url") else {
        return;
    };
    let shown = values::quote(&values::without_secrets(text));
    let Ok(url) = reqwest::Url::parse(text) else {
        resolver.wrong(
            "upstream.base_url",
            format!("{shown} is no URL: write \"https://api.phospho.ai\""),
        );
        return;
    };
    let host = url.host_str().unwrap_or_default();
    let loopback = is_loopback(&url);
    let insecure = resolver.flag("upstream.allow_insecure") != Some(false);
    let last = url
        .path()
        .trim_end_matches('/')
        .rsplit('/')
        .next()
        .unwrap_or_default();
    if !matches!(url.scheme(), "https" | "http") || host.is_empty() {
        let sentence = format!("{shown} is no https address: write \"https://api.phospho.ai\"");
        resolver.wrong("upstream.base_url", sentence);
        return;
    }
    let rules = [
        (
            !url.username().is_empty() || url.password().is_some(),
            "holds a user or password: put the API key into upstream.api_key_file instead".to_owned(),
        ),
        (
            url.query().is_some() || url.fragment().is_some(),
            "has a query or fragment: leave off what follows ? or #".to_owned(),
        ),
        (
            matches!(last, "v0" | "v2" | "v3"),
            format!("ends in /{last}, which the daemon adds itself: leave it off"),
        ),
        (
            url.scheme() == "http" && !loopback && !insecure,
            "would send the key in the clear: write https://, or upstream.allow_insecure = true if that is meant"
                .to_owned(),
        ),
    ];
    for (broken, sentence) in rules {
        if broken {
            resolver.wrong("upstream.base_url", format!("{shown} {sentence}"));
        }
    }
}

fn proxy(resolver: &mut Resolver) {
    let Some(text) = resolver.text("upstream.proxy") else {
        return;
    };
    let known = reqwest::Url::parse(text)
        .is_ok_and(|url| matches!(url.scheme(), "http" | "https" | "socks5" | "socks5h") && url.has_host());
    if !known {
        let shown = values::quote(&values::without_secrets(text));
        resolver.wrong(
            "upstream.proxy",
            format!("{shown} is no proxy: write \"http://host:port\""),
        );
    }
}
