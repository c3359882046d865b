//! One call to one target, in the way the target wants to be called.
//!
//! Invariant: whole or in pieces, what comes of it is the same: an answer, or a fault. Dropping the future hangs up.

use crate::{
    provider::{Call, Gathered, Provider},
    spec::Target,
};

/// Calls a target: whole, or piece by piece and put together again.
pub(super) async fn ask(provider: &dyn Provider, target: &Target, call: Call) -> Gathered {
    if !target.stream {
        return Gathered::whole(provider.chat(call).await);
    }
    let began = tokio::time::Instant::now();
    match provider.stream(call).await {
        Ok(stream) => stream.gather(began).await,
        Err(error) => Gathered::whole(Err(error)),
    }
}
