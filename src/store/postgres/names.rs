//! Pipelines' names, which rows hold as small numbers.
//!
//! Invariant: a number is remembered only once it is durable, and a name keeps its number for good.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{PoisonError, RwLock},
};

use super::{
    columns::get,
    link::{Link, Pace, params},
    trouble::Trouble,
};
use crate::{names::PipelineName, store::codes};

/// All numbers that this process has met.
#[derive(Debug, Default)]
pub struct Names(RwLock<Known>);

#[derive(Debug, Default)]
struct Known {
    numbers: HashMap<PipelineName, i32>,
    names: HashMap<i32, PipelineName>,
}

impl Names {
    /// The numbers of these pipelines, made where they have none.
    pub async fn numbers<'a>(
        &self,
        link: &Link,
        wanted: impl IntoIterator<Item = &'a PipelineName>,
    ) -> Result<BTreeMap<PipelineName, i32>, Trouble> {
        let mut found = BTreeMap::new();
        let mut missing = Vec::new();
        {
            let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
            for name in wanted {
                match known.numbers.get(name) {
                    Some(number) => drop(found.insert(name.clone(), *number)),
                    None => missing.push(name.clone()),
                }
            }
        }
        if missing.is_empty() {
            return Ok(found);
        }
        missing.sort();
        missing.dedup();
        self.read_all(link).await?;
        let fresh: Vec<&str> = {
            let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
            missing.iter().filter(|name| !known.numbers.contains_key(*name)).map(PipelineName::as_str).collect()
        };
        if !fresh.is_empty() {
            let tx = link.begin(Pace::Quick).await?;
            let sql = "INSERT INTO landbridge.pipelines (name) SELECT unnest($1::text[]) ON CONFLICT DO NOTHING";
            tx.execute(sql, params![fresh => TEXT_ARRAY]).await?;
            tx.commit().await?;
            self.read_all(link).await?;
        }
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
        for name in missing {
            if let Some(number) = known.numbers.get(&name) {
                found.insert(name, *number);
            }
        }
        Ok(found)
    }

    /// The names of these numbers.
    pub async fn names(
        &self,
        link: &Link,
        wanted: impl IntoIterator<Item = i32>,
    ) -> Result<HashMap<i32, PipelineName>, Trouble> {
        let wanted: Vec<i32> = wanted.into_iter().collect();
        let all_known = {
            let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
            wanted.iter().all(|number| known.names.contains_key(number))
        };
        if !all_known {
            self.read_all(link).await?;
        }
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
        wanted
            .into_iter()
            .map(|number| {
                let name = known.names.get(&number).cloned();
                Ok((number, name.ok_or_else(|| Trouble::Row(format!("{number} is the number of no pipeline")))?))
            })
            .collect()
    }

    /// All pipelines that any job ever named.
    pub async fn all(&self, link: &Link) -> Result<BTreeMap<PipelineName, i32>, Trouble> {
        self.read_all(link).await?;
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
        Ok(known.numbers.iter().map(|(name, number)| (name.clone(), *number)).collect())
    }

    async fn read_all(&self, link: &Link) -> Result<(), Trouble> {
        let tx = link.look().await?;
        let rows = tx.query("SELECT id, name FROM landbridge.pipelines", &[]).await?;
        tx.done().await?;
        let mut fresh = Known::default();
        for row in rows {
            let (number, name): (i32, &str) = (get(&row, 0)?, get(&row, 1)?);
            let name: PipelineName = codes::parse(name)?;
            fresh.numbers.insert(name.clone(), number);
            fresh.names.insert(number, name);
        }
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = fresh;
        Ok(())
    }
}
