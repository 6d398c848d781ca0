//! Durations and sizes as people write them: `500 ms`, `1 h`, `4 MiB`.
use std::time::Duration;

/// Accepted units of size, largest first. The decimal ones are read, and shown only if they were the only exact way.
const SIZES: [(&str, u64); 9] = [
    ("TiB", 1 << 40),
    ("TB", 1_000_000_000_000),
    ("GiB", 1 << 30),
    ("GB", 1_000_000_000),
    ("MiB", 1 << 20),
    ("MB", 1_000_000),
    ("KiB", 1 << 10),
    ("kB", 1_000),
    ("B", 1),
];

/// Units in which a duration is shown, largest first, in milliseconds. Minutes are read but not shown: `60 s` is
/// what people write.
const TIMES: [(&str, u128); 4] = [("d", 86_400_000), ("h", 3_600_000), ("s", 1_000), ("ms", 1)];

/// Reads a size: a whole number with a unit (`4 MiB`, `4MiB`), or without one for bytes. `None` if it is none, or
/// beyond 64 bits.
pub(super) fn parse_size(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().ok()?;
    let unit = unit.trim_start();
    if unit.is_empty() {
        return Some(number);
    }
    let (_, factor) = SIZES.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit))?;
    number.checked_mul(*factor)
}

/// Shows a size in the largest binary unit that holds it exactly: `4 MiB`, `1500 B`.
pub(super) fn show_size(bytes: u64) -> String {
    let binary = SIZES.iter().filter(|(name, _)| name.len() == 3);
    let exact = binary
        .clone()
        .find(|(_, factor)| bytes != 0 && bytes.is_multiple_of(*factor));
    match exact {
        Some((name, factor)) => format!("{} {name}", bytes / factor),
        None => format!("{bytes} B"),
    }
}

/// Reads a duration: whole numbers with units (`500 ms`, `1h 30min`). `None` if it is none; a number without a unit is none.
pub(super) fn parse_duration(text: &str) -> Option<Duration> {
    humantime::parse_duration(text.trim()).ok()
}

/// Shows a duration in the largest unit that holds it exactly: `500 ms`, `90 s`.
pub(super) fn show_duration(duration: Duration) -> String {
    let ms = duration.as_millis();
    let whole = Duration::from_millis(ms as u64) == duration;
    match TIMES.iter().find(|(_, factor)| ms.is_multiple_of(*factor)) {
        Some(_) if duration.is_zero() => "0 s".to_owned(),
        Some((name, factor)) if whole => format!("{} {name}", ms / factor),
        _ => humantime::format_duration(duration).to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn sizes_are_read_with_and_without_units() {
        for (text, bytes) in [
            ("4 MiB", 4 << 20),
            ("4MiB", 4 << 20),
            (" 10 GiB ", 10 << 30),
            ("512 KiB", 512 << 10),
            ("512 kib", 512 << 10),
            ("1500", 1500),
            ("2 kB", 2000),
            ("7 B", 7),
            ("0", 0),
        ] {
            assert_eq!(parse_size(text), Some(bytes), "{text}");
        }
        for text in [
            "",
            "MiB",
            "4 M",
            "4 mebibytes",
            "-1",
            "1.5 GiB",
            "4 MiB 3",
            "99999999999 TiB",
        ] {
            assert_eq!(parse_size(text), None, "{text}");
        }
    }

    #[test]
    fn sizes_and_durations_are_shown_in_their_largest_exact_unit() {
        assert_eq!(show_size(4 << 20), "4 MiB");
        assert_eq!(show_size((4 << 20) + 1), "4194305 B");
        assert_eq!(show_size(0), "0 B");
        assert_eq!(show_duration(Duration::from_millis(500)), "500 ms");
        assert_eq!(show_duration(Duration::from_secs(60)), "60 s");
        assert_eq!(show_duration(Duration::from_secs(90)), "90 s");
        assert_eq!(show_duration(Duration::from_secs(30 * 86_400)), "30 d");
        assert_eq!(show_duration(Duration::ZERO), "0 s");
    }

    #[test]
    fn a_duration_needs_a_unit() {
        assert_eq!(parse_duration("500"), None);
        assert_eq!(parse_duration("soon"), None);
        assert_eq!(parse_duration("1h 30min"), Some(Duration::from_secs(5400)));
    }

    proptest! {
        #[test]
        fn what_is_shown_is_read_back_the_same(bytes: u64, ms in 0..1_u64 << 43, ns in 0..2_000_000_000_u64) {
            prop_assert_eq!(parse_size(&show_size(bytes)), Some(bytes));
            for duration in [Duration::from_millis(ms), Duration::from_nanos(ns)] {
                prop_assert_eq!(parse_duration(&show_duration(duration)), Some(duration));
            }
        }
    }
}
