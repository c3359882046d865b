//! Jobs and levers: what is asked of the daemon, and what is made of its answers.

use super::*;

#[test]
fn lists_follow_their_cursor_up_to_the_limit() {
    let job = |id: &str| json!({"id": id, "state": "held", "pipeline": "triage", "reason_code": "paused", "attempt_count": 3, "created_at": "2020-01-01T00:00:00Z"});
    let steps = [
        (
            "GET /v1/jobs?state=held&pipeline=triage&where=metadata.a%3Db%3Dc&limit=2",
            200,
            json!({"data": [job(JOB_2)], "next": "c1"}),
        ),
        (
            "GET /v1/jobs?state=held&pipeline=triage&where=metadata.a%3Db%3Dc&after=c1&limit=1",
            200,
            json!({"data": [job(JOB_1)], "next": "c2"}),
        ),
    ];
    let arguments = ["jobs", "list", "-p", "triage", "--state", "held", "--where", "metadata.a=b=c", "--limit", "2"];
    let ended = play(&arguments, &steps);
    assert_eq!(ended.exit, Exit::Success);
    let lines: Vec<&str> = ended.out.lines().collect();
    assert_eq!(lines.len(), 3, "{}", ended.out);
    assert!(
        lines[0].starts_with("ID ") && lines[1].starts_with(JOB_2) && lines[2].ends_with("paused"),
        "{}",
        ended.out
    );
    assert!(ended.err.contains("--after c2"), "{}", ended.err);

    let steps = [("GET /v1/jobs?limit=50", 200, json!({"data": [job(JOB_1)], "next": null}))];
    let ended = play(&["jobs", "list", "--format", "json"], &steps);
    assert_eq!(serde_json::from_str::<Value>(ended.out.trim()).unwrap()["id"], JOB_1);
}

#[test]
fn a_list_that_does_not_move_on_is_left() {
    let steps = [
        ("GET /v1/jobs?limit=9", 200, json!({"data": [], "next": "c"})),
        ("GET /v1/jobs?after=c&limit=9", 200, json!({"data": [], "next": "c"})),
    ];
    assert_eq!(play(&["jobs", "list", "-l", "9"], &steps).exit, Exit::Failed);
}

#[test]
fn jobs_are_shown_and_explained_by_key() {
    let found =
        ("GET /v1/jobs?pipeline=triage&key=order-7&limit=200", 200, json!({"data": [{"id": JOB_1}], "next": null}));
    let why = json!({"id": JOB_1, "state": "held", "reason_code": "paused", "summary": "PAUSE is set", "steps": ["one"], "attempts": []});
    let ended = play(
        &["jobs", "why", "--key", "order-7", "-p", "triage"],
        &[found.clone(), (&format!("GET /v1/jobs/{JOB_1}/why"), 200, why)],
    );
    assert_eq!(ended.out, format!("{JOB_1}: held (paused)\nPAUSE is set\n  1. one\n"));
    let nothing = ("GET /v1/jobs?pipeline=triage&key=order-7&limit=200", 200, json!({"data": []}));
    let ended = play(&["jobs", "show", "--key", "order-7", "-p", "triage"], &[nothing]);
    assert_eq!((ended.exit, ended.err.as_str()), (Exit::Failed, "no such job\n"));
}

#[test]
fn a_batch_is_cancelled_as_a_whole_and_jobs_one_by_one() {
    let batch = (
        "GET /v1/ops/batches/mon%2Fday",
        200,
        json!({"counts": {"queued": 3, "running": 1, "succeeded": 9}, "total": 13}),
    );
    let ended = play(&["jobs", "cancel", "--batch", "mon/day", "--dry-run"], std::slice::from_ref(&batch));
    assert_eq!(ended.out, "would cancel 4 jobs\n");
    assert_eq!(ended.err, "before: 3 queued, 1 running, 9 succeeded\n");
    let cancel = (r#"POST /v1/ops/cancel {"batch":"mon/day"}"#, 200, json!({"cancelled": 4}));
    let ended = play(&["jobs", "cancel", "--batch", "mon/day"], &[batch, cancel]);
    assert_eq!((ended.exit, ended.out.as_str()), (Exit::Success, "cancelled 4 jobs\n"));

    let steps = [
        (&*format!("POST /v1/jobs/{JOB_1}/cancel"), 200, json!({"id": JOB_1, "state": "cancelled"})),
        (&*format!("POST /v1/jobs/{JOB_2}/cancel"), 409, json!({"error": {"message": "has ended: succeeded"}})),
    ];
    let ended = play(&["jobs", "cancel", JOB_1, JOB_2], &steps);
    assert_eq!((ended.exit, ended.out.as_str()), (Exit::Failed, "cancelled 1 job\n"));
    assert!(ended.err.contains("has ended"), "{}", ended.err);
}

#[test]
fn failed_jobs_are_run_again() {
    let steps = [
        ("GET /v1/jobs?state=failed&state=expired&batch=b&limit=200", 200, json!({"data": [{"id": JOB_1}]})),
        (&*format!("POST /v1/jobs/{JOB_1}/retry"), 202, json!({"id": JOB_2, "retry_of": JOB_1})),
    ];
    let ended = play(&["jobs", "retry", "--batch", "b"], &steps);
    assert_eq!((ended.exit, ended.out), (Exit::Success, format!("{JOB_1} -> {JOB_2}\n")));
}

#[test]
fn waiting_ends_with_the_jobs() {
    let counts = |succeeded: u64, failed: u64, ended: bool| json!({"batch": "b", "counts": {"queued": 2 - succeeded - failed, "succeeded": succeeded, "failed": failed}, "total": 2, "ended": ended});
    let look = "GET /v1/ops/batches/b";
    let ended =
        play(&["jobs", "wait", "--batch", "b"], &[(look, 200, counts(1, 0, false)), (look, 200, counts(2, 0, true))]);
    assert_eq!((ended.exit, ended.out.as_str()), (Exit::Success, "2 succeeded\n"));
    let ended = play(&["jobs", "wait", "--batch", "b"], &[(look, 200, counts(1, 1, true))]);
    assert_eq!((ended.exit, ended.out.as_str()), (Exit::JobsFailed, "1 succeeded, 1 failed\n"));
    let nobody = json!({"batch": "b", "counts": {}, "total": 0, "ended": true});
    assert_eq!(play(&["jobs", "wait", "--batch", "b"], &[(look, 200, nobody)]).exit, Exit::Failed);

    let poll = format!("GET /v1/jobs/{JOB_1}?wait=30s");
    let steps = [
        (&*poll, 200, json!({"id": JOB_1, "state": "running"})),
        (&*poll, 200, json!({"id": JOB_1, "state": "expired"})),
    ];
    assert_eq!(play(&["jobs", "wait", JOB_1], &steps).exit, Exit::JobsFailed);
    let ended = play(&["jobs", "wait", "--batch", "b", "--timeout", "100ms"], &[(look, 200, counts(1, 0, false))]);
    assert_eq!(ended.exit, Exit::Failed);
    assert!(ended.err.contains("not ended within 100ms"), "{}", ended.err);
}

#[test]
fn ended_jobs_are_exported() {
    let list = "GET /v1/jobs?state=succeeded&state=failed&state=cancelled&state=expired&batch=b&limit=200";
    let steps = [
        (list, 200, json!({"data": [{"id": JOB_2}, {"id": JOB_1}]})),
        (
            &*format!("GET /v1/jobs/{JOB_2}"),
            200,
            json!({"id": JOB_2, "state": "succeeded", "idempotency_key": "k", "result": {"choices": []}}),
        ),
        (
            &*format!("GET /v1/jobs/{JOB_1}"),
            200,
            json!({"id": JOB_1, "state": "failed", "error": {"message": "no", "code": "bad"}}),
        ),
    ];
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("out.jsonl");
    // One at a time, so that the script's order holds.
    let ended = play(&["jobs", "export", "--batch", "b", "-o", path.to_str().unwrap()], &steps);
    assert_eq!((ended.exit, ended.err.as_str()), (Exit::Success, "2 jobs written\n"));
    let lines: Vec<Value> =
        std::fs::read_to_string(path).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines[0]["custom_id"], "k");
    assert_eq!(lines[1]["custom_id"], JOB_1);
    assert_eq!(lines[1]["error"]["code"], "bad");
}

#[test]
fn a_flag_says_what_it_touches_before_it_is_set() {
    let dry = r#"POST /v1/ops/flags {"flag":"FORCE_OPENAI_PROVIDER","value":true,"reason":"r","pipeline":"triage","clear_after":"2h","dry_run":true}"#;
    let real = r#"POST /v1/ops/flags {"flag":"FORCE_OPENAI_PROVIDER","value":true,"reason":"r","pipeline":"triage","clear_after":"2h"}"#;
    let touched = json!({"touched": {"pipelines": [{"pipeline": "triage", "queued": 1204, "would_hold": "forced_provider_has_no_target"}], "held_jobs": 1204}});
    let arguments = ["flag", "set", "force-openai-provider", "-p", "triage", "--clear-after", "120m", "--reason", "r"];
    let ended = play(
        &arguments,
        &[(dry, 200, touched.clone()), (real, 200, json!({"message": "1 pipeline has no openai target"}))],
    );
    assert_eq!(
        ended.out,
        "FORCE_OPENAI_PROVIDER true for triage touches 1 pipeline with 1,204 queued jobs\n  PIPELINE  QUEUED  EFFECT\n  triage    1,204   held: forced_provider_has_no_target\n1,204 jobs will be held\nset: 1 pipeline has no openai target\n"
    );
    let only_dry = [&arguments[..], &["--dry-run"]].concat();
    assert!(!play(&only_dry, &[(dry, 200, touched)]).out.contains("set:"));
    let refused = json!({"error": {"message": "FORCE_BEDROCK_PROVIDER is set already"}});
    let ended = play(&arguments, &[(dry, 409, refused)]);
    assert_eq!(ended.exit, Exit::Failed);
    assert!(ended.err.contains("set already"), "{}", ended.err);
}

#[test]
fn flags_are_listed_and_cleared() {
    let flags = json!({
        "data": [{"flag": "PAUSE", "scope": "all", "level": "runtime", "value": true, "actor": "ann", "reason": "bad prompts"}],
        "effective": [{"pipeline": "triage", "forced": [{"provider": "openai", "source": {"level": "file"}}], "pause": true, "disable_fallback": false},
                      {"pipeline": "other", "forced": [], "pause": false, "disable_fallback": false}],
    });
    let ended = play(&["flag", "list"], &[("GET /v1/ops/flags", 200, flags)]);
    assert!(ended.out.contains("PAUSE  all    true   runtime  ann"), "{}", ended.out);
    assert!(ended.out.contains("triage    openai  paused") && !ended.out.contains("other"), "{}", ended.out);
    let touched = json!({"touched": {"pipelines": [{"pipeline": "triage", "queued": 2, "would_hold": null}], "held_jobs": 0}, "message": "would"});
    let steps = [
        ("DELETE /v1/ops/flags/PAUSE?reason=prompts+mended&dry_run=true", 200, touched),
        ("DELETE /v1/ops/flags/PAUSE?reason=prompts+mended", 200, json!({"message": "nothing is paused"})),
    ];
    let ended = play(&["flag", "clear", "PAUSE", "--reason", "prompts mended"], &steps);
    assert_eq!(
        ended.out,
        "clearing PAUSE for all pipelines touches 1 pipeline with 2 queued jobs\n  PIPELINE  QUEUED  EFFECT\n  triage    2\ncleared: nothing is paused\n"
    );
}

#[test]
fn a_rollback_tells_before_and_after() {
    let row = |running: u64| json!({"pipelines": [{"pipeline": "triage", "provider": "openai", "rollouts": ["a", "b"], "queued": 7, "running": running}], "message": "m"});
    let steps = [
        (r#"POST /v1/ops/rollback {"all":true,"reason":"r","interrupt":true,"dry_run":true}"#, 200, row(2)),
        (r#"POST /v1/ops/rollback {"all":true,"reason":"r","interrupt":true}"#, 200, row(0)),
    ];
    let ended = play(&["rollback", "--all", "--interrupt", "--reason", "r"], &steps);
    assert_eq!(
        ended.out,
        "rollback touches:\n  PIPELINE  PROVIDER  ROLLOUTS  QUEUED  RUNNING\n  triage    openai    a, b      7       2\nrolled back:\n  PIPELINE  PROVIDER  ROLLOUTS  QUEUED  RUNNING\n  triage    openai    a, b      7       0\nm\n"
    );
    let steps = [(r#"POST /v1/ops/resume {"pipeline":"triage","reason":"r","dry_run":true}"#, 200, row(0))];
    assert!(!play(&["resume", "triage", "--reason", "r", "--dry-run"], &steps).out.contains("resumed"));
}

#[test]
fn the_audit_log_is_listed() {
    let entry =
        json!({"at": "2026-11-22T10:00:00Z", "actor": "ann", "action": "flag.set", "subject": "PAUSE", "reason": "r"});
    let steps = [("GET /v1/ops/audit?since=2026-11-22T00%3A00%3A00.000Z&limit=200", 200, json!({"data": [entry]}))];
    let ended = play(&["audit", "--since", "2026-11-22T00:00:00Z"], &steps);
    assert!(ended.out.contains("2026-11-22T10:00:00Z  ann    flag.set  PAUSE    r"), "{}", ended.out);
}

#[test]
fn a_models_traffic_is_told_with_what_may_have_been_billed_besides() {
    let row = |model: &str| {
        json!({"pipeline": "triage", "target": "openai", "provider": "openai", "model": model, "attempts": 1_203,
            "jobs_answered": 1_200, "possibly_billed": 3, "usage": {"input": 90_000, "output": 4_000, "cache_read": 10_000},
            "cost_usd": "1.25", "unpriced": 0, "possible_cost_usd": "0.03", "possible_cost_unknown": 0})
    };
    let answer = json!({"since": "2026-11-15T00:00:00Z", "data": [row("gpt-4o-mini"), row("gpt-5.4-mini")]});
    let steps = [("GET /v1/ops/traffic?since=30d", 200, answer)];
    let arguments = ["models", "--uses", "gpt-4o-mini-2024-07-18", "--since", "30d"];
    let ended = play(&arguments, &steps);
    assert_eq!(ended.exit, Exit::Success, "{}", ended.err);
    let line = ended.out.lines().find(|line| line.contains("triage")).unwrap();
    let cells: Vec<&str> = line.split("  ").filter(|cell| !cell.is_empty()).map(str::trim).collect();
    let expected = [
        "triage",
        "openai",
        "gpt-4o-mini",
        "1,200",
        "1,203",
        "100,000",
        "4,000",
        "1.25",
        "3 possibly billed, at most 0.03",
    ];
    assert_eq!(cells, expected);
    assert!(!ended.out.contains("gpt-5.4-mini"), "{}", ended.out);
}
