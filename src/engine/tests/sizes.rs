//! Prompts and windows, rules on tokens, and money that may have been spent.

use serde_json::json;

use super::rig::{Rig, fault, spec};
use crate::{
    clock::Timestamp,
    ids::JobId,
    job::{Fault, State},
};

/// A job whose user says so many words, each a token.
async fn words(rig: &Rig, count: usize, max_tokens: Option<u64>) -> JobId {
    rig.submit_with(&[], |envelope| {
        envelope.body["messages"] = json!([{ "role": "user", "content": " word".repeat(count) }]);
        if let Some(most) = max_tokens {
            envelope.body["max_tokens"] = json!(most);
        }
    })
    .await
}

fn small_first(extra: &str) -> String {
    format!(
        "version: 1\nname: triage\ntargets:\n  \
         small: {{ provider: bedrock, model: meta.llama2-70b-chat-v1, region: us-east-1, defaults: {{ max_tokens: 500 }} }}\n  \
         openai: {{ provider: openai, model: gpt-5.4-mini }}\n\
         route:\n  - {{ name: all, to: small }}\n{extra}"
    )
}

#[tokio::test(start_paused = true)]
async fn a_prompt_that_cannot_fit_goes_to_a_larger_window_without_a_call() {
    let rig = Rig::start(&small_first("fallback: [openai]\n")).await;
    let job = words(&rig, 6_000, None).await;
    let record = rig.until(job, State::Succeeded).await;
    assert_eq!(rig.provider.targets(), ["openai"]);
    let decision = record.attempts[0].decision.as_ref().unwrap().to_string();
    assert!(decision.contains("passed over: target small (meta.llama2-70b-chat-v1): its window is 4096"), "{decision}");
    let fallback = r#"landbridge_fallbacks_total{fault="too_long",from="small",pipeline="triage",to="openai"} 1"#;
    assert!(rig.engine.metrics().encode().contains(fallback));
    // One that fits stays where it is routed.
    let job = words(&rig, 100, None).await;
    rig.until(job, State::Succeeded).await;
    assert_eq!(rig.provider.targets(), ["openai", "small"]);
}

#[tokio::test(start_paused = true)]
async fn a_prompt_that_fits_nowhere_is_refused_with_the_numbers() {
    let rig = Rig::start(&small_first("")).await;
    let job = words(&rig, 6_000, None).await;
    let error = rig.until(job, State::Failed).await.error.unwrap();
    assert_eq!(error.reason_code, "too_long");
    assert_eq!(error.code.as_deref(), Some("context_length_exceeded"));
    for part in [
        "target small (meta.llama2-70b-chat-v1)",
        "its window is 4096 tokens",
        "answer may have 500",
        "nothing was sent",
    ] {
        assert!(error.message.contains(part), "{}", error.message);
    }
    assert!(rig.provider.targets().is_empty());

    // An answer longer than the model writes.
    let rig = Rig::start(&small_first("").replace("to: small", "to: openai")).await;
    let job = words(&rig, 1, Some(200_000)).await;
    let error = rig.until(job, State::Failed).await.error.unwrap();
    assert_eq!(error.reason_code, "too_long");
    assert!(error.message.contains("at most 128000 tokens, not 200000"), "{}", error.message);
}

#[tokio::test(start_paused = true)]
async fn near_the_window_tokens_are_counted_and_not_guessed() {
    let rig = Rig::start(
        "version: 1\nname: triage\ntargets: { openai: { provider: openai, model: gpt-4 } }\nroute: [{ name: all, to: openai }]\n",
    )
    .await;
    // 8,192 = 3 for the request, 4 for the message, 8,085 words, 100 of answer. The estimate alone would refuse it.
    let job = words(&rig, 8_085, Some(100)).await;
    rig.until(job, State::Succeeded).await;
    let job = words(&rig, 8_086, Some(100)).await;
    let error = rig.until(job, State::Failed).await.error.unwrap();
    assert!(error.message.contains("its window is 8192 tokens, the prompt has"), "{}", error.message);
    assert!(error.message.contains("8093"), "{}", error.message);
    assert_eq!(rig.provider.targets().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_rule_on_tokens_is_exact_where_it_matters() {
    let rules =
        "route:\n  - { name: long, when: job.prompt_tokens > 100, to: openai }\n  - { name: all, to: bedrock }\n";
    let rig = Rig::start(&spec("").replace("route:\n  - { name: all, to: bedrock }\n", rules)).await;
    // 3 for the request and 4 for the message come to the words.
    for (count, target) in [(5, "bedrock"), (93, "bedrock"), (94, "openai"), (1_000, "openai")] {
        let job = words(&rig, count, Some(64)).await;
        rig.until(job, State::Succeeded).await;
        assert_eq!(rig.provider.targets().last().map(String::as_str), Some(target), "{count} words");
    }
}

#[tokio::test(start_paused = true)]
async fn what_may_have_been_billed_is_counted_apart() {
    let rig = Rig::start(&spec("")).await;
    rig.provider.script("bedrock", [fault(Fault::Unknown)]);
    let job = rig.submit(&[]).await;
    let record = rig.until(job, State::Succeeded).await;
    let (lost, answered) = (&record.attempts[0], &record.attempts[1]);
    // 64 tokens of answer at 5.50 dollars a million, and a prompt of a few tokens.
    let most = lost.possible_cost_usd.unwrap();
    assert!(most > "0.000352".parse().unwrap() && most < "0.0004".parse().unwrap(), "{most}");
    assert_eq!(lost.cost_usd, None);
    assert_eq!((answered.cost_usd.unwrap().to_string().as_str(), answered.possible_cost_usd), ("0.00165", None));
    let text = rig.engine.metrics().encode();
    for line in [
        r#"landbridge_possibly_billed_attempts_total{outcome="failed",pipeline="triage",target="bedrock"} 1"#
            .to_owned(),
        format!(r#"landbridge_possible_cost_usd_total{{pipeline="triage",target="bedrock"}} {most}"#),
        r#"landbridge_cost_usd_total{pipeline="triage",target="bedrock"} 0.00165"#.to_owned(),
    ] {
        assert!(text.contains(&line), "{line}");
    }
    let traffic = rig.store_traffic().await;
    assert_eq!((traffic.attempts, traffic.answered, traffic.possibly_billed), (2, 1, 1));
    assert_eq!((traffic.cost.to_string().as_str(), traffic.possible_cost), ("0.00165", most));
}

#[tokio::test(start_paused = true)]
async fn an_unknown_price_is_no_cost_and_is_said() {
    let rig = Rig::start(&spec("").replace("us.anthropic.claude-haiku-4-5-20251001-v1:0", "house.own-model")).await;
    let job = rig.submit(&[]).await;
    let record = rig.until(job, State::Succeeded).await;
    assert!(record.attempts[0].usage.is_some() && record.attempts[0].cost_usd.is_none());
    let line = r#"landbridge_unpriced_attempts_total{pipeline="triage",target="bedrock"} 1"#;
    assert!(rig.engine.metrics().encode().contains(line));
    assert_eq!(rig.store_traffic().await.unpriced, 1);
}

impl Rig {
    async fn store_traffic(&self) -> crate::store::Traffic {
        use crate::store::Store as _;
        let sums = self.store.traffic(Timestamp::from_micros(0)).await.unwrap();
        assert_eq!(sums.len(), 1, "{sums:?}");
        sums.into_values().next().unwrap()
    }
}
