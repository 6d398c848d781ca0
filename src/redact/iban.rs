//! International bank account numbers: a country, its length, and a remainder of 1 modulo 97.
use super::around::is_word;
use super::digits::for_each_group;
use std::ops::Range;

/// Fewest digits that can be in one.
pub(super) const FEWEST_DIGITS: usize = 4;

/// The countries with the length of their numbers (the registry of ISO 13616), two letters and two digits each.
const LENGTHS: &str = "AD24AE23AL28AT20AZ28BA20BE16BG22BH22BI27BR29BY28CH21CR22CY28CZ24DE22DJ27DK18DO28EE20EG29ES24\
    FI18FK18FO18FR27GB22GE22GI23GL18GR27GT28HN28HR21HU28IE22IL23IQ23IS26IT27JO30KW30KZ20LB28LC32LI21LT20LU20LV21\
    LY25MC27MD24ME22MK19MN20MR27MT31MU30NI28NL18NO15OM23PK24PL28PS29PT25QA29RO24RS22RU33SA24SC31SD18SE24SI19SK24\
    SM27SO23ST25SV28TL23TN24TR26UA29VA22VG24XK20YE30";

/// Hands the place of each to `hit`.
pub(super) fn find(text: &str, hit: &mut dyn FnMut(Range<usize>)) {
    let bytes = text.as_bytes();
    // The country's letters stand right before the first digits.
    for_each_group(text, |digits| {
        let start = digits.checked_sub(2)?;
        let head = bytes.get(start..digits + 2)?;
        let begins = head[..2].iter().all(u8::is_ascii_alphabetic) && head[3].is_ascii_digit();
        if !begins || text.get(..start)?.ends_with(is_word) {
            return None;
        }
        let end = end_of_iban(bytes, start)?;
        if text.get(end..)?.starts_with(is_word) {
            return None;
        }
        hit(start..end);
        Some(end)
    });
}

fn length_of(country: &[u8]) -> Option<usize> {
    let (rows, _) = LENGTHS.as_bytes().as_chunks::<4>();
    let row = rows.iter().find(|row| row[..2].eq_ignore_ascii_case(country))?;
    Some(usize::from(row[2] - b'0') * 10 + usize::from(row[3] - b'0'))
}

/// Where the number that begins at `start` ends, if it is one. Single blanks and hyphens between are passed over.
fn end_of_iban(bytes: &[u8], start: usize) -> Option<usize> {
    let length = length_of(bytes.get(start..start + 2)?)?;
    let mut number = [0; 33];
    let mut at = start;
    for place in 0..length {
        if place > 0 && matches!(bytes.get(at), Some(b' ' | b'-')) {
            at += 1;
        }
        *number.get_mut(place)? = *bytes.get(at).filter(|byte| byte.is_ascii_alphanumeric())?;
        at += 1;
    }
    let number = number.get(..length)?;
    let turned = number[4..].iter().chain(&number[..4]);
    let remainder = turned.fold(0_u32, |remainder, byte| match byte {
        b'0'..=b'9' => (remainder * 10 + u32::from(byte - b'0')) % 97,
        letter => (remainder * 100 + u32::from(letter.to_ascii_uppercase() - b'A') + 10) % 97,
    });
    (remainder == 1).then_some(at)
}

#[cfg(test)]
mod tests {
    use super::super::detector;
    use super::*;

    fn found(text: &str) -> Vec<&str> {
        detector::found(text, find)
    }

    #[test]
    fn ibans_are_found_with_and_without_blanks() {
        for iban in [
            "DE89370400440532013000",
            "DE89 3704 0044 0532 0130 00",
            "de89 3704 0044 0532 0130 00",
            "GB82 WEST 1234 5698 7654 32",
            "FR14 2004 1010 0505 0001 3M02 606",
            "NL91-ABNA-0417-1643-00",
            "BE68 5390 0754 7034",
            "NO9386011117947",
        ] {
            for text in [
                iban.to_owned(),
                format!("to {iban}, with thanks"),
                format!("IBAN:{iban} with ref"),
            ] {
                assert_eq!(found(&text), [iban], "{text}");
            }
        }
    }

    #[test]
    fn a_wrong_remainder_length_or_country_is_no_iban() {
        for text in [
            "DE88370400440532013000",
            "DE8937040044053201300",
            "DE893704004405320130001",
            "XX89370400440532013000",
            "xDE89370400440532013000",
            "DE89  3704 0044 0532 0130 00",
            "DE89",
            "é12",
        ] {
            assert_eq!(found(text), Vec::<&str>::new(), "{text}");
        }
    }

    #[test]
    fn every_row_of_the_table_is_a_country_and_a_length() {
        assert_eq!(LENGTHS.len() % 4, 0);
        let (rows, _) = LENGTHS.as_bytes().as_chunks::<4>();
        for row in rows {
            let length = length_of(&row[..2]).expect("it is in the table");
            assert!(
                row[..2].iter().all(u8::is_ascii_uppercase) && (15..=33).contains(&length),
                "{row:?}"
            );
        }
    }
}
