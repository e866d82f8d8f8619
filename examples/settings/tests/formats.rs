//! The settings of a stack in three formats, and the errors of those that are wrong.

use std::time::Duration;

use buttress::settings::{SlowCalls, Stack};
use buttress::{Backoff, Jitter, Mode, Rate};
use config::{Config, ConfigError, File, FileFormat};

const TOML: &str = r#"
timeout = "300ms"
deadline = "1m 30s"

[retry]
max_attempts = 2
backoff = { base = "20ms", cap = "1s", jitter = "none" }

[circuit_breaker]
failure_share = 0.3
slow_calls = { longer_than = "200ms", share = 0.5 }
mode = "observe"

[rate_limit]
rate = { count = 100, per = "1s" }

[bulkhead]
limit = 50
queue_order = "lifo"
"#;

const YAML: &str = "
timeout: 300ms
deadline: 1m 30s
retry:
  max_attempts: 2
  backoff: { base: 20ms, cap: 1s, jitter: none }
circuit_breaker:
  failure_share: 0.3
  slow_calls: { longer_than: 200ms, share: 0.5 }
  mode: observe
rate_limit:
  rate: { count: 100, per: 1s }
bulkhead:
  limit: 50
  queue_order: lifo
";

const JSON: &str = r#"{
  "timeout": "300ms",
  "deadline": "1m 30s",
  "retry": {"max_attempts": 2, "backoff": {"base": "20ms", "cap": "1s", "jitter": "none"}},
  "circuit_breaker": {
    "failure_share": 0.3,
    "slow_calls": {"longer_than": "200ms", "share": 0.5},
    "mode": "observe"
  },
  "rate_limit": {"rate": {"count": 100, "per": "1s"}},
  "bulkhead": {"limit": 50, "queue_order": "lifo"}
}"#;

fn read(text: &str, format: FileFormat) -> Result<Stack, ConfigError> {
    let source = File::from_str(text, format);
    Config::builder()
        .add_source(source)
        .build()?
        .try_deserialize()
}

#[test]
fn three_formats_give_the_same_settings() {
    let stack = read(TOML, FileFormat::Toml).unwrap();
    assert_eq!(stack, read(YAML, FileFormat::Yaml).unwrap());
    assert_eq!(stack, read(JSON, FileFormat::Json).unwrap());

    let (millisecond, second) = (Duration::from_millis(1), Duration::from_secs(1));
    assert_eq!(stack.timeout, Some(300 * millisecond));
    assert_eq!(stack.deadline, Some(90 * second));
    assert_eq!(stack.response_timeout, None);
    let retry = stack.retry.unwrap();
    let backoff = Backoff::exponential(20 * millisecond, second).jitter(Jitter::None);
    assert_eq!(
        (retry.max_attempts, retry.backoff),
        (Some(2), Some(backoff))
    );
    let breaker = stack.circuit_breaker.unwrap();
    let slow_calls = SlowCalls {
        longer_than: 200 * millisecond,
        share: 0.5,
    };
    assert_eq!(breaker.slow_calls, Some(slow_calls));
    assert_eq!(breaker.mode, Some(Mode::Observe));
    assert_eq!(stack.rate_limit.unwrap().rate, Some(Rate::per_second(100)));
    assert_eq!(stack.bulkhead.unwrap().limit, Some(50));
}

#[test]
fn settings_can_be_written_and_read_again() {
    let stack = read(TOML, FileFormat::Toml).unwrap();
    let text = serde_json::to_string(&stack).unwrap();
    assert!(text.contains(r#""deadline":"1m 30s""#), "{text}");
    assert!(!text.contains("null"), "{text}");
    assert_eq!(serde_json::from_str::<Stack>(&text).unwrap(), stack);
}

#[test]
fn a_wrong_value_is_refused_with_its_path() {
    for (text, parts) in [
        ("timeout = 300", ["timeout", "time unit needed"]),
        ("timeout = \"300\"", ["timeout", "time unit needed"]),
        ("timeout = \"-1s\"", ["timeout", "invalid duration \"-1s\""]),
        (
            "timeout = \"99999999999999999999s\"",
            ["timeout", "invalid duration"],
        ),
        ("tiemout = \"1s\"", ["tiemout", "`timeout`"]),
        ("[retry]\nmax_attempts = -1", ["retry.max_attempts", "-1"]),
        (
            "[retry]\nmax_attempts = \"many\"",
            ["retry.max_attempts", "many"],
        ),
        ("[retry]\nattempts = 3", ["attempts", "`max_attempts`"]),
        (
            "[circuit_breaker]\nmode = \"obsrve\"",
            ["obsrve", "circuit_breaker.mode"],
        ),
        (
            "[circuit_breaker]\nslow_calls = { share = 0.5 }",
            ["longer_than", "circuit_breaker.slow_calls"],
        ),
    ] {
        let error = read(text, FileFormat::Toml).unwrap_err().to_string();
        for part in parts {
            assert!(
                error.contains(part),
                "{part:?} is not in {error:?} of {text:?}"
            );
        }
    }
}

#[test]
fn a_number_without_a_unit_is_no_duration() {
    let error = serde_json::from_str::<Stack>(r#"{"timeout": 300}"#).unwrap_err();
    let expected = "invalid type: integer `300`, expected a duration as text, such as \"250ms\"";
    assert!(error.to_string().starts_with(expected), "{error}");
}

#[test]
fn values_that_are_no_numbers_are_refused_when_they_are_applied() {
    let handle = buttress::standard("db")
        .unlimited()
        .build()
        .unwrap()
        .handle();
    for text in ["nan", "inf", "-0.5", "1e300"] {
        let text = format!("[circuit_breaker]\nfailure_share = {text}");
        let settings = read(&text, FileFormat::Toml).unwrap();
        assert!(handle.apply(&settings).is_err(), "{text}");
    }
}
