//! Sizes and times of which one may not be more than another, and the defaults that follow from it.
//!
//! A default gives way to what a person set: only two settings of a person can contradict each other, and then the mistake
//! names both.
use super::keys::{KEYS, Key, Kind};
use super::resolve::{BUILT_IN, Resolver, derived_from};
use super::units;
use super::values::Datum;
use std::collections::BTreeSet;
use std::time::Duration;

/// `larger` must be at least `times` as much as `smaller`, or what is accepted could never be handled.
#[derive(Debug, Clone, Copy)]
struct Order {
    smaller: &'static str,
    larger: &'static str,
    times: u128,
    /// What could not be if it were otherwise.
    why: &'static str,
}

/// Every such rule. No key is the larger one of one rule and the smaller one of another.
const ORDERS: [Order; 3] = [
    Order {
        smaller: "intake.max_event_bytes",
        larger: "spool.max_bytes",
        times: 1,
        why: "such an event could never be accepted",
    },
    // Half of the budget is for what is large, so such an event must fit into that.
    Order {
        smaller: "intake.max_event_bytes",
        larger: "intake.max_in_flight_bytes",
        times: 2,
        why: "such an event could never be taken",
    },
    Order {
        smaller: "retry.min",
        larger: "retry.max",
        times: 1,
        why: "no wait could lie between the two",
    },
];

/// Notes each contradiction between two settings of a person, and lets the defaults follow the settings.
pub(super) fn resolve(resolver: &mut Resolver) {
    for order in &ORDERS {
        contradiction(resolver, order);
    }
    let keys: BTreeSet<&str> = ORDERS
        .iter()
        .flat_map(|order| [order.smaller, order.larger])
        .collect();
    // All bounds are those of settings, so the order of the keys does not matter.
    let follows: Vec<_> = keys
        .into_iter()
        .filter(|key| !resolver.is_set(key))
        .filter_map(|key| Some((key, follow(resolver, key)?)))
        .collect();
    for (key, (amount, from)) in follows {
        let Some(known) = KEYS.iter().find(|known| known.path == key) else {
            continue;
        };
        if let Some(resolved) = resolver.values.get_mut(key) {
            resolved.datum = datum(known, amount);
            resolved.origin = derived_from(from);
        }
    }
}

fn contradiction(resolver: &mut Resolver, order: &Order) {
    let Order {
        smaller,
        larger,
        times,
        why,
    } = *order;
    if !resolver.is_set(smaller) || !resolver.is_set(larger) {
        return;
    }
    let (Some(small), Some(large)) = (amount(resolver, smaller), amount(resolver, larger)) else {
        return;
    };
    if small.saturating_mul(times) <= large {
        return;
    }
    let shown = |key: &str, amount| show(key, amount);
    let part = if times == 1 {
        String::new()
    } else {
        format!("one {times}th of ").replace("one 2th", "half")
    };
    let sentence = format!(
        "{} is more than {part}{larger}, which is {} ({}), so {why}: lower it to {} at most, or raise {larger} to {}",
        shown(smaller, small),
        shown(larger, large),
        resolver.origin(larger),
        shown(smaller, large / times),
        shown(larger, small.saturating_mul(times)),
    );
    resolver.wrong(smaller, sentence);
}

/// What a key that nobody set has to be other than its default, and for the sake of which key.
fn follow(resolver: &Resolver, key: &str) -> Option<(u128, &'static str)> {
    let plain = (resolver.origin(key) == BUILT_IN).then(|| amount(resolver, key))??;
    let set = |other: &str| resolver.is_set(other).then(|| amount(resolver, other)).flatten();
    let lowest = ORDERS
        .iter()
        .filter(|order| order.larger == key)
        .filter_map(|order| Some((set(order.smaller)?.saturating_mul(order.times), order.smaller)))
        .max_by_key(|(amount, _)| *amount);
    let highest = ORDERS
        .iter()
        .filter(|order| order.smaller == key)
        .filter_map(|order| Some((set(order.larger)? / order.times, order.larger)))
        .min_by_key(|(amount, _)| *amount);
    highest
        .filter(|(most, _)| plain > *most)
        .or(lowest.filter(|(least, _)| plain < *least))
}

fn amount(resolver: &Resolver, key: &str) -> Option<u128> {
    let number = resolver.number(key).map(u128::from);
    number.or_else(|| resolver.time(key).map(|time| time.as_nanos()))
}

fn datum(key: &Key, amount: u128) -> Datum {
    // Both come from such values, and products of them are bounded by others.
    let number = u64::try_from(amount).unwrap_or(u64::MAX);
    match key.kind {
        Kind::Time { .. } => Datum::Time(Duration::from_nanos(number)),
        _ => Datum::Number(number),
    }
}

fn show(key: &str, amount: u128) -> String {
    let number = u64::try_from(amount).unwrap_or(u64::MAX);
    match KEYS
        .iter()
        .find(|known| known.path == key)
        .map(|known| known.kind)
    {
        Some(Kind::Time { .. }) => units::show_duration(Duration::from_nanos(number)),
        Some(Kind::Size { .. }) => units::show_size(number),
        _ => number.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::values;
    use super::super::{Sources, load};
    use super::*;
    use proptest::prelude::*;

    fn sources(set: &[(&str, String)]) -> Sources {
        Sources {
            set: set.iter().map(|(key, value)| format!("{key}={value}")).collect(),
            ..Sources::default()
        }
    }

    fn resolved(set: &[(&str, String)]) -> Resolver {
        let mut resolver = Resolver::new(&sources(set));
        super::resolve(&mut resolver);
        resolver
    }

    fn holds(resolver: &Resolver) -> bool {
        ORDERS.iter().all(|order| {
            let (small, large) = (amount(resolver, order.smaller), amount(resolver, order.larger));
            small.expect("a value") * order.times <= large.expect("a value")
        })
    }

    #[test]
    fn every_key_alone_may_be_as_small_and_as_large_as_its_bounds_say() {
        let bounded = KEYS.iter().filter_map(|key| Some((key, key.kind.bounds()?)));
        let mut tried = 0;
        for (key, (least, most)) in bounded {
            for value in [least, most] {
                let set = [(key.path, value.clone())];
                let loaded = load(&sources(&set));
                assert!(loaded.is_ok(), "{} = {value}: {loaded:?}", key.path);
                let resolver = resolved(&set);
                assert!(holds(&resolver), "{} = {value}", key.path);
                assert_eq!(resolver.origin(key.path), "--set");
                // What follows from it is itself a value that may be written.
                for resolved in resolver.values.values() {
                    let shown = values::show(resolved.key, &resolved.datum);
                    let kind = ::config::ValueKind::from(shown.trim_matches('"'));
                    if resolved.key.kind.bounds().is_some() {
                        assert_eq!(
                            values::read(resolved.key, &kind).as_ref(),
                            Ok(&resolved.datum),
                            "{shown}"
                        );
                    }
                }
                tried += 1;
            }
        }
        assert!(tried > 40, "{tried}");
    }

    #[test]
    fn a_default_says_what_it_follows_from() {
        let set = |key, value: &str| [(key, value.to_owned())];
        for (set, key, shown, from) in [
            (
                set("spool.max_bytes", "2 MiB"),
                "intake.max_event_bytes",
                "2 MiB",
                "spool.max_bytes",
            ),
            (
                set("intake.max_in_flight_bytes", "20 MiB"),
                "intake.max_event_bytes",
                "10 MiB",
                "intake.max_in_flight_bytes",
            ),
            (set("retry.max", "100 ms"), "retry.min", "100 ms", "retry.max"),
            (set("retry.min", "2 min"), "retry.max", "120 s", "retry.min"),
        ] {
            let resolver = resolved(&set);
            assert_eq!(
                show(key, amount(&resolver, key).expect("a value")),
                shown,
                "{key}"
            );
            assert_eq!(resolver.origin(key), format!("default, from {from}"), "{key}");
            assert!(resolver.mistakes.is_empty());
        }
        let plain = resolved(&set("spool.max_bytes", "24 MiB"));
        assert_eq!(
            plain.origin("intake.max_event_bytes"),
            BUILT_IN,
            "it fits as it is"
        );
    }

    #[test]
    fn two_settings_that_contradict_each_other_are_one_mistake_that_names_both() {
        let set = [
            ("intake.max_event_bytes", "8 MiB".to_owned()),
            ("spool.max_bytes", "2 MiB".to_owned()),
        ];
        let mistakes = resolved(&set).mistakes;
        let [mistake] = mistakes.as_slice() else {
            panic!("{mistakes:?}")
        };
        let told = mistake.to_string();
        for part in [
            "intake.max_event_bytes (--set): 8 MiB",
            "spool.max_bytes, which is 2 MiB (--set)",
            "raise spool.max_bytes to 8 MiB",
        ] {
            assert!(told.contains(part), "{told}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

        /// Whatever is set: either all orders hold, or a mistake names two keys that are set.
        #[test]
        fn orders_hold_or_two_settings_are_named(chosen in prop::collection::vec((any::<bool>(), 0.0..1.0_f64), 5)) {
            let keys: BTreeSet<&str> = ORDERS.iter().flat_map(|order| [order.smaller, order.larger]).collect();
            prop_assert_eq!(keys.len(), chosen.len());
            let mut set = Vec::new();
            for (key, (is_set, at)) in keys.iter().zip(chosen) {
                let known = KEYS.iter().find(|known| known.path == *key).expect("a key");
                let (least, most): (f64, f64) = match known.kind {
                    Kind::Size { min, max } => (min as f64, max as f64),
                    Kind::Time { min, max } => (min.as_millis() as f64, max.as_millis() as f64),
                    other => panic!("{other:?}"),
                };
                // Spread over all magnitudes.
                let value = (least.ln() + at * (most.ln() - least.ln())).exp().clamp(least, most) as u64;
                let unit = if matches!(known.kind, Kind::Time { .. }) { "ms" } else { "B" };
                if is_set {
                    set.push((*key, format!("{value} {unit}")));
                }
            }
            let resolver = resolved(&set);
            if resolver.mistakes.is_empty() {
                prop_assert!(holds(&resolver), "{:?}", set);
            }
            for mistake in &resolver.mistakes {
                let is_set = |key: &str| set.iter().any(|(set, _)| *set == key);
                let told = mistake.to_string();
                let named = set.iter().filter(|(key, _)| told.contains(key)).count();
                prop_assert!(is_set(&mistake.subject) && named == 2, "{}", told);
            }
        }
    }
}
