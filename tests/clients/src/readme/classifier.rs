use buttress::stack::StandardLayer;
use buttress::{ByClone, Classify, ConfigError, Error, Outcome, standard};

enum Reply {
    Value(String),
    Busy,
    ReadOnly,
}

#[derive(Clone)]
struct OfReplies;

impl Classify<Reply> for OfReplies {
    fn classify(&self, result: Result<&Reply, &Error>) -> Outcome {
        match result {
            Ok(Reply::Value(_)) => Outcome::Success,
            Ok(Reply::Busy) => Outcome::Overload { retry_after: None },
            Ok(Reply::ReadOnly) | Err(_) => Outcome::Failure,
        }
    }
}

fn cache() -> Result<StandardLayer<ByClone, OfReplies>, ConfigError> {
    standard("cache").classify(OfReplies).concurrency_limit(50).build()
}
