//! Settings: files, environment and flags in, one checked structure out.
//!
//! Layers, later ones win: built-in defaults ([`keys::KEYS`]), what systemd hands over (folders and credentials), the file, the SDKs' own `PHOSPHO_API_KEY` and
//! `PHOSPHO_PROJECT_ID`, `PHOSPHOD__SECTION__KEY` variables, `--set`. [`load`] tells every mistake at once and opens
//! nothing but the files that the configuration names.
mod credentials;
mod derived;
mod file;
mod files;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzed;
mod held;
mod inline;
pub mod keys;
mod layers;
mod lookup;
mod mistakes;
mod notes;
mod origins;
mod redact;
mod resolve;
mod rules;
mod show;
mod units;
mod values;

pub use mistakes::{Mistake, Mistakes, Warning};
pub use origins::Origins;
pub use rules::MOST_SOCKET_PATH_BYTES;
pub use show::show;

use crate::backoff::Backoff;
use crate::batch::Limits;
use crate::http::{Gate, Peers};
use crate::ids::ProjectId;
use crate::intake::browser;
use crate::redact::Redactor;
use crate::secret::{Secret, Secrets};
use crate::upstream::{Upstream, UpstreamError};
use crate::{courier, spool, upstream};
use resolve::Resolver;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Where settings come from.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// `--config`; else `./config.toml`, else `/etc/phosphod/config.toml`, else none.
    pub file: Option<PathBuf>,
    /// `--set key=value`, in order.
    pub set: Vec<String>,
    /// The environment.
    pub env: BTreeMap<String, OsString>,
    /// What an earlier reading came from: this one reads the same, and refuses to find less.
    /// `None`: the first reading.
    pub again: Option<Origins>,
    /// What was found to be secret in this reading and in those before it.
    pub secrets: Secrets,
}

impl Sources {
    /// With the environment of this process.
    pub fn of_process(file: Option<PathBuf>, set: Vec<String>) -> Self {
        let env = std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value)));
        Self {
            file,
            set,
            env: env.collect(),
            again: None,
            secrets: Secrets::default(),
        }
    }

    /// The same for a reload after a reading that came from `origins`.
    pub fn again(&self, origins: &Origins) -> Self {
        Self {
            again: Some(origins.clone()),
            ..self.clone()
        }
    }

    /// A variable as text; `None` if it is not set.
    fn text(&self, name: &str) -> Result<Option<&str>, Mistake> {
        let text = self.env.get(name).map(|value| {
            let wrong = || {
                Mistake::new(
                    name,
                    "environment",
                    "is not UTF-8: write it again in plain characters",
                )
            };
            value.to_str().ok_or_else(wrong)
        });
        text.transpose()
    }

    /// A folder that systemd or the session names; of several, which it parts by colons, the first.
    fn folder(&self, name: &str) -> Option<PathBuf> {
        let first = self.env.get(name)?.to_str()?.split(':').next()?;
        (!first.is_empty()).then(|| PathBuf::from(first))
    }
}

/// Everything that the daemon is told, checked.
#[derive(Debug, Clone)]
pub struct Settings {
    /// `[intake]`.
    pub intake: IntakeSettings,
    /// `[spool]` and `[dead_letters]`.
    pub spool: spool::Settings,
    /// `[upstream]`, but for the keys.
    pub upstream: upstream::Settings,
    /// `[batch]`, `[retry]`, `[delivery]`, `[feedback]` and the API keys.
    pub delivery: DeliverySettings,
    /// `[redact]`; `None`: nothing is taken out.
    pub redact: Option<Arc<Redactor>>,
    /// `[log]`.
    pub log: LogSettings,
    /// `shutdown.grace`: how long attempts in flight may finish. Default 10 s.
    pub grace: Duration,
    /// The file that was read; `None` if there was none.
    pub file: Option<PathBuf>,
    /// What was read, for a reload to read again.
    pub origins: Origins,
    /// Everything in it that is secret, to be masked in what is shown.
    pub secrets: Secrets,
    /// In a reload: the file that a start would read now instead, if that is another one.
    pub passed_over: Option<PathBuf>,
    /// What can be followed but is most likely not what was meant.
    pub warnings: Vec<Warning>,
}

/// `[intake]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IntakeSettings {
    /// TCP address, port 0 for a free one; `None`: off. Default 127.0.0.1:4710.
    pub http: Option<SocketAddr>,
    /// Path of the Unix socket, at most [`MOST_SOCKET_PATH_BYTES`] long; `None`: off.
    pub unix: Option<PathBuf>,
    /// Its permissions. Default 0660.
    pub unix_mode: u32,
    /// Its group's number; `None`: the daemon's own.
    pub unix_group: Option<u32>,
    /// Whether TCP may be served beyond loopback: `allow_remote` with a token.
    pub remote: bool,
    /// What clients must show: `token_file`, `hosts`, `origins`, `unix_allow_uids` and `unix_allow_gids`.
    pub gate: Gate,
    /// `[intake.browser]`; `None`: off.
    pub browser: Option<BrowserSettings>,
    /// Largest request body in bytes. Default 128 MiB.
    pub max_body_bytes: usize,
    /// Most bytes of bodies in flight, at least twice `max_event_bytes`. Default 256 MiB.
    pub max_in_flight_bytes: usize,
    /// Largest event in bytes; at most `spool.max_bytes`. Default 15 MiB.
    pub max_event_bytes: usize,
    /// `upstream.project_id`: project of events that name none.
    pub default_project: Option<ProjectId>,
}

/// `[intake.browser]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BrowserSettings {
    /// TCP address, port 0 for a free one.
    pub listen: SocketAddr,
    /// What applies to its requests.
    pub rules: browser::Settings,
}

/// What couriers are told, but for the client to send with.
#[derive(Debug, Clone)]
pub struct DeliverySettings {
    /// `[batch]`.
    pub batch: Limits,
    /// `[retry]`.
    pub backoff: Backoff,
    /// `delivery.confirm`. Default true.
    pub confirm: bool,
    /// `delivery.confirm_patience`. Default 3.4 s.
    pub confirm_patience: Duration,
    /// `delivery.token_counts`. Default auto.
    pub token_counts: courier::TokenCounts,
    /// `delivery.concurrency`. Default 4.
    pub concurrency: usize,
    /// `delivery.max_in_flight`. Default 64.
    pub max_in_flight: usize,
    /// `[upstream.rate_limit]`. Default: none.
    pub rate_limit: courier::RateLimit,
    /// `feedback.wait_max`. Default 1 h.
    pub feedback_wait_max: Duration,
    /// `feedback.concurrency`. Default 16.
    pub feedback_concurrency: usize,
    /// `upstream.api_key` or what `upstream.api_key_file` holds.
    pub default_key: Option<Secret>,
    /// What `upstream.projects.<id>.api_key_file` holds.
    pub project_keys: BTreeMap<ProjectId, Secret>,
}

/// `[log]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogSettings {
    /// Default auto.
    pub format: LogFormat,
    /// `EnvFilter` syntax. Default info.
    pub level: String,
}

/// `log.format`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// Text on a terminal, JSON otherwise.
    Auto,
    /// Text.
    Text,
    /// One JSON object a line.
    Json,
}

impl Settings {
    /// What the couriers need, with a client made for it. Fails where the client cannot be made.
    pub fn courier(&self) -> Result<courier::Settings, UpstreamError> {
        let delivery = self.delivery.clone();
        Ok(courier::Settings {
            batch: delivery.batch,
            backoff: delivery.backoff,
            confirm: delivery.confirm,
            confirm_patience: delivery.confirm_patience,
            token_counts: delivery.token_counts,
            concurrency: delivery.concurrency,
            max_in_flight: delivery.max_in_flight,
            rate_limit: delivery.rate_limit,
            feedback_wait_max: delivery.feedback_wait_max,
            feedback_concurrency: delivery.feedback_concurrency,
            default_key: delivery.default_key,
            project_keys: delivery.project_keys,
            upstream: Upstream::new(&self.upstream)?.masking(self.secrets.clone()),
        })
    }
}

/// Resolves and checks the whole configuration. Reads the files that it names and touches nothing else.
pub fn load(sources: &Sources) -> Result<Settings, Mistakes> {
    check(sources).0
}

/// The settings or the mistakes, and the values as far as they could be read.
fn check(sources: &Sources) -> (Result<Settings, Mistakes>, Resolver) {
    let mut resolver = Resolver::new(sources);
    derived::resolve(&mut resolver);
    resolver.check_rules();
    resolver.check_files();
    let delivery = delivery(&mut resolver);
    let intake = intake(&mut resolver);
    let redact = redact::redactor(&mut resolver);
    sources
        .secrets
        .learn(held::secrets(&resolver, delivery.as_ref(), &intake));
    for mistake in &mut resolver.mistakes {
        mistake.mask(&sources.secrets);
    }
    // From here on every value is there, because whatever could not be read left a mistake.
    let settings = match delivery {
        Some(delivery) if resolver.mistakes.is_empty() => Ok(Settings {
            spool: spool(
                &resolver,
                delivery.project_keys.keys().chain(&intake.default_project),
            ),
            intake,
            upstream: upstream(&resolver),
            delivery,
            redact,
            log: log(&resolver),
            grace: resolver.time("shutdown.grace").unwrap_or_default(),
            file: resolver.file.clone(),
            origins: resolver.origins.clone(),
            secrets: sources.secrets.clone(),
            passed_over: passed_over(sources),
            warnings: resolver.warnings.clone(),
        }),
        _ => Err(Mistakes(resolver.mistakes.clone())),
    };
    (settings, resolver)
}

/// The file that was not read because the first reading had another one, or none.
fn passed_over(sources: &Sources) -> Option<PathBuf> {
    let named = sources.file.is_some();
    sources.again.as_ref().filter(|_| !named)?.passed_over()
}

fn count(resolver: &Resolver, path: &str) -> usize {
    let number = resolver.number(path).unwrap_or_default();
    usize::try_from(number).unwrap_or(usize::MAX)
}

fn intake(resolver: &mut Resolver) -> IntakeSettings {
    let small = |number: u64| u32::try_from(number).unwrap_or(u32::MAX); // Bounded by its kind already.
    let gate = gate(resolver);
    IntakeSettings {
        http: resolver.address("intake.http"),
        unix: resolver.path("intake.unix"),
        unix_mode: small(resolver.number("intake.unix_mode").unwrap_or_default()),
        unix_group: resolver.number("intake.unix_group").map(small),
        remote: gate.token.is_some() && resolver.flag("intake.allow_remote") == Some(true),
        gate,
        browser: browser(resolver),
        max_body_bytes: count(resolver, "intake.max_body_bytes"),
        max_in_flight_bytes: count(resolver, "intake.max_in_flight_bytes"),
        max_event_bytes: count(resolver, "intake.max_event_bytes"),
        default_project: resolver.project(),
    }
}

fn gate(resolver: &mut Resolver) -> Gate {
    let ids = |path| {
        resolver
            .list(path)
            .iter()
            .filter_map(|id| id.parse().ok())
            .collect()
    };
    let peers = Peers {
        uids: ids("intake.unix_allow_uids"),
        gids: ids("intake.unix_allow_gids"),
    };
    Gate {
        token: resolver.secret_file("intake.token_file"),
        hosts: resolver.list("intake.hosts").to_vec(),
        origins: resolver.list("intake.origins").to_vec(),
        peers,
    }
}

fn browser(resolver: &Resolver) -> Option<BrowserSettings> {
    let rate = resolver.number("intake.browser.requests_per_minute");
    Some(BrowserSettings {
        listen: resolver.address("intake.browser.listen")?,
        rules: browser::Settings {
            origins: resolver.list("intake.browser.origins").to_vec(),
            max_body_bytes: count(resolver, "intake.browser.max_body_bytes"),
            requests_per_minute: u32::try_from(rate.unwrap_or_default()).unwrap_or(u32::MAX),
        },
    })
}

fn delivery(resolver: &mut Resolver) -> Option<DeliverySettings> {
    let default_key = resolver.secret("upstream.api_key");
    let key_file = resolver.secret_file("upstream.api_key_file");
    let project_keys = resolver.project_keys();
    let bounds = resolver.time("retry.min").zip(resolver.time("retry.max"));
    let backoff = match bounds.map(|(min, max)| Backoff::new(min, max))? {
        Ok(backoff) => backoff,
        Err(fault) => {
            if !resolver.is_wrong("retry.min") {
                resolver.wrong("retry.min", fault.to_string());
            }
            return None;
        }
    };
    Some(DeliverySettings {
        batch: Limits {
            max_events: count(resolver, "batch.max_events"),
            max_bytes: count(resolver, "batch.max_bytes"),
            max_age: resolver.time("batch.max_age").unwrap_or_default(),
        },
        backoff,
        confirm: resolver.flag("delivery.confirm").unwrap_or_default(),
        confirm_patience: resolver.time("delivery.confirm_patience").unwrap_or_default(),
        token_counts: match resolver.text("delivery.token_counts") {
            Some("always") => courier::TokenCounts::Always,
            Some("never") => courier::TokenCounts::Never,
            _ => courier::TokenCounts::Auto,
        },
        concurrency: count(resolver, "delivery.concurrency"),
        max_in_flight: count(resolver, "delivery.max_in_flight"),
        rate_limit: rate_limit(resolver),
        feedback_wait_max: resolver.time("feedback.wait_max").unwrap_or_default(),
        feedback_concurrency: count(resolver, "feedback.concurrency"),
        default_key: default_key.or(key_file),
        project_keys,
    })
}

fn rate_limit(resolver: &Resolver) -> courier::RateLimit {
    let rate = |path| {
        resolver
            .number(path)
            .map(|rate| u32::try_from(rate).unwrap_or(u32::MAX))
    };
    courier::RateLimit {
        requests_per_second: rate("upstream.rate_limit.requests_per_second"),
        events_per_second: rate("upstream.rate_limit.events_per_second"),
    }
}

fn spool<'a>(resolver: &Resolver, keep_room: impl Iterator<Item = &'a ProjectId>) -> spool::Settings {
    spool::Settings {
        path: resolver.path("spool.path").unwrap_or_default(),
        max_bytes: resolver.number("spool.max_bytes").unwrap_or_default(),
        max_projects: count(resolver, "spool.max_projects"),
        keep_room: keep_room.cloned().collect(),
        on_full: match resolver.text("spool.on_full") {
            Some("drop_oldest") => spool::OnFull::DropOldest,
            _ => spool::OnFull::Reject,
        },
        min_free_bytes: resolver.number("spool.min_free_bytes").unwrap_or_default(),
        generation_bytes: resolver.number("spool.generation_bytes").unwrap_or_default(),
        dead_max_bytes: resolver.number("dead_letters.max_bytes").unwrap_or_default(),
        dead_max_age: resolver.time("dead_letters.max_age").unwrap_or_default(),
    }
}

fn upstream(resolver: &Resolver) -> upstream::Settings {
    let base_url = resolver.text("upstream.base_url").unwrap_or_default();
    upstream::Settings {
        base_url: base_url.trim_end_matches('/').to_owned(),
        timeout: resolver.time("upstream.timeout").unwrap_or_default(),
        ca_file: resolver.path("upstream.ca_file"),
        proxy: resolver.text("upstream.proxy").map(str::to_owned),
    }
}

fn log(resolver: &Resolver) -> LogSettings {
    let format = match resolver.text("log.format") {
        Some("text") => LogFormat::Text,
        Some("json") => LogFormat::Json,
        _ => LogFormat::Auto,
    };
    LogSettings {
        format,
        level: resolver.text("log.level").unwrap_or_default().to_owned(),
    }
}
