//! Paths and what may be done with them. Pure.

use std::ops::Range;

/// The methods that routes have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// Also answers HEAD.
    Get,
    /// Takes a body.
    Post,
}

impl Verb {
    /// The `Allow` header of a path that has only this verb.
    pub(super) fn allow(self) -> &'static str {
        match self {
            Verb::Get => "GET, HEAD",
            Verb::Post => "POST",
        }
    }

    /// As written in lists of routes.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Verb::Get => "GET",
            Verb::Post => "POST",
        }
    }
}

/// Who may call a route (security.md).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Guard {
    /// Anyone, without a token: health checks.
    Open,
    /// Over TCP the token, where one is configured.
    Token,
    /// As [`Guard::Token`], and never a web page: a request with an `Origin` is refused.
    Write,
    /// Shows what clients sent, or changes what is kept: on the Unix socket only, for who administers
    /// ([`super::Peers`]).
    UnixOnly,
}

/// One row of a service's table of routes.
#[derive(Debug)]
pub struct Route<Id> {
    /// Its method.
    pub verb: Verb,
    /// Its path; one segment may be a parameter, as in `/v2/tasks/{task_id}/flag`.
    pub pattern: &'static str,
    /// Who may call it.
    pub guard: Guard,
    /// What the service knows it by.
    pub id: Id,
}

/// Whether a path fits a pattern, and where its parameter stands in the path, if the pattern has one.
///
/// Empty segments fold: a client that joins a base URL with a trailing slash to a path sends
/// `//v2/log/p`. There is one exception. Where only empty segments stand in the place of the
/// parameter, the parameter is empty, so that the service can say what is missing:
/// `/v2/tasks//flag` names no task.
pub(super) fn fits(pattern: &str, path: &str) -> Option<Range<usize>> {
    if !path.starts_with('/') {
        return None;
    }
    let wanted = || pattern.split('/').filter(|segment| !segment.is_empty());
    let place = wanted().position(|segment| segment.starts_with('{'));
    let is_same = |(want, at): (&str, Range<usize>)| want.starts_with('{') || path.get(at) == Some(want);
    match wanted().count().checked_sub(segments(path).count())? {
        0 if wanted().zip(segments(path)).all(is_same) => match place {
            Some(place) => segments(path).nth(place),
            None => Some(0..0),
        },
        1 => {
            let place = place?;
            let before = wanted().take(place).zip(segments(path));
            let after = wanted().skip(place + 1).zip(segments(path).skip(place));
            let fits = before.chain(after).all(is_same);
            let begin = match place.checked_sub(1) {
                Some(previous) => segments(path).nth(previous)?.end + 1,
                None => 1,
            };
            // Between two neighbours an empty segment takes a second slash.
            let is_empty = match segments(path).nth(place) {
                Some(next) => next.start > begin,
                None => path.len() >= begin,
            };
            (fits && is_empty).then_some(begin..begin)
        }
        _ => None,
    }
}

/// Where the segments of a path stand that are not empty.
fn segments(path: &str) -> impl Iterator<Item = Range<usize>> {
    let mut end = 0;
    let all = path.split('/').map(move |segment| {
        let start = end;
        end += segment.len() + 1;
        start..start + segment.len()
    });
    all.filter(|at| !at.is_empty())
}

#[cfg(test)]
mod tests {
    use super::fits;
    use proptest::prelude::*;

    fn param<'a>(pattern: &str, path: &'a str) -> Option<&'a str> {
        fits(pattern, path).map(|range| &path[range])
    }

    #[test]
    fn a_path_fits_its_pattern_whatever_empty_segments_stand_in_it() {
        for path in ["/log", "/log/", "//log", "/log//", "///log///"] {
            assert_eq!(param("/log", path), Some(""), "{path}");
        }
        for path in ["", "log", "*", "/", "//", "/logs", "/log/x", "/x/log"] {
            assert_eq!(param("/log", path), None, "{path}");
        }
        let to = "/v2/log/{project_id}";
        for path in ["/v2/log/p1", "/v2/log/p1/", "//v2/log/p1", "/v2//log///p1//"] {
            assert_eq!(param(to, path), Some("p1"), "{path}");
        }
        for path in ["/v2/log/p1/x", "/v2/log", "/v2", "/v2//log"] {
            assert_eq!(param(to, path), None, "{path}");
        }
        let flag = "/v2/tasks/{task_id}/flag";
        for path in [
            "/v2/tasks/t%2F1/flag/",
            "//v2/tasks/t%2F1/flag",
            "/v2/tasks//t%2F1//flag",
        ] {
            assert_eq!(param(flag, path), Some("t%2F1"), "{path}");
        }
        for path in [
            "/v2/tasks/a/b/flag",
            "/v2/tasks/flag",
            "//v2//tasks/flag//",
            "/v2/tasks/a//b/flag",
        ] {
            assert_eq!(param(flag, path), None, "{path}");
        }
    }

    #[test]
    fn an_empty_parameter_stays_one() {
        for path in ["/v2/tasks//flag", "//v2/tasks//flag", "/v2//tasks///flag//"] {
            assert_eq!(param("/v2/tasks/{task_id}/flag", path), Some(""), "{path}");
        }
        for path in ["/v2/log/", "/v2/log//", "//v2/log/"] {
            assert_eq!(param("/v2/log/{project_id}", path), Some(""), "{path}");
        }
        assert_eq!(param("/{id}", "/"), Some(""));
        assert_eq!(param("/{id}/x", "//x"), Some(""));
        assert_eq!(param("/{id}/x", "/x"), None);
    }

    proptest! {
        #[test]
        fn more_slashes_change_nothing_where_none_are_missing(
            id in "[a-z%.]{1,8}",
            slashes in proptest::collection::vec(1_usize..4, 5),
            end in 0_usize..3,
        ) {
            let words = ["v2", "tasks", id.as_str(), "human-eval"];
            let mut path = String::new();
            for (word, count) in words.iter().zip(&slashes) {
                path.push_str(&"/".repeat(*count));
                path.push_str(word);
            }
            path.push_str(&"/".repeat(end));
            prop_assert_eq!(param("/v2/tasks/{task_id}/human-eval", &path), Some(id.as_str()));
        }
    }
}
