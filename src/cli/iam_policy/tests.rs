//! Policies for every way to name a model.

use super::policy::{Need, Policy};

fn need(used_by: &str, model: &str, region: &str) -> Need {
    Need {
        used_by: used_by.to_owned(),
        model: model.to_owned(),
        region: region.to_owned(),
        guardrail: None,
        whole: true,
        streamed: false,
        counts: false,
    }
}

fn policy(needs: &[Need]) -> Policy {
    Policy::of(needs, "123456789012")
}

#[test]
fn every_way_to_name_a_model_is_allowed_and_no_more() {
    let app = "arn:aws:bedrock:us-east-1:123456789012:application-inference-profile/abc123";
    let imported = "arn:aws:bedrock:us-west-2:123456789012:imported-model/xyz789";
    let mut needs = vec![
        need("a/plain", "deepseek.v3.2", "us-west-2"),
        need("a/us", "us.anthropic.claude-haiku-4-5-20251001-v1:0", "us-east-1"),
        need("b/us", "us.anthropic.claude-haiku-4-5-20251001-v1:0", "us-east-1"),
        need("a/jp", "jp.anthropic.claude-sonnet-4-6", "ap-northeast-1"),
        need("a/global", "global.anthropic.claude-sonnet-5-5", "eu-west-1"),
        need("a/app", app, "us-east-1"),
        need("a/imported", imported, "us-west-2"),
        need(
            "a/arn",
            "arn:aws:bedrock:us-east-1:123456789012:inference-profile/us.amazon.nova-2-lite-v1:0",
            "us-east-1",
        ),
        need("g/gov", "us-gov.anthropic.claude-sonnet-4-5-20250929-v1:0", "us-gov-west-1"),
    ];
    let whole = policy(&needs);
    let document = whole.document();
    insta::assert_json_snapshot!("policy", document);
    assert_eq!(whole.notes().count(), 1, "the application profile");
    // In any order.
    needs.reverse();
    assert_eq!(policy(&needs).document(), document);
    insta::assert_snapshot!("policy-in-words", whole.in_words());
}

#[test]
fn streams_counts_and_guardrails_are_allowed_where_they_are_used() {
    let mut one = need("a/eu", "eu.anthropic.claude-haiku-4-5-20251001-v1:0", "eu-central-1");
    one.counts = true;
    one.streamed = true;
    one.guardrail = Some("gr-1".to_owned());
    let document = policy(&[one.clone()]).document();
    insta::assert_json_snapshot!("policy-streaming", document);
    one.counts = false;
    one.guardrail = None;
    one.streamed = false;
    let text = policy(&[one.clone()]).document().to_string();
    for absent in ["CountTokens", "ResponseStream", "Guardrail"] {
        assert!(!text.contains(absent), "{absent}");
    }
    // A target that only streams needs nothing else.
    let streams = Need { whole: false, streamed: true, ..need("a/us", "deepseek.v3.2", "us-west-2") };
    let document = policy(&[one, streams]).document();
    let first = &document["Statement"][0];
    assert_eq!(first["Action"], serde_json::json!(["bedrock:InvokeModelWithResponseStream"]));
    assert_eq!(first["Resource"].as_array().unwrap().len(), 1);
}

#[test]
fn quotas_that_are_read_from_aws_are_allowed_to_be() {
    let needs = [need("a/plain", "deepseek.v3.2", "us-west-2")];
    assert!(!policy(&needs).document().to_string().contains("servicequotas"));
    let policy = policy(&needs).reading_quotas();
    let last = policy.document()["Statement"].as_array().unwrap().last().unwrap().clone();
    assert_eq!((&last["Action"][0], &last["Resource"][0]), (&"servicequotas:ListServiceQuotas".into(), &"*".into()));
    assert!(policy.in_words().contains("servicequotas:ListServiceQuotas"));
}
