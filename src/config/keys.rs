//! Every key of the configuration: the one place that resolution, `config show`, the check for unknown keys and the
//! documented `config.toml` all go by.
use super::units::{show_duration, show_size};
use std::time::Duration;

/// What a key's value is, and its bounds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kind {
    /// Any text.
    Text,
    /// A regular expression; checked along with what else its rule says.
    Regex,
    /// A text that is never shown.
    Secret,
    /// A file or folder; relative ones are against the working directory.
    Path,
    /// `true` or `false`.
    Flag,
    /// A whole number of something.
    Count {
        /// Least value.
        min: u64,
        /// Most value.
        max: u64,
        /// What is counted.
        of: &'static str,
    },
    /// Bytes, written with a unit.
    Size {
        /// Least value in bytes.
        min: u64,
        /// Most value in bytes.
        max: u64,
    },
    /// A duration, written with a unit.
    Time {
        /// Least value.
        min: Duration,
        /// Most value.
        max: Duration,
    },
    /// `host:port` with the host as an IP address.
    Address,
    /// Permissions in octal, as text.
    Mode,
    /// A group's name or number.
    Group,
    /// A list of texts.
    List {
        /// What each is, for the documentation.
        of: &'static str,
    },
    /// A list of numbers of users or groups.
    Ids {
        /// What each is, for the documentation.
        of: &'static str,
    },
    /// One of a few words.
    Choice(&'static [&'static str]),
    /// Log levels, as `tracing_subscriber`'s `EnvFilter` reads them.
    Filter,
}

impl Kind {
    /// Unit or form of the value, as `config.toml` documents it.
    pub fn unit(&self) -> String {
        match self {
            Kind::Text | Kind::Secret => "text".to_owned(),
            Kind::Regex => "regular expression".to_owned(),
            Kind::Path => "path".to_owned(),
            Kind::Flag => "true or false".to_owned(),
            Kind::Count { of, .. } => (*of).to_owned(),
            Kind::Size { .. } => "size (B, KiB, MiB, GiB)".to_owned(),
            Kind::Time { .. } => "time (ms, s, min, h, d)".to_owned(),
            Kind::Address => "IP address and port".to_owned(),
            Kind::Mode => "octal permissions".to_owned(),
            Kind::Group => "group name or number".to_owned(),
            Kind::List { of } | Kind::Ids { of } => format!("list of {of}"),
            Kind::Choice(words) => words.join(" or "),
            Kind::Filter => "level, or target=level pairs".to_owned(),
        }
    }

    /// Least and most value as people write them; `None` where there are no such bounds.
    pub fn bounds(&self) -> Option<(String, String)> {
        match self {
            Kind::Count { min, max, .. } => Some((min.to_string(), max.to_string())),
            Kind::Size { min, max } => Some((show_size(*min), show_size(*max))),
            Kind::Time { min, max } => Some((show_duration(*min), show_duration(*max))),
            _ => None,
        }
    }
}

/// What a key is when nobody sets it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Default {
    /// Nothing.
    None,
    /// This text.
    Text(&'static str),
    /// This number or truth value, as TOML writes it.
    Bare(&'static str),
    /// Found out at start, in the words of the documentation.
    Computed(&'static str),
}

impl Default {
    /// The default as `config.toml` documents it: TOML where it is a fixed value, words otherwise.
    pub fn documented(&self) -> String {
        match self {
            Default::None => "none".to_owned(),
            Default::Text(text) => format!("\"{text}\""),
            Default::Bare(text) | Default::Computed(text) => (*text).to_owned(),
        }
    }
}

/// One key.
#[derive(Debug, Clone, Copy)]
pub struct Key {
    /// Dotted path; `<id>` stands for a project id, `<name>` for the name of a rule.
    pub path: &'static str,
    /// What its value is.
    pub kind: Kind,
    /// What it is when nobody sets it.
    pub default: Default,
    /// What it does, in one line.
    pub doc: &'static str,
}

/// Path of the one key that exists per project.
pub const PROJECT_KEY: &str = "upstream.projects.<id>.api_key_file";

/// Paths of the keys that exist per own rule of redaction.
pub const RULE_KEYS: [&str; 3] = [
    "redact.rules.<name>.regex",
    "redact.rules.<name>.fields",
    "redact.rules.<name>.action",
];

/// What becomes of what redaction finds.
const ACTIONS: Kind = Kind::Choice(&["replace", "hash", "drop"]);

const fn list(of: &'static str) -> Kind {
    Kind::List { of }
}

/// The API stores documents of up to 16 MiB and silently loses the batch of a larger one (contract.md section 1);
/// it adds fields of its own, so events stay well below.
const MOST_EVENT_BYTES: u64 = 15 * MIB;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);

const fn key(path: &'static str, kind: Kind, default: Default, doc: &'static str) -> Key {
    Key {
        path,
        kind,
        default,
        doc,
    }
}

const fn size(min: u64, max: u64) -> Kind {
    Kind::Size { min, max }
}

const fn time(min: Duration, max: Duration) -> Kind {
    Kind::Time { min, max }
}

const fn count(min: u64, max: u64, of: &'static str) -> Kind {
    Kind::Count { min, max, of }
}

/// Every key, in the order of `config.toml`.
pub const KEYS: &[Key] = {
    use self::Default::{Bare, Computed, None, Text};
    &[
        key(
            "intake.http",
            Kind::Address,
            Text("127.0.0.1:4710"),
            "TCP address for HTTP; \"\" turns it off, port 0 takes a free one.",
        ),
        key(
            "intake.unix",
            Kind::Path,
            Computed("phosphod.sock in $RUNTIME_DIRECTORY, else $XDG_RUNTIME_DIR, else the data folder"),
            "Unix socket for HTTP and NDJSON; \"\" turns it off.",
        ),
        key(
            "intake.unix_mode",
            Kind::Mode,
            Text("0660"),
            "Permissions of the Unix socket.",
        ),
        key(
            "intake.unix_group",
            Kind::Group,
            None,
            "Group of the Unix socket; none leaves the daemon's own.",
        ),
        key(
            "intake.unix_allow_uids",
            Kind::Ids { of: "user numbers" },
            None,
            "Users that may use the Unix socket, beside what its mode says; none leaves it to the mode.",
        ),
        key(
            "intake.unix_allow_gids",
            Kind::Ids { of: "group numbers" },
            None,
            "Groups whose processes may use the Unix socket; none leaves it to the mode.",
        ),
        key(
            "intake.hosts",
            list("host names"),
            None,
            "Further names, without port, that the Host of a request over TCP may bear.",
        ),
        key(
            "intake.origins",
            list("origins"),
            None,
            "Origins whose requests may write to intake.http and the Unix socket.",
        ),
        key(
            "intake.token_file",
            Kind::Path,
            Computed("the credential phosphod-token, if systemd hands one over"),
            "File with a bearer token that TCP clients must then show.",
        ),
        key(
            "intake.allow_remote",
            Kind::Flag,
            Bare("false"),
            "Allows intake.http and intake.browser.listen beyond loopback; needs intake.token_file as well.",
        ),
        key(
            "intake.max_body_bytes",
            size(64 * KIB, GIB),
            Text("128 MiB"),
            "Largest request body; log requests may be of any size.",
        ),
        key(
            "intake.max_in_flight_bytes",
            size(4 * MIB, 1 << 40),
            Text("256 MiB"),
            "Most bytes of request bodies in flight; at least twice intake.max_event_bytes.",
        ),
        key(
            "intake.max_event_bytes",
            size(KIB, MOST_EVENT_BYTES),
            Text("15 MiB"),
            "Largest event; the API silently loses what is over 16 MiB.",
        ),
        key(
            "intake.browser.listen",
            Kind::Address,
            None,
            "TCP address for feedback from web pages.",
        ),
        key(
            "intake.browser.origins",
            list("origins"),
            None,
            "Web pages that may send feedback there.",
        ),
        key(
            "intake.browser.max_body_bytes",
            size(KIB, MIB),
            Text("64 KiB"),
            "Largest feedback of a web page.",
        ),
        key(
            "intake.browser.requests_per_minute",
            count(1, 100_000, "requests"),
            Bare("60"),
            "Most feedback a minute from one address.",
        ),
        key(
            "upstream.base_url",
            Kind::Text,
            Text("https://api.phospho.ai"),
            "Where events go, without /v2.",
        ),
        key(
            "upstream.api_key",
            Kind::Secret,
            None,
            "API key; better kept in a file or in PHOSPHO_API_KEY.",
        ),
        key(
            "upstream.api_key_file",
            Kind::Path,
            Computed("the credential phospho-api-key, if systemd hands one over"),
            "File with the API key; excludes upstream.api_key.",
        ),
        key(
            "upstream.project_id",
            Kind::Text,
            None,
            "Project of events that name none.",
        ),
        key(
            "upstream.timeout",
            time(MS.saturating_mul(100), HOUR),
            Text("30 s"),
            "Longest that a log request may go without any progress.",
        ),
        key(
            "upstream.ca_file",
            Kind::Path,
            None,
            "Further trusted certificates, PEM.",
        ),
        key(
            "upstream.proxy",
            Kind::Text,
            None,
            "Proxy to reach the API through (http://, https:// or socks5://). Not used for a base URL on this machine.",
        ),
        key(
            "upstream.allow_insecure",
            Kind::Flag,
            Bare("false"),
            "Allows http:// to a host that is not this machine: the key then travels in the clear.",
        ),
        key(
            "upstream.rate_limit.requests_per_second",
            count(1, 1_000_000, "requests"),
            None,
            "Most requests a second, of any kind, retries included.",
        ),
        key(
            "upstream.rate_limit.events_per_second",
            count(1, 1_000_000_000, "events"),
            None,
            "Most log events a second, retries included.",
        ),
        key(
            PROJECT_KEY,
            Kind::Path,
            Computed("the credential phospho-api-key.<id>, if systemd hands one over"),
            "File with the API key of one project.",
        ),
        key(
            "redact.detect",
            list("detectors"),
            None,
            "What is taken out of events before they are stored: all, or some of email, phone, credit_card, api_key, iban, ip.",
        ),
        key(
            "redact.fields",
            list("field paths"),
            Computed("every text but ids, flags and user_id"),
            "Where it is looked for; * stands for any one key or list element.",
        ),
        key(
            "redact.action",
            ACTIONS,
            Text("replace"),
            "replace puts [email] in its place, hash [email:9f2c61d04be8a377], drop empties the whole text.",
        ),
        key(
            "redact.hash_key_file",
            Kind::Path,
            None,
            "File with the key of hashes, at least 16 bytes; hash needs it.",
        ),
        key(
            "redact.drop_fields",
            list("field paths"),
            None,
            "Fields that are left out altogether.",
        ),
        key(
            RULE_KEYS[0],
            Kind::Regex,
            None,
            "What this rule takes out, in the syntax of the Rust crate regex.",
        ),
        key(
            RULE_KEYS[1],
            list("field paths"),
            Computed("redact.fields"),
            "Where this rule looks.",
        ),
        key(
            RULE_KEYS[2],
            ACTIONS,
            Computed("redact.action"),
            "What this rule does with what it finds.",
        ),
        key(
            "batch.max_events",
            count(1, 10_000, "events"),
            Bare("500"),
            "Most events in one request to the API.",
        ),
        key(
            "batch.max_bytes",
            size(KIB, 64 * MIB),
            Text("4 MiB"),
            "Most bytes in one request to the API; a larger event goes alone.",
        ),
        key(
            "batch.max_age",
            time(Duration::ZERO, HOUR),
            Text("500 ms"),
            "Longest that an event waits for company.",
        ),
        key(
            "retry.min",
            time(MS, HOUR),
            Text("500 ms"),
            "Bound of the first wait after a passing fault; it doubles from there.",
        ),
        key(
            "retry.max",
            time(MS, DAY),
            Text("60 s"),
            "Longest wait between attempts, Retry-After included.",
        ),
        key(
            "feedback.wait_max",
            time(SECOND, DAY.saturating_mul(30)),
            Text("1 h"),
            "How long a feedback waits for its task to appear; then it is a dead letter.",
        ),
        key(
            "feedback.concurrency",
            count(1, 1_000, "requests"),
            Bare("16"),
            "Feedback requests of one project in flight at once.",
        ),
        key(
            "spool.path",
            Kind::Path,
            Computed("$STATE_DIRECTORY, else ./data"),
            "Data folder.",
        ),
        key(
            "spool.max_bytes",
            size(MIB, 1 << 50),
            Text("10 GiB"),
            "Most bytes of queued events.",
        ),
        key(
            "spool.max_projects",
            count(1, 100_000, "projects"),
            Bare("1000"),
            "Most projects without a key of their own that may have events queued at a time.",
        ),
        key(
            "spool.on_full",
            Kind::Choice(&["reject", "drop_oldest"]),
            Text("reject"),
            "What happens when the spool is full: reject answers 503, drop_oldest drops what waits longest.",
        ),
        key(
            "spool.min_free_bytes",
            size(0, 1 << 50),
            Text("256 MiB"),
            "Free disk space below which nothing more is accepted.",
        ),
        key(
            "spool.generation_bytes",
            size(MIB, 1 << 30),
            Text("64 MiB"),
            "Bytes in one folder of the queue; it is deleted whole once they have ended.",
        ),
        key(
            "dead_letters.max_bytes",
            size(0, 1 << 50),
            Text("1 GiB"),
            "Most bytes of dead letters; the oldest go first.",
        ),
        key(
            "dead_letters.max_age",
            time(SECOND, DAY.saturating_mul(3650)),
            Text("30 d"),
            "Longest that a dead letter is kept.",
        ),
        key(
            "delivery.confirm",
            Kind::Flag,
            Bare("true"),
            "Reads a task of each batch back, since the API answers before it stores.",
        ),
        key(
            "delivery.confirm_patience",
            time(MS, HOUR),
            Text("3400 ms"),
            "How long an accepted event may be missing before it counts as not stored.",
        ),
        key(
            "delivery.token_counts",
            Kind::Choice(&["auto", "always", "never"]),
            Text("auto"),
            "Whether tool calls and the like get token counts of 0, without which the API may lose their batch; auto asks it.",
        ),
        key(
            "delivery.concurrency",
            count(1, 64, "requests"),
            Bare("4"),
            "Most log requests of one project in flight at once; with 1 all its events stay in order, else each session's.",
        ),
        key(
            "delivery.max_in_flight",
            count(2, 10_000, "requests"),
            Bare("64"),
            "Most requests to the API in flight at once, of all projects; feedback takes half of them at most.",
        ),
        key(
            "log.format",
            Kind::Choice(&["auto", "text", "json"]),
            Text("auto"),
            "auto is text on a terminal and in systemd's journal, and JSON otherwise.",
        ),
        key("log.level", Kind::Filter, Text("info"), "How much is logged."),
        key(
            "shutdown.grace",
            time(Duration::ZERO, HOUR),
            Text("10 s"),
            "How long attempts in flight may finish at the end.",
        ),
    ]
};
