//! End of a call, and the permit that stands for the call until then.

use crate::{Deadline, Error, Outcome};

/// Stands for one admitted call until its outcome is known.
///
/// A layer makes a permit when it lets a call through. Resolving it records the outcome once.
/// Dropping it instead records [`Outcome::Cancelled`]. Both give back everything that the permit held.
pub trait Permit: Send + 'static {
    /// Records the outcome of the call.
    fn resolve(self, outcome: Outcome);

    /// Notes that the head of the answer has come, which was classified as `outcome`, while the rest of it goes on.
    ///
    /// A completion that waits for more than the head calls it at most once, before the call ends. The outcome of the call is
    /// known at its end, unless the head was a failure. By default it does nothing.
    fn head(&mut self, outcome: Outcome) {
        let _ = outcome;
    }

    /// Records that an inner layer of this crate ended the call because its time had passed, which was
    /// classified as `outcome`. By default it records that outcome.
    fn time_out(self, outcome: Outcome)
    where
        Self: Sized,
    {
        self.resolve(outcome);
    }

    /// Records the word of the service, after the head of its answer, that the deadline of the call had passed, which was
    /// classified as `outcome`. By default it records that outcome.
    ///
    /// A completion that waits for more than the head calls it if the call had a deadline, inside the
    /// [scope](Deadline::scope) of that deadline.
    fn exceed_deadline(self, outcome: Outcome)
    where
        Self: Sized,
    {
        self.resolve(outcome);
    }

    /// Returns when the whole answer must be over, if the layer has a deadline that covers it. By default there is none.
    ///
    /// A completion that waits for more than the head asks once, when it gets the permit. It ends the answer then, and [expires](Self::expire) the permit.
    fn deadline(&self) -> Option<Deadline> {
        None
    }

    /// Records that the [deadline](Self::deadline) has come before the answer was over, and returns the error for its reader. By
    /// default the permit is dropped.
    fn expire(self) -> Error
    where
        Self: Sized,
    {
        Error::late("")
    }
}

/// Decides when a call is over.
///
/// Takes the permit of the call and the response, whose head has been classified, and returns the
/// response that the caller gets. The default, [`CompleteOnResponse`], resolves the permit at once. A
/// completion that waits for the end of a streamed body tells the permit of the [head](Permit::head), and moves the permit into
/// the body, as `http::CompleteOnBodyEnd` of the feature `http` does. The setter of a layer is called `completion`.
///
/// # Examples
///
/// An answer that is in use until it is dropped, such as a connection of a pool:
///
/// ```
/// use buttress::{BoxError, BulkheadLayer, TrackCompletion, Outcome, Permit};
/// use tower::service_fn;
///
/// struct Lease<R, T: Permit> {
///     connection: R,
///     permit: Option<T>,
/// }
///
/// impl<R, T: Permit> Drop for Lease<R, T> {
///     fn drop(&mut self) {
///         if let Some(permit) = self.permit.take() {
///             permit.resolve(Outcome::Success);
///         }
///     }
/// }
///
/// #[derive(Clone)]
/// struct UntilDropped;
///
/// impl<R, K> TrackCompletion<R, K> for UntilDropped {
///     type Response<T: Permit> = Lease<R, T>;
///
///     fn attach<T: Permit>(&self, connection: R, _: Outcome, _: &K, permit: Option<T>) -> Lease<R, T> {
///         Lease { connection, permit }
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), BoxError> {
/// let pool = service_fn(|()| async { Ok::<_, BoxError>("connection 7") });
/// let bulkhead = BulkheadLayer::config("database", 10).completion(UntilDropped).build()?;
/// let lease = bulkhead.wrap(pool).send(()).await?;
/// assert_eq!((lease.connection, bulkhead.handle().in_flight()), ("connection 7", 1));
/// drop(lease);
/// assert_eq!(bulkhead.handle().in_flight(), 0);
/// # Ok(())
/// # }
/// ```
pub trait TrackCompletion<Res, K>: Clone {
    /// The response, which carries the permit if the call goes on.
    type Response<T: Permit>;

    /// Returns the outcome of the call if it is over with this head. Called before the permit is made, so that only an
    /// answer that goes on pays for a permit. By default no call is over.
    #[inline]
    fn ended(&self, response: &Res, head: Outcome, classify: &K) -> Option<Outcome> {
        let _ = (response, head, classify);
        None
    }

    /// Attaches `permit` to the response. There is none if the call has [ended](Self::ended).
    fn attach<T: Permit>(
        &self,
        response: Res,
        head: Outcome,
        classify: &K,
        permit: Option<T>,
    ) -> Self::Response<T>;
}

/// Default completion: a call is over when the inner service has returned its response.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CompleteOnResponse;

impl<Res, K> TrackCompletion<Res, K> for CompleteOnResponse {
    type Response<T: Permit> = Res;

    #[inline]
    fn ended(&self, _response: &Res, head: Outcome, _classify: &K) -> Option<Outcome> {
        Some(head)
    }

    #[inline]
    fn attach<T: Permit>(&self, response: Res, head: Outcome, _: &K, permit: Option<T>) -> Res {
        if let Some(permit) = permit {
            permit.resolve(head);
        }
        response
    }
}

/// Resolves the permit of a call whose head has come, or attaches it to the response.
#[inline]
pub(crate) fn complete<Res, K, C, T>(
    completion: &C,
    response: Res,
    head: Outcome,
    classify: &K,
    permit: T,
) -> C::Response<T>
where
    C: TrackCompletion<Res, K>,
    T: Permit,
{
    let Some(outcome) = completion.ended(&response, head, classify) else {
        return completion.attach(response, head, classify, Some(permit));
    };
    permit.resolve(outcome);
    completion.attach(response, outcome, classify, None)
}
