//! Timeouts as text: the value of a header.

use std::time::Duration;

use ::http::HeaderValue;

use crate::http::Protocol;
use crate::http::retry_after::number;

/// The units of `grpc-timeout`, the finest first.
const UNITS: [(&str, Duration); 6] = [
    ("n", Duration::from_nanos(1)),
    ("u", Duration::from_micros(1)),
    ("m", Duration::from_millis(1)),
    ("S", Duration::from_secs(1)),
    ("M", Duration::from_secs(60)),
    ("H", Duration::from_secs(3_600)),
];

/// Number of digits that gRPC permits.
const GRPC_DIGITS: usize = 8;

/// Number of digits of a number of milliseconds: 115 days, as in the Connect protocol.
const MILLIS_DIGITS: usize = 10;

/// Writes a timeout, rounded down: never longer than `left`.
///
/// `None` if the value would be zero.
pub(super) fn format(protocol: Protocol, left: Duration) -> Option<HeaderValue> {
    let (count, unit) = match protocol {
        Protocol::Grpc => in_finest_unit(left),
        Protocol::Http => (left.as_millis().min(most(MILLIS_DIGITS)), ""),
    };
    (count > 0).then(|| HeaderValue::try_from(format!("{count}{unit}")).ok())?
}

/// Returns the greatest number with this number of digits.
fn most(digits: usize) -> u128 {
    10_u128.pow(digits as u32) - 1
}

/// Returns a timeout in the finest unit in which it has no more digits than gRPC permits.
fn in_finest_unit(left: Duration) -> (u128, &'static str) {
    let most = most(GRPC_DIGITS);
    let units = UNITS.map(|(unit, one)| (left.as_nanos() / one.as_nanos(), unit));
    let finest = units.into_iter().find(|&(count, _)| count <= most);
    finest.unwrap_or((most, "H"))
}

/// Reads a timeout. `None` if the value is not a timeout.
pub(super) fn parse(protocol: Protocol, value: &HeaderValue) -> Option<Duration> {
    let text = value.as_bytes();
    let (one, digits, max) = match protocol {
        Protocol::Grpc => {
            let (&unit, digits) = text.split_last()?;
            let mut units = UNITS.into_iter();
            let (_, one) = units.find(|(name, _)| name.as_bytes() == [unit])?;
            (one, digits, GRPC_DIGITS)
        }
        Protocol::Http => (Duration::from_millis(1), text, MILLIS_DIGITS),
    };
    let count = number(digits).filter(|_| digits.len() <= max)?;
    let nanos = u64::from(one.subsec_nanos()) * count;
    Some(Duration::from_secs(one.as_secs() * count) + Duration::from_nanos(nanos))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const BOTH: [Protocol; 2] = [Protocol::Http, Protocol::Grpc];

    fn written(protocol: Protocol, left: Duration) -> String {
        let value = format(protocol, left).expect("above zero");
        value.to_str().expect("ASCII").to_owned()
    }

    fn read(protocol: Protocol, text: &str) -> Option<Duration> {
        parse(protocol, &HeaderValue::from_str(text).expect("visible"))
    }

    #[test]
    fn grpc_gets_the_finest_unit_that_fits_into_eight_digits() {
        let grpc = |left| written(Protocol::Grpc, left);
        assert_eq!(grpc(Duration::from_nanos(1)), "1n");
        assert_eq!(grpc(Duration::from_nanos(99_999_999)), "99999999n");
        assert_eq!(grpc(Duration::from_millis(100)), "100000u");
        assert_eq!(grpc(Duration::from_micros(1_234_567)), "1234567u");
        assert_eq!(grpc(Duration::from_secs(100)), "100000m");
        assert_eq!(grpc(Duration::from_secs(100_000)), "100000S");
        assert_eq!(grpc(Duration::from_secs(100_000_000)), "1666666M");
        assert_eq!(grpc(Duration::from_secs(6_000_000_000)), "1666666H");
        assert_eq!(grpc(Duration::MAX), "99999999H");
    }

    #[test]
    fn http_gets_milliseconds() {
        let http = |left| written(Protocol::Http, left);
        assert_eq!(http(Duration::from_micros(1_999)), "1");
        assert_eq!(http(Duration::from_secs(2)), "2000");
        assert_eq!(http(Duration::MAX), "9999999999");
    }

    #[test]
    fn nothing_left_has_no_text() {
        assert_eq!(format(Protocol::Http, Duration::from_micros(999)), None);
        assert_eq!(format(Protocol::Grpc, Duration::ZERO), None);
    }

    #[test]
    fn what_is_no_timeout_is_none() {
        for text in [
            "",
            "S",
            "1",
            "1s",
            "1SS",
            "1 S",
            " 1S",
            "-1S",
            "+1S",
            "1.5S",
            "0x1S",
            "1e3m",
            "123456789n",
            "000000001n",
        ] {
            assert_eq!(read(Protocol::Grpc, text), None, "{text:?}");
        }
        for text in ["", "-1", "+1", "1.5", "1m", " 1", "12345678901", "NaN"] {
            assert_eq!(read(Protocol::Http, text), None, "{text:?}");
        }
        let not_ascii = HeaderValue::from_bytes("٣m".as_bytes()).expect("opaque");
        assert!(BOTH.iter().all(|&it| parse(it, &not_ascii).is_none()));
    }

    #[test]
    fn every_unit_is_read() {
        let grpc = |text| read(Protocol::Grpc, text).expect("a timeout");
        assert_eq!(grpc("0n"), Duration::ZERO);
        assert_eq!(grpc("7n"), Duration::from_nanos(7));
        assert_eq!(grpc("7u"), Duration::from_micros(7));
        assert_eq!(grpc("7m"), Duration::from_millis(7));
        assert_eq!(grpc("7S"), Duration::from_secs(7));
        assert_eq!(grpc("7M"), Duration::from_secs(420));
        assert_eq!(grpc("99999999H"), Duration::from_secs(99_999_999 * 3_600));
        let http = read(Protocol::Http, "0250");
        assert_eq!(http, Some(Duration::from_millis(250)));
    }

    /// Durations of every order of magnitude.
    fn durations() -> impl Strategy<Value = Duration> {
        let nanos = (0_u32..64, any::<u64>()).prop_map(|(bits, word)| word >> bits);
        prop_oneof![
            nanos.prop_map(Duration::from_nanos),
            (0_u32..64, any::<u64>()).prop_map(|(bits, word)| Duration::from_secs(word >> bits)),
        ]
    }

    proptest! {
        #[test]
        fn what_arrives_is_never_longer_than_what_was_left(left in durations()) {
            for protocol in BOTH {
                let Some(value) = format(protocol, left) else {
                    prop_assert!(left < Duration::from_millis(1));
                    continue;
                };
                let arrived = parse(protocol, &value).expect("is a timeout");
                prop_assert!(arrived <= left);
                prop_assert!(!arrived.is_zero());
                // Nor much shorter, except for times that are too long to matter.
                let unit = Duration::from_millis(1).max(left / 99_999);
                if left < Duration::from_secs(9_999_999) {
                    prop_assert!(left.saturating_sub(arrived) <= unit, "{left:?} became {arrived:?}");
                }
            }
        }

        #[test]
        fn no_text_panics(text in proptest::collection::vec(any::<u8>(), 0..14)) {
            if let Ok(value) = HeaderValue::from_bytes(&text) {
                for protocol in BOTH {
                    let read = parse(protocol, &value);
                    prop_assert!(read.is_none() || text[0].is_ascii_digit());
                }
            }
        }

        #[test]
        fn every_number_with_a_unit_is_read(count in 0_u64..100_000_000, unit in "[numSMH]") {
            let text = format!("{count}{unit}");
            prop_assert!(read(Protocol::Grpc, &text).is_some());
        }
    }
}
