//! Contents: bytes too many for a row.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;

use crate::store::{Result, StoreError};

#[derive(Debug, Default)]
struct Content {
    bytes: Vec<u8>,
    sealed: bool,
}

/// All contents by id.
#[derive(Debug, Default)]
pub struct Shelf(Mutex<BTreeMap<String, Content>>);

impl Shelf {
    pub fn write(&self, id: &str, at: u64, bytes: &[u8]) -> Result<()> {
        let mut shelf = self.lock();
        let content = shelf.entry(id.to_owned()).or_default();
        if content.sealed || content.bytes.len() as u64 != at {
            return Err(StoreError::Damaged(format!(
                "content {id} has {} bytes, and a piece came for byte {at}",
                content.bytes.len()
            )));
        }
        content.bytes.extend_from_slice(bytes);
        Ok(())
    }

    pub fn seal(&self, id: &str) {
        self.lock().entry(id.to_owned()).or_default().sealed = true;
    }

    pub fn read(&self, id: &str, at: u64, most: usize) -> Option<Bytes> {
        let shelf = self.lock();
        let content = shelf.get(id).filter(|content| content.sealed)?;
        let start = usize::try_from(at).unwrap_or(usize::MAX).min(content.bytes.len());
        let end = start.saturating_add(most).min(content.bytes.len());
        Some(content.bytes.get(start..end).map_or_else(Bytes::new, Bytes::copy_from_slice))
    }

    pub fn delete(&self, id: &str) {
        self.lock().remove(id);
    }

    pub fn ids(&self) -> Vec<String> {
        self.lock().keys().cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Content>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
