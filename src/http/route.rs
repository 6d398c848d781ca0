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
    /// Shows what clients sent: on the Unix socket only.
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
/// A single trailing slash is forgiven. An empty parameter fits, so that the service can say what is missing.
pub(super) fn fits(pattern: &str, path: &str) -> Option<Range<usize>> {
    if let Some(found) = fits_exactly(pattern, path) {
        return Some(found);
    }
    fits_exactly(pattern, path.strip_suffix('/')?)
}

fn fits_exactly(pattern: &str, path: &str) -> Option<Range<usize>> {
    let Some((before, rest)) = pattern.split_once('{') else {
        return (pattern == path).then_some(0..0);
    };
    let (_, after) = rest.split_once('}')?;
    let param = path.strip_prefix(before)?.strip_suffix(after)?;
    (!param.contains('/')).then(|| before.len()..before.len() + param.len())
}

#[cfg(test)]
mod tests {
    use super::fits;

    fn param<'a>(pattern: &str, path: &'a str) -> Option<&'a str> {
        fits(pattern, path).map(|range| &path[range])
    }

    #[test]
    fn a_path_fits_its_pattern_with_or_without_one_trailing_slash() {
        assert_eq!(param("/log", "/log"), Some(""));
        assert_eq!(param("/log", "/log/"), Some(""));
        assert_eq!(param("/log", "/log//"), None);
        assert_eq!(param("/log", "/logs"), None);
        assert_eq!(param("/v2/log/{project_id}", "/v2/log/p1"), Some("p1"));
        assert_eq!(param("/v2/log/{project_id}", "/v2/log/p1/"), Some("p1"));
        assert_eq!(param("/v2/log/{project_id}", "/v2/log/p1/x"), None);
        assert_eq!(
            param("/v2/tasks/{task_id}/flag", "/v2/tasks/t%2F1/flag/"),
            Some("t%2F1")
        );
        assert_eq!(param("/v2/tasks/{task_id}/flag", "/v2/tasks//flag"), Some(""));
        assert_eq!(param("/v2/tasks/{task_id}/flag", "/v2/tasks/a/b/flag"), None);
        assert_eq!(param("/v2/tasks/{task_id}/flag", "/v2/tasks/flag"), None);
    }
}
