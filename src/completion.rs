//! When a call is over, and the token that stands for it until then.

use crate::outcome::judge;
use crate::{BoxError, Classify, Outcome};

/// Stands for one admitted call until its outcome is known.
///
/// A layer makes a token when it lets a call through. Resolving it records the outcome once.
/// Dropping it instead records [`Outcome::Cancelled`]; either way it gives back all that it held.
pub trait Token: Send + 'static {
    /// Records how the call ended.
    fn resolve(self, outcome: Outcome);
}

/// Decides when a call is over.
///
/// Takes the token of the call and the response, whose head has been judged, and returns the
/// response that the caller gets. The default, [`AtResponse`], resolves the token there and then; a
/// completion that waits for the end of a streamed body moves the token into the body.
pub trait Completion<Res, K>: Clone {
    /// The response that carries the token, if it has to.
    type Response<T: Token>;

    /// Resolves `token` or attaches it to the response.
    fn attach<T: Token>(
        &self,
        response: Res,
        head: Outcome,
        classify: &K,
        token: T,
    ) -> Self::Response<T>;
}

/// A call is over when the inner service has returned its response.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AtResponse;

impl<Res, K> Completion<Res, K> for AtResponse {
    type Response<T: Token> = Res;

    #[inline]
    fn attach<T: Token>(&self, response: Res, head: Outcome, _classify: &K, token: T) -> Res {
        token.resolve(head);
        response
    }
}

/// Ends a call: judges its result and resolves the token, or hands it on to the response.
#[inline]
pub(crate) fn finish<Res, K, C, T>(
    result: Result<Res, BoxError>,
    classify: &K,
    completion: &C,
    token: T,
) -> Result<C::Response<T>, BoxError>
where
    K: Classify<Res>,
    C: Completion<Res, K>,
    T: Token,
{
    let outcome = judge(classify, &result);
    match result {
        Ok(response) => Ok(completion.attach(response, outcome, classify, token)),
        Err(error) => {
            token.resolve(outcome);
            Err(error)
        }
    }
}
