//! Every metric of the daemon, defined and documented in one place.
//!
//! Names start with `phosphod_` and end with their unit or `_total`. No label takes a client's free text,
//! so the number of series is bounded.

mod prometheus_text;

use crate::ledger::Ledger;
use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

/// Labels of [`Metrics::ledger_events`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct StateLabel {
    /// `accepted`, `delivered`, `dead`, `dropped` or `queued`.
    pub state: &'static str,
}

/// Labels of [`Metrics::intake_requests`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RequestLabels {
    /// The route's pattern, never the path itself; `unknown` for everything else.
    pub route: &'static str,
    /// HTTP status that was answered.
    pub status: u16,
}

/// Labels by lane kind.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct KindLabel {
    /// `log` or `feedback`.
    pub kind: &'static str,
}

/// Labels of [`Metrics::redact_hits`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct DetectorLabel {
    /// A built-in detector, a rule of the configuration, or `drop_fields`.
    pub detector: String,
}

/// Labels of [`Metrics::delivery_attempts`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct AttemptLabels {
    /// `log` or `feedback`.
    pub kind: &'static str,
    /// The verdict's name: `answered`, `bisect`, `split`, `park`, `retry`, `unknown`, `not_yet`, `read_back`, `refused`, `delivered`; for a
    /// task that was read back to confirm a batch: `stored`, `missing`, `unreadable`.
    pub verdict: &'static str,
}

/// Handles of all metrics, and their registry.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// `phosphod_ledger_events{state}`: the ledger, as of the last commit.
    pub ledger_events: Family<StateLabel, Gauge>,
    /// `phosphod_intake_requests_total{route,status}`: HTTP requests answered.
    pub intake_requests: Family<RequestLabels, Counter>,
    /// `phosphod_intake_lines_total`: NDJSON lines answered.
    pub intake_lines: Counter,
    /// `phosphod_intake_events_total{kind}`: events acknowledged, refused ones not included.
    pub intake_events: Family<KindLabel, Counter>,
    /// `phosphod_intake_refused_events_total{kind}`: events that were kept as dead letters at the door.
    pub intake_refused_events: Family<KindLabel, Counter>,
    /// `phosphod_intake_odd_times_total`: events whose times the API will replace by the time of arrival.
    pub intake_odd_times: Counter,
    /// `phosphod_intake_append_seconds`: from a parsed request to its events being synced.
    pub intake_append_seconds: Histogram,
    /// `phosphod_intake_in_flight_bytes`: what requests in flight take of `intake.max_in_flight_bytes`.
    pub intake_in_flight_bytes: Gauge,
    /// `phosphod_intake_no_room_total`: requests and lines refused because that was used up.
    pub intake_no_room: Counter,
    /// `phosphod_redact_hits_total{detector}`: private texts taken out of events and feedback at the door.
    pub redact_hits: Family<DetectorLabel, Counter>,
    /// `phosphod_spool_live_bytes`: payload bytes of events that have not ended.
    pub spool_live_bytes: Gauge,
    /// `phosphod_spool_saved_events_total`: events that were carried over from damaged files.
    pub spool_saved_events: Counter,
    /// `phosphod_spool_lost_events_total`: events that were in damaged files and could not be found.
    pub spool_lost_events: Counter,
    /// `phosphod_delivery_attempts_total{kind,verdict}`: requests sent upstream, by what their answer meant.
    pub delivery_attempts: Family<AttemptLabels, Counter>,
    /// `phosphod_delivery_attempt_seconds`: how long the upstream took to answer or fail.
    pub delivery_attempt_seconds: Histogram,
    /// `phosphod_delivery_over_quota_events_total`: events stored by the API but not analysed, the quota being used up.
    pub delivery_over_quota_events: Counter,
    /// `phosphod_delivery_unaddressable_events_total`: delivered log events whose task no URL of the API names.
    pub delivery_unaddressable_events: Counter,
    /// `phosphod_delivery_unconfirmed_batches_total`: batches that the API accepted and did not store.
    pub delivery_unconfirmed_batches: Counter,
    /// `phosphod_delivery_deferred_events`: events that keep failing alone while others pass, and are tried again beside them.
    pub delivery_deferred_events: Gauge,
    /// `phosphod_delivery_zero_counts_events_total`: events sent with token counts of 0 that they did not have.
    pub delivery_zero_counts_events: Counter,
    /// `phosphod_dead_letters_requeued_total`: dead letters that operators had queued again.
    pub dead_letters_requeued: Counter,
    /// `phosphod_dead_letters_purged_total`: dead letters that operators had removed.
    pub dead_letters_purged: Counter,
    /// `phosphod_dead_letters_dropped_total`: dead letters that went for `dead_letters.max_bytes` or `max_age`.
    pub dead_letters_dropped: Counter,
    /// `phosphod_delivery_window_requests`: log requests that may be in flight at once, summed over the projects.
    pub delivery_window_requests: Gauge,
    /// `phosphod_delivery_in_flight_requests{kind}`: requests that the upstream has not answered yet.
    pub delivery_in_flight_requests: Family<KindLabel, Gauge>,
    /// `phosphod_lanes{state}`: lanes by what they are doing.
    pub lanes: Family<StateLabel, Gauge>,
    /// `phosphod_log_lines_dropped_total`: lines of the daemon's own log that its reader will never
    /// see.
    pub log_lines_dropped: Counter,
}

impl Metrics {
    /// Registers everything.
    pub fn new() -> Self {
        let seconds = || exponential_buckets(0.0005, 2.0, 16);
        let mut this = Self {
            registry: Registry::with_prefix("phosphod"),
            ledger_events: Family::default(),
            intake_requests: Family::default(),
            intake_lines: Counter::default(),
            intake_events: Family::default(),
            intake_refused_events: Family::default(),
            intake_odd_times: Counter::default(),
            intake_append_seconds: Histogram::new(seconds()),
            intake_in_flight_bytes: Gauge::default(),
            intake_no_room: Counter::default(),
            redact_hits: Family::default(),
            spool_live_bytes: Gauge::default(),
            spool_saved_events: Counter::default(),
            spool_lost_events: Counter::default(),
            delivery_attempts: Family::default(),
            delivery_attempt_seconds: Histogram::new(seconds()),
            delivery_over_quota_events: Counter::default(),
            delivery_unaddressable_events: Counter::default(),
            delivery_unconfirmed_batches: Counter::default(),
            delivery_deferred_events: Gauge::default(),
            delivery_zero_counts_events: Counter::default(),
            dead_letters_requeued: Counter::default(),
            dead_letters_purged: Counter::default(),
            dead_letters_dropped: Counter::default(),
            delivery_window_requests: Gauge::default(),
            delivery_in_flight_requests: Family::default(),
            lanes: Family::default(),
            log_lines_dropped: Counter::default(),
        };
        let r = &mut this.registry;
        r.register(
            "ledger_events",
            "Events by where they ended, as of the last commit",
            this.ledger_events.clone(),
        );
        r.register(
            "intake_requests",
            "HTTP requests answered",
            this.intake_requests.clone(),
        );
        r.register("intake_lines", "NDJSON lines answered", this.intake_lines.clone());
        r.register("intake_events", "Events acknowledged", this.intake_events.clone());
        r.register(
            "intake_refused_events",
            "Events kept as dead letters at the door",
            this.intake_refused_events.clone(),
        );
        r.register(
            "intake_odd_times",
            "Events whose times the API will replace",
            this.intake_odd_times.clone(),
        );
        r.register_with_unit(
            "intake_append",
            "From a parsed request to its events being synced",
            Unit::Seconds,
            this.intake_append_seconds.clone(),
        );
        r.register_with_unit(
            "intake_in_flight",
            "What requests in flight take of intake.max_in_flight_bytes",
            Unit::Bytes,
            this.intake_in_flight_bytes.clone(),
        );
        r.register(
            "intake_no_room",
            "Requests and lines refused because intake.max_in_flight_bytes was used up",
            this.intake_no_room.clone(),
        );
        r.register(
            "redact_hits",
            "Private texts taken out of events and feedback at the door",
            this.redact_hits.clone(),
        );
        r.register_with_unit(
            "spool_live",
            "Payload of events that have not ended",
            Unit::Bytes,
            this.spool_live_bytes.clone(),
        );
        r.register(
            "spool_saved_events",
            "Events carried over from damaged files",
            this.spool_saved_events.clone(),
        );
        r.register(
            "spool_lost_events",
            "Events that were in damaged files and could not be found",
            this.spool_lost_events.clone(),
        );
        r.register(
            "delivery_attempts",
            "Requests sent upstream, by what their answer meant",
            this.delivery_attempts.clone(),
        );
        r.register_with_unit(
            "delivery_attempt",
            "How long the upstream took to answer or fail",
            Unit::Seconds,
            this.delivery_attempt_seconds.clone(),
        );
        r.register(
            "delivery_over_quota_events",
            "Events stored by the API but not analysed, the quota being used up",
            this.delivery_over_quota_events.clone(),
        );
        r.register(
            "delivery_unaddressable_events",
            "Log events accepted by the API whose task no URL of it names, so that they cannot be confirmed",
            this.delivery_unaddressable_events.clone(),
        );
        r.register(
            "delivery_unconfirmed_batches",
            "Batches that the API accepted and did not store",
            this.delivery_unconfirmed_batches.clone(),
        );
        r.register(
            "delivery_deferred_events",
            "Events that keep failing alone while others pass, and are tried again beside them",
            this.delivery_deferred_events.clone(),
        );
        r.register(
            "delivery_zero_counts_events",
            "Events sent with token counts of 0 that they did not have, without which the API would have lost them",
            this.delivery_zero_counts_events.clone(),
        );
        r.register(
            "dead_letters_requeued",
            "Dead letters queued again by operators",
            this.dead_letters_requeued.clone(),
        );
        r.register(
            "dead_letters_purged",
            "Dead letters removed by operators",
            this.dead_letters_purged.clone(),
        );
        r.register(
            "dead_letters_dropped",
            "Dead letters dropped to stay within their bounds",
            this.dead_letters_dropped.clone(),
        );
        r.register(
            "delivery_window_requests",
            "Log requests that may be in flight at once, summed over the projects",
            this.delivery_window_requests.clone(),
        );
        r.register(
            "delivery_in_flight_requests",
            "Requests that the upstream has not answered yet",
            this.delivery_in_flight_requests.clone(),
        );
        r.register("lanes", "Lanes by what they are doing", this.lanes.clone());
        r.register(
            "log_lines_dropped",
            "Lines of the daemon's own log that its reader will never see",
            this.log_lines_dropped.clone(),
        );
        this
    }

    /// The page as OpenMetrics text, with the ledger as given.
    pub fn encode(&self, ledger: &Ledger) -> Result<String, std::fmt::Error> {
        for (state, value) in [
            ("accepted", ledger.accepted),
            ("delivered", ledger.delivered),
            ("dead", ledger.dead),
            ("dropped", ledger.dropped),
            ("queued", ledger.queued),
        ] {
            self.ledger_events
                .get_or_create(&StateLabel { state })
                .set(i64::try_from(value).unwrap_or(i64::MAX));
        }
        let mut out = String::new();
        text::encode(&mut out, &self.registry)?;
        Ok(out)
    }

    /// The same page in the text format 0.0.4 of Prometheus.
    pub fn encode_prometheus(&self, ledger: &Ledger) -> Result<String, std::fmt::Error> {
        Ok(prometheus_text::from_open_metrics(&self.encode(ledger)?))
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}
