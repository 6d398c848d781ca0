//! From OpenMetrics text to the older text format of Prometheus, version 0.0.4.
//!
//! `prometheus-client` writes OpenMetrics only. The two formats share their samples. They differ in
//! the comments: in 0.0.4 a type belongs to the name that the samples bear (`requests_total`,
//! `build_info`), there are neither units nor an end mark, and some types have other names. An
//! exemplar behind a sample does not exist there.

/// The suffix of a counter's sample, and of an info's.
const TOTAL: &str = "_total";
const INFO: &str = "_info";

/// Rewrites a whole page of OpenMetrics text.
pub(super) fn from_open_metrics(page: &str) -> String {
    let mut out = String::with_capacity(page.len());
    // A help text stands before the type, on which its name depends.
    let mut help = None;
    for line in page.lines() {
        let Some(comment) = line.strip_prefix("# ") else {
            push_line(&mut out, without_exemplar(line));
            continue;
        };
        if let Some(rest) = comment.strip_prefix("HELP ") {
            help = rest.split_once(' ');
        } else if let Some((name, kind)) = comment
            .strip_prefix("TYPE ")
            .and_then(|rest| rest.split_once(' '))
        {
            let (suffix, kind) = named(kind);
            if let Some((_, text)) = help.take().filter(|(helped, _)| *helped == name) {
                push_line(&mut out, &format!("# HELP {name}{suffix} {}", unquoted(text)));
            }
            push_line(&mut out, &format!("# TYPE {name}{suffix} {kind}"));
        }
    }
    out
}

/// What the samples of a type add to its name, and what 0.0.4 calls the type.
fn named(kind: &str) -> (&'static str, &str) {
    match kind {
        "counter" => (TOTAL, kind),
        "info" => (INFO, "gauge"),
        "stateset" => ("", "gauge"),
        "gaugehistogram" => ("", "histogram"),
        "unknown" => ("", "untyped"),
        kind => ("", kind),
    }
}

/// A help text, in which 0.0.4 escapes no quotes.
fn unquoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match (c, chars.as_str().chars().next()) {
            ('\\', Some('"')) => {}
            ('\\', Some(escaped)) => {
                out.push('\\');
                out.push(escaped);
                chars.next();
            }
            _ => out.push(c),
        }
    }
    out
}

/// A sample without what may follow its value: ` # {trace_id="x"} 1`. The value of a label may hold
/// the same characters.
fn without_exemplar(line: &str) -> &str {
    let (mut quoted, mut escaped) = (false, false);
    for (at, c) in line.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = quoted,
            '"' => quoted = !quoted,
            '#' if !quoted => return line[..at].trim_end(),
            _ => {}
        }
    }
    line
}

fn push_line(out: &mut String, line: &str) {
    out.push_str(line);
    out.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;
    use prometheus_client::encoding::text;
    use prometheus_client::metrics::counter::Counter;
    use prometheus_client::metrics::exemplar::CounterWithExemplar;
    use prometheus_client::metrics::family::Family;
    use prometheus_client::metrics::gauge::Gauge;
    use prometheus_client::metrics::histogram::Histogram;
    use prometheus_client::metrics::info::Info;
    use prometheus_client::registry::{Registry, Unit};

    #[test]
    fn every_kind_of_metric_is_written_as_version_0_0_4_has_it() {
        let mut registry = Registry::with_prefix("p");
        let family = Family::<Vec<(String, String)>, Counter>::default();
        let label = "a \"quoted\" # {hash} \\ and\nlines".to_owned();
        family.get_or_create(&vec![("l".to_owned(), label)]).inc_by(3);
        registry.register("events", "What came", family);
        let marked = CounterWithExemplar::<Vec<(String, String)>>::default();
        marked.inc_by(2, Some(vec![("trace".to_owned(), "x # y".to_owned())]), None);
        registry.register("marked", "With an exemplar", marked);
        let room = Gauge::<i64>::default();
        room.set(-7);
        registry.register_with_unit("room", "What is left", Unit::Bytes, room);
        let took = Histogram::new([0.5, 1.0]);
        took.observe(0.75);
        registry.register_with_unit("took", "How long", Unit::Seconds, took);
        registry.register("build", "What runs", Info::new(vec![("version", "1")]));
        let mut page = String::new();
        text::encode(&mut page, &registry).expect("into a string");
        let expected = r##"# HELP p_events_total What came.
# TYPE p_events_total counter
p_events_total{l="a \"quoted\" # {hash} \\ and\nlines"} 3
# HELP p_marked_total With an exemplar.
# TYPE p_marked_total counter
p_marked_total 2
# HELP p_room_bytes What is left.
# TYPE p_room_bytes gauge
p_room_bytes -7
# HELP p_took_seconds How long.
# TYPE p_took_seconds histogram
p_took_seconds_sum 0.75
p_took_seconds_count 1
p_took_seconds_bucket{le="0.5"} 0
p_took_seconds_bucket{le="1.0"} 1
p_took_seconds_bucket{le="+Inf"} 1
# HELP p_build_info What runs.
# TYPE p_build_info gauge
p_build_info{version="1"} 1
"##;
        assert_eq!(from_open_metrics(&page), expected, "from\n{page}");
    }

    #[test]
    fn what_no_metric_here_is_keeps_its_meaning_as_well() {
        let page = "# TYPE a unknown\n# HELP a said \\\"so\\\" \\\\\"\n# TYPE a unknown\na 1\n# TYPE s stateset\ns{s=\"x\"} 1\n# EOF\n";
        let expected = "# TYPE a untyped\n# HELP a said \"so\" \\\\\"\n# TYPE a untyped\na 1\n# TYPE s gauge\ns{s=\"x\"} 1\n";
        assert_eq!(from_open_metrics(page), expected);
    }
}
