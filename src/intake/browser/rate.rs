//! How often each address may call. Pure: the time is an argument.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

/// Most addresses that are told apart; those that come beyond share one rate.
const MOST_ADDRESSES: usize = 4096;

const MINUTE: Duration = Duration::from_secs(60);

/// Whom the addresses beyond [`MOST_ADDRESSES`] count as: no client has it.
const REST: IpAddr = IpAddr::V6(Ipv6Addr::UNSPECIFIED);

/// Whom every loopback address counts as: this machine, which may connect from any of them.
const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// Up to so many requests a minute from an address, all at once if it likes; then as they come back, one by one.
#[derive(Debug)]
pub(super) struct Rate {
    /// How long one request takes to come back.
    each: Duration,
    /// When each address will have its whole minute's worth again; those that have it already need no entry.
    full_at: HashMap<IpAddr, Instant>,
}

impl Rate {
    /// `per_minute` of 0 counts as 1.
    pub(super) fn new(per_minute: u32) -> Self {
        Self {
            each: MINUTE / per_minute.max(1),
            full_at: HashMap::new(),
        }
    }

    /// Counts a request; or tells how long to wait until the next would be let in, and counts nothing.
    pub(super) fn admit(&mut self, from: IpAddr, now: Instant) -> Result<(), Duration> {
        let key = self.key(from, now);
        let full_at = self.full_at.get(&key).map_or(now, |at| (*at).max(now)) + self.each;
        let over = full_at.duration_since(now).saturating_sub(MINUTE);
        if !over.is_zero() {
            return Err(over);
        }
        self.full_at.insert(key, full_at);
        Ok(())
    }

    /// The key under which the address is counted.
    fn key(&mut self, from: IpAddr, now: Instant) -> IpAddr {
        let key = network(from);
        if self.full_at.len() >= MOST_ADDRESSES && !self.full_at.contains_key(&key) {
            self.full_at.retain(|_, full_at| *full_at > now);
            if self.full_at.len() >= MOST_ADDRESSES {
                return REST;
            }
        }
        key
    }
}

/// The machine or network that an address belongs to. Whoever has one address of version 6 has the whole /64, and a
/// process on this machine has all of `127.0.0.0/8` and `::1`. A mapped address counts as what it maps.
fn network(from: IpAddr) -> IpAddr {
    match from.to_canonical() {
        ip if ip.is_loopback() => LOOPBACK,
        IpAddr::V6(ip) => IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() >> 64 << 64)),
        old => old,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(number: u32) -> IpAddr {
        IpAddr::V4(number.into())
    }

    #[test]
    fn a_minutes_worth_may_come_at_once_and_then_comes_back_one_by_one() {
        let (mut rate, start) = (Rate::new(3), Instant::now());
        for _ in 0..3 {
            assert_eq!(rate.admit(ip(1), start), Ok(()));
        }
        assert_eq!(rate.admit(ip(1), start), Err(Duration::from_secs(20)));
        assert_eq!(rate.admit(ip(2), start), Ok(()), "another address has its own");
        let later = start + Duration::from_secs(15);
        assert_eq!(rate.admit(ip(1), later), Err(Duration::from_secs(5)));
        let later = start + Duration::from_secs(20);
        assert_eq!(rate.admit(ip(1), later), Ok(()));
        assert!(rate.admit(ip(1), later).is_err());
        let much_later = start + Duration::from_secs(3600);
        for _ in 0..3 {
            assert_eq!(rate.admit(ip(1), much_later), Ok(()));
        }
        assert!(rate.admit(ip(1), much_later).is_err(), "rest is not hoarded");
    }

    #[test]
    fn the_table_is_bounded_and_who_finds_no_place_shares_one() {
        let (mut rate, start) = (Rate::new(2), Instant::now());
        for number in 0..10_000 {
            let _ = rate.admit(ip(number), start);
        }
        assert!(rate.full_at.len() <= MOST_ADDRESSES + 1, "{}", rate.full_at.len());
        assert!(
            rate.admit(ip(20_000), start).is_err(),
            "the shared rate is used up"
        );
        assert_eq!(rate.admit(ip(0), start), Ok(()), "who has a place keeps it");
        let later = start + MINUTE;
        assert_eq!(
            rate.admit(ip(20_000), later),
            Ok(()),
            "old entries have made room"
        );
        assert!(rate.full_at.len() < 10, "{}", rate.full_at.len());
    }

    #[test]
    fn a_network_of_version_6_counts_as_one() {
        let (mut rate, now) = (Rate::new(1), Instant::now());
        let ip = |text: &str| text.parse::<IpAddr>().expect("an address");
        assert_eq!(rate.admit(ip("2001:db8::1"), now), Ok(()));
        assert!(rate.admit(ip("2001:db8::2"), now).is_err());
        assert_eq!(rate.admit(ip("2001:db8:0:1::1"), now), Ok(()));
    }

    #[test]
    fn this_machine_counts_as_one_whatever_address_it_comes_from() {
        let (mut rate, now) = (Rate::new(2), Instant::now());
        let ip = |text: &str| text.parse::<IpAddr>().expect("an address");
        for admitted in ["127.0.0.1", "::ffff:127.9.9.9"] {
            assert_eq!(rate.admit(ip(admitted), now), Ok(()), "{admitted}");
        }
        for refused in [
            "127.0.0.1",
            "127.0.0.2",
            "127.255.255.254",
            "::1",
            "::ffff:127.0.0.3",
        ] {
            assert!(rate.admit(ip(refused), now).is_err(), "{refused}");
        }
        for other in ["10.0.0.1", "::ffff:10.0.0.2", "::2", "fe80::1"] {
            assert_eq!(rate.admit(ip(other), now), Ok(()), "{other}");
        }
    }
}
