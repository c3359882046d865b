//! One daemon does for all; documents change under conditions.

use super::{Bench, secs};
use crate::{
    ids::NodeId,
    store::{AuditEntry, Condition, DocumentChange, DocumentKind, Lead},
};

fn change(key: &str, value: Option<u32>) -> DocumentChange {
    DocumentChange { kind: DocumentKind::Counter, key: key.to_owned(), value: value.map(Into::into) }
}

async fn value(bench: &Bench, key: &str) -> Option<u64> {
    bench.store.documents(DocumentKind::Counter).await.unwrap().get(key).and_then(serde_json::Value::as_u64)
}

async fn write_as(bench: &Bench, lead: &Lead, number: u32) -> bool {
    let condition = Condition::Leads(lead.clone());
    bench.store.apply_if(vec![condition], vec![change("x", Some(number))], None).await.unwrap()
}

pub async fn one_node_leads_and_its_token_fences(bench: &Bench) {
    let [one, two] = [NodeId::generate(), NodeId::generate()];
    let lead = |node| bench.store.lead("upkeep", node, secs(10));
    let first = lead(one).await.unwrap().expect("nobody led");
    assert_eq!(lead(two).await.unwrap(), None);
    assert!(bench.store.lead("rollouts", two, secs(10)).await.unwrap().is_some(), "each name has its own leader");
    assert!(write_as(bench, &first, 1).await);
    bench.clock.advance(secs(9));
    assert_eq!(lead(one).await.unwrap(), Some(first.clone()), "kept without a break");
    bench.clock.advance(secs(9));
    assert_eq!(lead(two).await.unwrap(), None);
    assert!(write_as(bench, &first, 2).await);
    bench.clock.advance(secs(1));
    assert!(!write_as(bench, &first, 3).await, "its time is up");
    let second = lead(two).await.unwrap().expect("the lead is free");
    assert!(second.token > first.token);
    assert_eq!(lead(one).await.unwrap(), None);
    assert!(!write_as(bench, &first, 4).await);
    assert!(write_as(bench, &second, 5).await);
    // A lead that ran out and is taken again is another one.
    bench.clock.advance(secs(10));
    let third = lead(two).await.unwrap().expect("the lead is free");
    assert!(third.token > second.token && !write_as(bench, &second, 6).await);
    bench.store.resign(&second).await.unwrap();
    assert!(write_as(bench, &third, 7).await, "only one's own lead is given back");
    bench.store.resign(&third).await.unwrap();
    assert!(!write_as(bench, &third, 8).await);
    assert!(lead(one).await.unwrap().expect("the lead is free").token > third.token);
    assert_eq!(value(bench, "x").await, Some(7));
}

pub async fn a_new_life_leads_anew(bench: &Bench) {
    let [one, two] = [NodeId::generate(), NodeId::generate()];
    bench.store.register(one).await.unwrap();
    let first = bench.store.lead("upkeep", one, secs(100)).await.unwrap().unwrap();
    bench.store.register(two).await.unwrap();
    assert_eq!(bench.store.lead("upkeep", two, secs(100)).await.unwrap(), None, "not another's");
    bench.store.register(one).await.unwrap();
    assert!(!write_as(bench, &first, 1).await);
    let second = bench.store.lead("upkeep", one, secs(100)).await.unwrap().unwrap();
    assert!(second.token > first.token);
    bench.store.deregister(one).await.unwrap();
    let third = bench.store.lead("upkeep", two, secs(100)).await.unwrap().expect("who stopped leads no more");
    bench.clock.advance(secs(60));
    bench.store.heartbeat(one).await.unwrap();
    bench.store.reclaim(secs(30)).await.unwrap();
    assert!(!write_as(bench, &third, 2).await, "who is silent leads no more");
}

pub async fn documents_change_only_under_their_conditions(bench: &Bench) {
    let is = |value: Option<u32>| Condition::Document {
        kind: DocumentKind::Counter,
        key: "x".to_owned(),
        value: value.map(Into::into),
    };
    let entry = AuditEntry {
        at: bench.now(),
        actor: "local".to_owned(),
        action: "count".to_owned(),
        subject: "x".to_owned(),
        reason: None,
        detail: serde_json::Value::Null,
    };
    let apply = |conditions, to| bench.store.apply_if(conditions, vec![change("x", to)], Some(entry.clone()));
    assert!(!apply(vec![is(Some(1))], Some(2)).await.unwrap());
    assert!(apply(vec![is(None)], Some(1)).await.unwrap());
    assert!(!apply(vec![is(None)], Some(5)).await.unwrap());
    assert!(!apply(vec![is(Some(1)), is(Some(2))], Some(5)).await.unwrap());
    assert!(apply(vec![is(Some(1))], Some(2)).await.unwrap());
    assert_eq!(value(bench, "x").await, Some(2));
    assert!(apply(vec![is(Some(2))], None).await.unwrap());
    assert_eq!(bench.store.audit(entry.at, 99).await.unwrap().len(), 3, "what was not done is not in the audit");
    // Many count at once; each change is seen by the next.
    let mut counters = Vec::new();
    for _ in 0..4 {
        let store = bench.store.clone();
        counters.push(tokio::spawn(async move {
            let mut done = 0;
            while done < 5 {
                let before = store.documents(DocumentKind::Counter).await.unwrap().get("y").cloned();
                let next = before.as_ref().and_then(serde_json::Value::as_u64).unwrap_or(0) + 1;
                let condition = Condition::Document { kind: DocumentKind::Counter, key: "y".to_owned(), value: before };
                let change =
                    DocumentChange { kind: DocumentKind::Counter, key: "y".to_owned(), value: Some(next.into()) };
                done += u32::from(store.apply_if(vec![condition], vec![change], None).await.unwrap());
            }
        }));
    }
    for counter in counters {
        counter.await.unwrap();
    }
    assert_eq!(value(bench, "y").await, Some(20));
}

pub async fn revisions_follow_documents(bench: &Bench) {
    let mut hint = bench.store.document_changes();
    let first = bench.store.revision().await.unwrap();
    bench.queued("a").await;
    assert_eq!(bench.store.revision().await.unwrap(), first);
    assert!(!hint.has_changed().unwrap());
    bench.store.apply(vec![change("x", Some(1))], None).await.unwrap();
    let second = bench.store.revision().await.unwrap();
    assert_ne!(second, first);
    assert!(hint.has_changed().unwrap());
    hint.mark_unchanged();
    let never = Condition::Document { kind: DocumentKind::Counter, key: "x".to_owned(), value: None };
    bench.store.apply_if(vec![never], vec![change("x", Some(2))], None).await.unwrap();
    assert_eq!(bench.store.revision().await.unwrap(), second);
    assert!(!hint.has_changed().unwrap());
}
