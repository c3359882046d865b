//! Batches on a simulated clock.

use std::{collections::BTreeSet, time::Duration};

use serde_json::{Value, json};

use super::rig::{Act, Rig, spec};
use crate::{
    engine::{
        batches::{BatchRecord, BatchStatus},
        files::{ContentWriter, FileRecord, Lines, new_file_id},
    },
    store::Store as _,
};

fn record(rig: &Rig, file: &str, window: Duration) -> BatchRecord {
    let now = rig.engine.now();
    let shape = json!({
        "id": format!("batch_{}", uuid::Uuid::now_v7().simple()), "owner": "", "owner_pipelines": [], "fixed": null,
        "endpoint": "/v1/chat/completions", "input_file_id": file, "completion_window": "24h", "status": "validating",
        "created_at": now, "expires_at": now + window,
    });
    serde_json::from_value(shape).unwrap()
}

async fn file(rig: &Rig, lines: usize) -> String {
    let mut writer = ContentWriter::begin(rig.store.clone(), new_file_id()).await.unwrap();
    for n in 0..lines {
        let line = json!({ "custom_id": format!("r-{n}"), "method": "POST", "url": "/v1/chat/completions",
            "body": { "model": "triage", "messages": [{ "role": "user", "content": "hi" }] } });
        writer.write(format!("{line}\n").as_bytes()).await.unwrap();
    }
    let id = writer.id().to_owned();
    writer.seal().await.unwrap();
    id
}

async fn ended(rig: &Rig, id: &str) -> BatchRecord {
    for _ in 0..1_000_000 {
        let batch = rig.engine.batch(id).await.unwrap().unwrap();
        if batch.status.is_terminal() {
            return batch;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    panic!("the batch never ended");
}

async fn output(rig: &Rig, id: Option<&String>) -> Vec<Value> {
    let Some(id) = id else { return Vec::new() };
    let mut lines = Lines::of(rig.store.clone(), id, 1 << 20);
    let mut found = Vec::new();
    while let Some(line) = lines.next().await.unwrap() {
        let crate::engine::files::Line::Whole(_, bytes) = line else { panic!("{line:?}") };
        found.push(serde_json::from_slice(&bytes).unwrap());
    }
    found
}

#[tokio::test(start_paused = true)]
async fn what_is_not_done_in_time_is_reported_expired() {
    let rig = Rig::start(&spec("limits: { concurrency: 1 }\n")).await;
    rig.provider.script("bedrock", vec![Act::Answer(Duration::from_secs(20)); 20]);
    let file = file(&rig, 10).await;
    let batch = record(&rig, &file, Duration::from_secs(70));
    rig.engine.make_batch(batch.clone(), &[]).await.unwrap();
    let batch = ended(&rig, &batch.id).await;
    assert_eq!(batch.status, BatchStatus::Expired);
    let (done, undone) =
        (output(&rig, batch.output_file_id.as_ref()).await, output(&rig, batch.error_file_id.as_ref()).await);
    assert_eq!((done.len(), undone.len(), batch.total), (3, 7, 10));
    assert_eq!((batch.completed, batch.failed), (3, 7));
    assert!(undone.iter().all(|line| line["error"]["code"] == "batch_expired"), "{undone:?}");
    rig.drain().await;
}

#[tokio::test(start_paused = true)]
async fn a_batch_of_a_paused_pipeline_expires_all_the_same() {
    let rig = Rig::start(&spec("flags: { PAUSE: true }\n")).await;
    let file = file(&rig, 3).await;
    let batch = record(&rig, &file, Duration::from_hours(2));
    rig.engine.make_batch(batch.clone(), &[]).await.unwrap();
    let batch = ended(&rig, &batch.id).await;
    assert_eq!((batch.status, batch.output_file_id, batch.failed), (BatchStatus::Expired, None, 3));
    rig.drain().await;
}

#[tokio::test(start_paused = true)]
async fn files_go_when_their_time_is_over_and_contents_that_nobody_knows_go_too() {
    let rig = Rig::start(&spec("")).await;
    let now = rig.engine.now();
    let known = file(&rig, 1).await;
    let row = FileRecord {
        id: known.clone(),
        bytes: 1,
        created_at: now,
        expires_at: Some(now + Duration::from_hours(3)),
        filename: "x".to_owned(),
        purpose: "batch".to_owned(),
        owner: String::new(),
        pipelines: BTreeSet::new(),
    };
    rig.store.apply(vec![row.change()], None).await.unwrap();
    rig.store.seal_content("file-00000000000070008000000000000000").await.unwrap();
    assert!(rig.engine.file(&known).await.unwrap().is_some());
    tokio::time::sleep(Duration::from_hours(13)).await;
    assert!(rig.engine.file(&known).await.unwrap().is_none());
    assert!(rig.store.contents().await.unwrap().is_empty());
    rig.drain().await;
}
