//! Parts of a path.
//!
//! Invariant: a part that cannot be read is told like every other error.

use axum::{
    extract::{FromRequestParts, Path},
    http::request::Parts,
};
use serde::{Deserialize, de::DeserializeOwned};

use super::ApiError;

/// What stands between the slashes.
pub(super) struct Param<T>(pub(super) T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Param<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let Path(found) = Path::<T>::from_request_parts(parts, state).await?;
        Ok(Self(found))
    }
}

/// Which pipeline the path fixes, if it does.
#[derive(Debug, Deserialize)]
pub(super) struct Fixed {
    pub(super) pipeline: Option<String>,
}
