//! In which format `/metrics` answers: what the `Accept` header asks for, as the libraries of
//! Prometheus read it. Pure.

use hyper::HeaderMap;
use hyper::header::{ACCEPT, HeaderValue};

/// A text format of metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    /// Prometheus 0.0.4, which everything reads. The default.
    Prometheus,
    /// OpenMetrics 1.0.
    OpenMetrics,
}

impl Format {
    /// Its `Content-Type`.
    pub(super) fn content_type(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            Format::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            Format::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        })
    }

    /// The format that a request asks for: the known one of the highest quality, and of equals the
    /// one named first. What names none of them gets the default, because a page that is refused is
    /// of no use to anybody.
    pub(super) fn asked(headers: &HeaderMap) -> Format {
        let mut best = None;
        let lines = headers
            .get_all(ACCEPT)
            .iter()
            .filter_map(|value| value.to_str().ok());
        for range in lines.flat_map(|line| line.split(',')) {
            let Some((format, quality)) = read(range) else {
                continue;
            };
            if quality > best.map_or(0, |(_, most)| most) {
                best = Some((format, quality));
            }
        }
        best.map_or(Format::Prometheus, |(format, _)| format)
    }
}

/// The format that a media range names, and its quality in thousandths; `None` if it names none
/// that is known.
fn read(range: &str) -> Option<(Format, u16)> {
    let mut parts = range.split(';').map(str::trim);
    let media = parts.next()?.to_ascii_lowercase();
    let (mut quality, mut version) = (1000, None);
    for part in parts {
        let (name, value) = part.split_once('=').unwrap_or((part, ""));
        let value = value.trim().trim_matches('"');
        match name.trim().to_ascii_lowercase().as_str() {
            "q" => quality = thousandths(value),
            "version" => version = Some(value),
            _ => {}
        }
    }
    let format = match (media.as_str(), version) {
        ("application/openmetrics-text", None | Some("0.0.1" | "1.0.0")) => Format::OpenMetrics,
        ("text/plain", None | Some("0.0.4")) | ("text/*" | "*/*", _) => Format::Prometheus,
        _ => return None,
    };
    Some((format, quality))
}

/// A quality in thousandths. One that is no number counts as none given, and none is above 1.
fn thousandths(text: &str) -> u16 {
    match text.parse::<f64>() {
        Ok(quality) if quality.is_finite() => (quality.clamp(0.0, 1.0) * 1000.0).round() as u16,
        _ => 1000,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(accept: &[&str]) -> Format {
        let mut headers = HeaderMap::new();
        for line in accept {
            headers.append(ACCEPT, HeaderValue::from_str(line).expect("a header"));
        }
        Format::asked(&headers)
    }

    #[test]
    fn openmetrics_is_given_only_where_it_is_asked_for_most() {
        use Format::{OpenMetrics, Prometheus};
        for (accept, format) in [
            // Prometheus 2 and 3, an older one, VictoriaMetrics, curl, a browser.
            (
                "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,\
                 text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
                OpenMetrics,
            ),
            (
                "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,\
                 application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.3,\
                 text/plain;version=0.0.4;q=0.2,*/*;q=0.1",
                OpenMetrics,
            ),
            ("text/plain;version=0.0.4;q=1,*/*;q=0.1", Prometheus),
            ("text/plain; version=0.0.4, */*; q=0.1", Prometheus),
            ("*/*", Prometheus),
            (
                "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
                Prometheus,
            ),
            ("application/openmetrics-text", OpenMetrics),
            (
                "Application/OpenMetrics-Text ; Version=\"1.0.0\" ; Q=0.3",
                OpenMetrics,
            ),
            ("text/plain;q=0.9, application/openmetrics-text;q=0.8", Prometheus),
            (
                "text/plain;q=0.8, application/openmetrics-text;q=0.9",
                OpenMetrics,
            ),
            ("text/plain, application/openmetrics-text", Prometheus),
            ("application/openmetrics-text, text/plain", OpenMetrics),
            ("application/openmetrics-text;q=0", Prometheus),
            ("application/openmetrics-text;q=0, */*;q=0.1", Prometheus),
            (
                "application/openmetrics-text;version=2.0.0, text/plain;q=0.1",
                Prometheus,
            ),
            (
                "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily",
                Prometheus,
            ),
            ("application/openmetrics-text;q=nonsense", OpenMetrics),
            ("", Prometheus),
            (";;,,=", Prometheus),
        ] {
            assert_eq!(asked(&[accept]), format, "{accept}");
        }
        assert_eq!(asked(&[]), Prometheus);
        assert_eq!(
            asked(&["text/plain;q=0.5", "application/openmetrics-text"]),
            OpenMetrics,
            "two lines are one list"
        );
    }
}
