//! Opening the store that the settings name.

use std::{path::PathBuf, sync::Arc};

use super::DaemonError;
use crate::{
    clock::SharedClock,
    settings::{DatabaseUrl, StoreSetting},
    store::{MemoryStore, PostgresStore, SqliteStore, Store, postgres::PostgresOptions},
};

/// Where a daemon on a shared store keeps its node id: beside where the embedded store would be.
const NODE_FOLDER: &str = "data";

/// Opens the store that the settings name.
///
/// # Errors
/// [`DaemonError`] when it cannot be reached or used, or its address is not where the settings say.
pub async fn open_store(setting: &StoreSetting, clock: SharedClock) -> Result<Arc<dyn Store>, DaemonError> {
    Ok(match setting {
        StoreSetting::Memory => Arc::new(MemoryStore::new(clock)),
        StoreSetting::Sqlite(path) => Arc::new(SqliteStore::open(path, clock)?),
        StoreSetting::Postgres { url, direct } => {
            let read = |url: &DatabaseUrl| url.read().map_err(|error| DaemonError::Other(format!("`store`: {error}")));
            let options = PostgresOptions {
                direct: direct.as_ref().map(read).transpose()?.map(|url| url.expose().to_owned()),
                folder: Some(PathBuf::from(NODE_FOLDER)),
                ..PostgresOptions::default()
            };
            Arc::new(PostgresStore::open(read(url)?.expose(), options).await?)
        }
    })
}
