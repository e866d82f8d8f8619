//! Settings of a server.

use std::time::Duration;

use ::http::{HeaderName, Response};
use bytes::Bytes;
use tokio::time::Instant;

use super::bodies::BodiesLayer;
use super::keyed::{Given, KeyLimits, NotKeyed, PerKey};
use super::layer::ServerLayer;
use crate::bulkhead::{self, BulkheadLayer};
use crate::chassis::{Choice, LayerConfig, PartLayer};
use crate::error::Check;
use crate::http::body_timeout;
use crate::http::deadline::InheritDeadlineConfig;
use crate::http::respond::{ForServers, Refusal};
use crate::http::{
    BodyTimeoutLayer, Classifier, CompleteOnBodyEnd, HttpStreams, InheritDeadlineLayer,
    RespondLayer,
};
use crate::keyed::MakeLayer;
use crate::measure::{Meter, OPERATION};
use crate::{ConfigError, debug::debug_fields, drain, settings};

/// The settings of a [`ServerLayer`]. Made by [`server`].
pub type Config<K = Classifier, T = NotKeyed> = LayerConfig<Settings<T>, (), K, CompleteOnBodyEnd>;

/// The settings of a server in a [`Config`]. `T` has the settings of the limits for each key.
#[derive(Clone, PartialEq)]
pub struct Settings<T = NotKeyed> {
    deadline: InheritDeadlineConfig,
    bulkhead: Choice<bulkhead::Config>,
    /// `true` if settings name a bulkhead that the code does not have.
    names_no_bulkhead: bool,
    request_body: body_timeout::Config,
    response_body: body_timeout::Config,
    respond: RespondLayer<ForServers>,
    keyed: T,
}

debug_fields!([T] Settings<T> { deadline, bulkhead, request_body, response_body });

/// Begins to configure an HTTP server. See the [module documentation](super).
///
/// `name` is a label of the metrics. No client in the same process may have this name, because its calls would count
/// under the same label.
pub fn server(name: impl Into<String>) -> Config {
    of(name.into(), Classifier::new())
}

/// Begins to configure a server whose calls are classified by `classify`.
pub(in crate::http) fn of<K>(name: String, classify: K) -> Config<K> {
    let settings = Settings {
        deadline: InheritDeadlineLayer::config(&name),
        bulkhead: Choice::Default,
        names_no_bulkhead: false,
        request_body: BodyTimeoutLayer::config(&name),
        response_body: BodyTimeoutLayer::config(&name),
        respond: RespondLayer::for_servers(),
        keyed: NotKeyed,
    };
    LayerConfig::new(name, settings, ())
        .classify(classify)
        .with_completion(CompleteOnBodyEnd)
}

impl<K, T> Config<K, T> {
    /// Sets the longest time of a call, from its head to the end of the answer; above 0 and at most 365 days, 60 s by
    /// default.
    ///
    /// If a caller sends a shorter time, the call has this time. [Streams](Self::streaming) have only the deadline of
    /// their caller.
    pub fn deadline(mut self, max: Duration) -> Self {
        self.settings.deadline = self.settings.deadline.max(max);
        self
    }

    /// Sets the header in which callers send the milliseconds for which they wait; `x-request-timeout-ms` by default.
    /// The server also reads `grpc-timeout`.
    pub fn deadline_header(mut self, header: HeaderName) -> Self {
        self.settings.deadline = self.settings.deadline.header(header);
        self
    }

    /// Sets the greatest number of calls in flight: a number from 1 to 1,000,000, or an adaptive limit. Calls beyond
    /// the limit are refused at once.
    ///
    /// You must set this limit, [`bulkhead`](Self::bulkhead) or [`unlimited`](Self::unlimited).
    pub fn concurrency_limit(self, limit: impl Into<bulkhead::Limit>) -> Self {
        self.bulkhead(limit, |bulkhead| bulkhead)
    }

    /// Sets the limit of calls in flight with more settings: `.bulkhead(200, |bulkhead| bulkhead.queue(100))`.
    pub fn bulkhead(
        mut self,
        limit: impl Into<bulkhead::Limit>,
        change: impl FnOnce(bulkhead::Config) -> bulkhead::Config,
    ) -> Self {
        let config = BulkheadLayer::config(&self.name, limit);
        self.settings.bulkhead = Choice::Set(change(config));
        self
    }

    /// Changes the settings of the bulkhead, which must be there.
    pub(crate) fn bulkhead_settings(mut self, settings: &settings::Bulkhead) -> Self {
        match self.settings.bulkhead {
            Choice::Set(config) => self.settings.bulkhead = Choice::Set(config.settings(settings)),
            Choice::Default | Choice::Off => self.settings.names_no_bulkhead = true,
        }
        self
    }

    /// Sets no limit of calls in flight. The server then has no other protection from overload.
    pub fn unlimited(mut self) -> Self {
        self.settings.bulkhead = Choice::Off;
        self
    }

    /// Sets a layer for each key, such as a tenant. `config` is the configuration of the layer, for example of a rate
    /// limit, or a tuple of configurations.
    ///
    /// `key` takes the key from a request: `|request: &Request<Body>| -> String`. `Body` is the body type of the
    /// server. The layer is outside the common concurrency limit, so a tenant beyond its own limit takes no permit.
    ///
    /// The number of keys and their memory are bounded, see [`keyed`](crate::keyed). Use
    /// [`keyed_layer`](Self::keyed_layer) for other bounds.
    pub fn keyed<Req, F, Key, C>(self, key: F, config: C) -> Config<K, PerKey<F, C, Req, Key>>
    where
        F: Fn(&Req) -> Key,
        C: MakeLayer,
    {
        self.with_keyed(PerKey::new(key, config))
    }

    /// Sets a layer between the deadline and the common concurrency limit: a [`KeyedLayer`](crate::KeyedLayer) with its
    /// own settings, or any other layer of this crate.
    pub fn keyed_layer<L>(self, layer: L) -> Config<K, Given<L>> {
        self.with_keyed(Given(layer))
    }

    fn with_keyed<T2>(self, keyed: T2) -> Config<K, T2> {
        self.with_settings(|settings| Settings {
            deadline: settings.deadline,
            bulkhead: settings.bulkhead,
            names_no_bulkhead: settings.names_no_bulkhead,
            request_body: settings.request_body,
            response_body: settings.response_body,
            respond: settings.respond,
            keyed,
        })
    }

    /// Changes the time bounds of request bodies. By default a handler waits at most 30 s for the next part of a body,
    /// and a body ends at the deadline of its call.
    pub fn request_body(
        mut self,
        change: impl FnOnce(body_timeout::Config) -> body_timeout::Config,
    ) -> Self {
        self.settings.request_body = change(self.settings.request_body);
        self
    }

    /// Changes the time bounds of response bodies. By default a body may be silent for 30 s, and ends at the deadline
    /// of its call.
    pub fn response_body(
        mut self,
        change: impl FnOnce(body_timeout::Config) -> body_timeout::Config,
    ) -> Self {
        self.settings.response_body = change(self.settings.response_body);
        self
    }

    /// Sets the requests whose bodies or answers are streams. By default only those with the option
    /// [`stream`](crate::CallOptions::stream) are, which an outer layer of your own has added.
    ///
    /// A stream may outlast the [deadline](Self::deadline) of the server. It may be silent, unless
    /// [`stream_idle`](body_timeout::Config::stream_idle) is set.
    pub fn streaming(mut self, streams: HttpStreams) -> Self {
        self.settings.deadline = self.settings.deadline.streaming(streams);
        self
    }

    /// Sets the function that writes the answers to refusals and errors. See [`RespondLayer::respond`].
    pub fn respond<F>(mut self, respond: F) -> Self
    where
        F: Fn(Refusal<'_>) -> Response<Bytes> + Send + Sync + 'static,
    {
        self.settings.respond = self.settings.respond.respond(respond);
        self
    }

    /// Makes the layer.
    ///
    /// # Errors
    ///
    /// If the name is empty, a value is outside its range, the concurrency limit is not set, or two settings contradict
    /// each other.
    pub fn build(self) -> Result<ServerLayer<K, T::Layer>, ConfigError>
    where
        K: Clone,
        T: KeyLimits,
    {
        let check = Check::new("server", &self.name)?;
        let settings = self.settings;
        bulkhead::check_limit_is_chosen(&settings.bulkhead, check)?;
        check.that(
            !settings.names_no_bulkhead,
            "bulkhead",
            &format_args!("set"),
            "left out, because the code sets no concurrency limit before the settings",
        )?;
        let origin = Instant::now();
        let bulkhead = settings.bulkhead.value();
        let limit = bulkhead.cloned().map(|mut config| {
            config.listener = config.listener.or(&self.listener);
            config.part(origin, None)
        });
        let limit = limit.transpose()?;
        let max = settings.deadline.max;
        if let Some(wait) = bulkhead.and_then(bulkhead::Config::longest_wait) {
            let permitted = format!("less than the deadline of {max:?}");
            check.that(wait < max, "bulkhead queue_wait", &wait, permitted)?;
        }
        let drain = drain::Handle::new(&self.name, &self.listener);
        let name = drain.name();
        let streams = settings.deadline.streams.clone();
        let part = (Meter::new(name, OPERATION), drain);
        Ok(ServerLayer {
            respond: settings.respond,
            entry: PartLayer::with(name, origin, part, self.classify.clone(), self.completion),
            deadline: settings.deadline.build()?,
            keyed: settings.keyed.build(name)?,
            bulkhead: PartLayer::with(name, origin, limit, self.classify, self.completion),
            bodies: BodiesLayer {
                request: settings.request_body.build_for("request_body")?,
                response: settings.response_body.build()?,
                streams,
            },
        })
    }
}
