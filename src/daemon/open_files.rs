//! The limit on open files: raised as far as it may be, and shared out. A connection that took the last one would keep the queue
//! from being written and events from being sent.

use crate::http::Limits;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Files of the daemon's own: the queue, the listeners, the runtime, and some more.
const OWN: u64 = 64;
/// Connections of a listener that are let in however low the limit is.
const LEAST: usize = 16;

/// How many connections each listener may have, beside `in_flight` requests to the upstream.
pub(super) fn connections(listeners: usize, in_flight: usize) -> usize {
    let most = Limits::default().connections;
    let reserve = OWN + in_flight as u64;
    let wanted = reserve + (listeners * most) as u64;
    let limit = raised(wanted);
    let share = limit.map_or(most, |limit| share(limit, reserve, listeners, most));
    if share < most {
        tracing::warn!(
            open_files = limit,
            connections = share,
            "the limit on open files bounds the connections of each listener: raise it to {wanted} (LimitNOFILE, ulimit -n)"
        );
    }
    share
}

/// The limit, after it was raised to what is wanted if it may be; `None` without one.
fn raised(wanted: u64) -> Option<u64> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let now = current?;
    let goal = maximum.map_or(wanted, |maximum| maximum.min(wanted));
    let new = Rlimit {
        current: Some(goal),
        maximum,
    };
    if goal > now && setrlimit(Resource::Nofile, new).is_ok() {
        return Some(goal);
    }
    Some(now)
}

fn share(limit: u64, reserve: u64, listeners: usize, most: usize) -> usize {
    let each = limit.saturating_sub(reserve) / (listeners as u64).max(1);
    usize::try_from(each).map_or(most, |each| each.clamp(LEAST, most))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_shares_and_the_daemons_own_files_fit_into_the_limit() {
        for limit in 200..20_000 {
            for listeners in 1..=3 {
                let each = share(limit, 128, listeners, 4096);
                assert!(each <= 4096);
                let all = 128 + (listeners * each) as u64;
                assert!(
                    all <= limit.max(128 + 3 * LEAST as u64),
                    "{each} of {limit} for {listeners}"
                );
            }
        }
        assert_eq!(share(65_536, 128, 3, 4096), 4096);
        assert_eq!(share(20, 128, 2, 4096), LEAST);
    }
}
