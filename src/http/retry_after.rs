//! The header `Retry-After`.

use std::time::{Duration, SystemTime};

use ::http::header::{DATE, HeaderMap, HeaderName, RETRY_AFTER};

/// Reads the header `Retry-After`: the time for which the service asks callers to stay away.
///
/// The value is a number of seconds or a date. A date counts from the response's own `Date`, so that the clocks of the
/// two sides need not agree; without a `Date`, it counts from the clock of this machine. A date in the past is zero.
/// Any other value, such as a negative number, counts as no header. A number that is too large counts as a very long
/// time; each layer that acts on it has a maximum of its own.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use buttress::http::retry_after;
/// # use http::HeaderMap;
///
/// let mut headers = HeaderMap::new();
/// headers.insert("date", "Sun, 06 Nov 1994 08:49:37 GMT".parse()?);
/// headers.insert("retry-after", "Sun, 06 Nov 1994 08:50:00 GMT".parse()?);
/// assert_eq!(retry_after(&headers), Some(Duration::from_secs(23)));
/// # Ok::<(), http::Error>(())
/// ```
#[must_use]
pub fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let value = text(headers, &RETRY_AFTER)?;
    if let Some(seconds) = number(value.as_bytes()) {
        return Some(Duration::from_secs(seconds));
    }
    let at = httpdate::parse_http_date(value).ok()?;
    let date = text(headers, &DATE).and_then(|date| httpdate::parse_http_date(date).ok());
    let now = date.unwrap_or_else(SystemTime::now);
    Some(at.duration_since(now).unwrap_or_default())
}

/// Returns the header as text, if it is text.
pub(super) fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    let value = headers.get(name)?.to_str().ok()?;
    Some(value.trim())
}

/// Returns the number if the text consists of decimal digits, without a sign or a space. A number that is too large
/// becomes the largest one.
pub(super) fn number(text: &[u8]) -> Option<u64> {
    let append = |number: u64, digit: &u8| {
        let number = number.saturating_mul(10);
        let digit = digit.is_ascii_digit().then(|| digit - b'0')?;
        Some(number.saturating_add(digit.into()))
    };
    (!text.is_empty()).then(|| text.iter().try_fold(0, append))?
}

#[cfg(test)]
mod tests {
    use super::*;
    use ::http::HeaderValue;
    use proptest::prelude::*;
    use std::time::UNIX_EPOCH;

    fn read(value: &[u8], date: Option<&str>) -> Option<Duration> {
        let mut headers = HeaderMap::new();
        headers.insert(RETRY_AFTER, HeaderValue::from_bytes(value).unwrap());
        if let Some(date) = date {
            headers.insert(DATE, date.parse().unwrap());
        }
        retry_after(&headers)
    }

    #[test]
    fn seconds_are_seconds() {
        assert_eq!(read(b"120", None), Some(Duration::from_secs(120)));
        assert_eq!(read(b"0", None), Some(Duration::ZERO));
        assert_eq!(read(b" 007 ", None), Some(Duration::from_secs(7)));
    }

    #[test]
    fn a_number_that_is_too_large_is_a_very_long_time() {
        let most = Some(Duration::from_secs(u64::MAX));
        assert_eq!(read(b"18446744073709551615", None), most);
        assert_eq!(read(b"18446744073709551616", None), most);
        assert_eq!(read(&[b'9'; 500], None), most);
    }

    #[test]
    fn a_date_counts_from_the_date_of_the_response() {
        let date = "Sun, 06 Nov 1994 08:49:37 GMT";
        let wait = |at: &str| read(at.as_bytes(), Some(date));
        let (minute, zero) = (Duration::from_secs(60), Duration::ZERO);
        assert_eq!(wait("Sun, 06 Nov 1994 08:50:37 GMT"), Some(minute));
        assert_eq!(wait("Sunday, 06-Nov-94 08:50:37 GMT"), Some(minute));
        assert_eq!(wait("Sun Nov  6 08:50:37 1994"), Some(minute));
        assert_eq!(wait("Sun, 06 Nov 1994 08:49:37 GMT"), Some(zero));
        assert_eq!(wait("Sun, 06 Nov 1994 08:00:00 GMT"), Some(zero), "past");
        let far = wait("Fri, 31 Dec 9999 23:59:59 GMT").unwrap();
        assert!(far > Duration::from_secs(8_000 * 365 * 24 * 3_600));
    }

    #[test]
    fn without_a_date_of_the_response_it_counts_from_now() {
        assert_eq!(
            read(b"Sun, 06 Nov 1994 08:49:37 GMT", None),
            Some(Duration::ZERO)
        );
        assert_eq!(
            read(b"Sun, 06 Nov 1994 08:49:37 GMT", Some("yesterday")),
            Some(Duration::ZERO)
        );
        let at = SystemTime::now() + Duration::from_secs(3_600);
        let wait = read(httpdate::fmt_http_date(at).as_bytes(), None).unwrap();
        assert!(wait > Duration::from_secs(3_500) && wait <= Duration::from_secs(3_600));
    }

    #[test]
    fn garbage_is_no_header() {
        let garbage: [&[u8]; 12] = [
            b"",
            b"-1",
            b"+1",
            b"1.5",
            b"1e3",
            b"0x10",
            b"soon",
            b"\xff\xfe",
            b"Sun, 06 Nov 1960 08:49:37 GMT",
            b"Sun, 31 Feb 2021 08:49:37 GMT",
            b"Sun, 06 Nov 1994 25:61:61 GMT",
            b"1, 2",
        ];
        for value in garbage {
            assert_eq!(read(value, None), None, "{value:?}");
        }
        assert_eq!(retry_after(&HeaderMap::new()), None);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(value in prop::collection::vec(0x20..=0xffu8, 0..40), date: bool) {
            prop_assume!(!value.contains(&0x7f));
            read(&value, date.then_some("Sun, 06 Nov 1994 08:49:37 GMT"));
        }

        #[test]
        fn every_date_is_read_back(now in 0..253_402_300_800u64, at in 0..253_402_300_800u64) {
            let date = |seconds| httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(seconds));
            let wait = read(date(at).as_bytes(), Some(&date(now)));
            prop_assert_eq!(wait, Some(Duration::from_secs(at.saturating_sub(now))));
        }
    }
}
