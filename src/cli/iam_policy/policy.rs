//! From what targets need to an IAM policy.
//!
//! Invariant: pure; the same needs in any order give the same document.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use crate::{
    catalog::id::bedrock_id,
    spec::residency::{Reach, place_of},
};

/// What one target needs.
#[derive(Debug, Clone)]
pub(super) struct Need {
    /// `PIPELINE/TARGET`.
    pub used_by: String,
    /// The model as the target names it.
    pub model: String,
    /// The region called.
    pub region: String,
    /// The guardrail, by id or ARN.
    pub guardrail: Option<String>,
    /// Its answers are asked for whole.
    pub whole: bool,
    /// Its answers are streamed.
    pub streamed: bool,
    /// Its tokens are counted by Bedrock.
    pub counts: bool,
}

/// What may be done with a resource.
type Actions = BTreeSet<&'static str>;

impl Need {
    fn actions(&self) -> Actions {
        let whole = self.whole.then_some("bedrock:InvokeModel");
        let streamed = self.streamed.then_some("bedrock:InvokeModelWithResponseStream");
        whole.into_iter().chain(streamed).collect()
    }
}

/// What is behind a profile.
#[derive(Debug, Default)]
struct Behind {
    models: BTreeSet<String>,
    /// `aws:RequestedRegion`, where the models' own ARNs do not say it.
    regions: BTreeSet<String>,
    actions: Actions,
}

/// A policy in the making.
#[derive(Debug, Default)]
pub(super) struct Policy {
    /// Models called by themselves, and whatever is named by an ARN of its own.
    plain: BTreeMap<String, Actions>,
    /// Profiles by the region that they are called from.
    profiles: BTreeMap<String, BTreeMap<String, Actions>>,
    /// Models by the profile that alone may lead to them.
    behind: BTreeMap<String, Behind>,
    guardrails: BTreeSet<String>,
    counted: BTreeSet<String>,
    /// Whether quotas are read from AWS Service Quotas.
    quotas: bool,
    words: BTreeMap<String, BTreeSet<String>>,
    notes: BTreeSet<String>,
}

impl Policy {
    pub(super) fn of(needs: &[Need], account: &str) -> Self {
        let mut policy = Self::default();
        for need in needs {
            policy.add(need, account);
        }
        policy
    }

    /// Quotas are read from AWS Service Quotas.
    pub(super) fn reading_quotas(mut self) -> Self {
        self.quotas = true;
        self
    }

    fn add(&mut self, need: &Need, account: &str) {
        let region = need.region.as_str();
        let partition = partition(region);
        let base = bedrock_id(&need.model).base;
        let place = place_of(&need.model);
        let foundation = |region: &str| format!("arn:{partition}:bedrock:{region}::foundation-model/{base}");
        let reach = match kind_of_arn(&need.model) {
            Some("foundation-model") => {
                self.allow(&need.model, need);
                "the model itself".to_owned()
            }
            Some("application-inference-profile") => {
                let behind = self.profile(region, &need.model, need);
                behind.models.insert(format!("arn:{partition}:bedrock:*::foundation-model/*"));
                self.notes.insert(format!(
                    "{} does not say which models it leads to: any are allowed, through it alone; narrow that to its own",
                    need.model
                ));
                "the application profile, and whatever it leads to".to_owned()
            }
            Some("inference-profile") | None if !matches!(place.reach, Reach::Region) => {
                let profile = if need.model.starts_with("arn:") {
                    need.model.clone()
                } else {
                    format!("arn:{partition}:bedrock:{region}:{account}:inference-profile/{}", need.model)
                };
                let behind = self.profile(region, &profile, need);
                if let Reach::Geography(_, regions) = place.reach {
                    let all: BTreeSet<&str> = regions.iter().copied().chain([region]).collect();
                    behind.models.extend(all.iter().map(|region| foundation(region)));
                    format!("its profile, and through it the model in {}", Vec::from_iter(all).join(", "))
                } else {
                    behind.models.extend([foundation(region), foundation("")]);
                    behind.regions.extend([region.to_owned(), "unspecified".to_owned()]);
                    "its profile, and through it the model in every region".to_owned()
                }
            }
            Some(_) => {
                self.allow(&need.model, need);
                "the resource as it is named".to_owned()
            }
            None => {
                self.allow(&foundation(region), need);
                "the model itself".to_owned()
            }
        };
        self.words.entry(format!("{} from {region}: {reach}", need.model)).or_default().insert(need.used_by.clone());
        if let Some(guardrail) = &need.guardrail {
            self.guardrails.insert(if guardrail.starts_with("arn:") {
                guardrail.clone()
            } else {
                format!("arn:{partition}:bedrock:{region}:{account}:guardrail/{guardrail}")
            });
        }
        if need.counts {
            self.counted.insert(foundation(region));
        }
    }

    fn allow(&mut self, resource: &str, need: &Need) {
        self.plain.entry(resource.to_owned()).or_default().extend(need.actions());
    }

    /// Allows a profile; the models behind it are to be told.
    fn profile(&mut self, region: &str, arn: &str, need: &Need) -> &mut Behind {
        let profiles = self.profiles.entry(region.to_owned()).or_default();
        profiles.entry(arn.to_owned()).or_default().extend(need.actions());
        let behind = self.behind.entry(arn.to_owned()).or_default();
        behind.actions.extend(need.actions());
        behind
    }

    /// What an operator should know besides.
    pub(super) fn notes(&self) -> impl Iterator<Item = String> {
        self.notes.iter().cloned()
    }

    /// The document as AWS takes it.
    pub(super) fn document(&self) -> Value {
        let mut statements = Vec::new();
        for (place, (actions, models)) in by_actions(&self.plain).into_iter().enumerate() {
            let sid = format!("ModelsCalledByThemselves{}", place + 1);
            statements.push(statement(&sid, actions, &models, None));
        }
        let from = |(region, profiles)| by_actions(profiles).into_iter().map(move |group| (region, group));
        for (place, (region, (actions, profiles))) in self.profiles.iter().flat_map(from).enumerate() {
            let condition = json!({ "StringEquals": { "aws:RequestedRegion": region } });
            let sid = format!("ProfilesFromRegion{}", place + 1);
            statements.push(statement(&sid, actions, &profiles, Some(condition)));
        }
        for (place, (profile, behind)) in self.behind.iter().enumerate() {
            let mut equals = json!({ "bedrock:InferenceProfileArn": profile });
            if !behind.regions.is_empty() {
                equals["aws:RequestedRegion"] = json!(behind.regions);
            }
            let sid = format!("ModelsBehindProfile{}", place + 1);
            let models = behind.models.iter().map(String::as_str).collect();
            statements.push(statement(&sid, &behind.actions, &models, Some(json!({ "StringEquals": equals }))));
        }
        if !self.guardrails.is_empty() {
            let all = self.guardrails.iter().map(String::as_str).collect();
            statements.push(statement("Guardrails", &["bedrock:ApplyGuardrail"].into(), &all, None));
        }
        if !self.counted.is_empty() {
            let all = self.counted.iter().map(String::as_str).collect();
            statements.push(statement("CountedModels", &["bedrock:CountTokens"].into(), &all, None));
        }
        if self.quotas {
            // The service has no resources to narrow this to.
            let all = BTreeSet::from(["*"]);
            statements.push(statement("Quotas", &["servicequotas:ListServiceQuotas"].into(), &all, None));
        }
        json!({ "Version": "2012-10-17", "Statement": statements })
    }

    /// Who needs what.
    pub(super) fn in_words(&self) -> String {
        let mut text = String::new();
        for (what, users) in &self.words {
            let users: Vec<&str> = users.iter().map(String::as_str).collect();
            text += what;
            text += "\n  for ";
            text += &users.join(", ");
            text.push('\n');
        }
        let called = self.plain.values().chain(self.behind.values().map(|behind| &behind.actions));
        let mut actions: Actions = called.flatten().copied().collect();
        actions.extend((!self.guardrails.is_empty()).then_some("bedrock:ApplyGuardrail"));
        actions.extend((!self.counted.is_empty()).then_some("bedrock:CountTokens"));
        actions.extend(self.quotas.then_some("servicequotas:ListServiceQuotas"));
        text += "\nActions: ";
        text += &Vec::from_iter(actions).join(", ");
        text.push('\n');
        text
    }
}

/// Resources by what may be done with them.
fn by_actions(resources: &BTreeMap<String, Actions>) -> BTreeMap<&Actions, BTreeSet<&str>> {
    let mut groups: BTreeMap<&Actions, BTreeSet<&str>> = BTreeMap::new();
    for (resource, actions) in resources {
        groups.entry(actions).or_default().insert(resource);
    }
    groups
}

fn statement(sid: &str, actions: &Actions, resources: &BTreeSet<&str>, condition: Option<Value>) -> Value {
    let mut statement = json!({ "Sid": sid, "Effect": "Allow", "Action": actions, "Resource": resources });
    if let Some(condition) = condition {
        statement["Condition"] = condition;
    }
    statement
}

/// What kind of thing an ARN names.
fn kind_of_arn(model: &str) -> Option<&str> {
    // arn:PARTITION:bedrock:REGION:ACCOUNT:KIND/ID
    let resource = model.strip_prefix("arn:")?.splitn(5, ':').nth(4)?;
    resource.split_once('/').map(|(kind, _)| kind)
}

/// The part of AWS that a region is in.
fn partition(region: &str) -> &'static str {
    if region.starts_with("us-gov-") {
        "aws-us-gov"
    } else if region.starts_with("cn-") {
        "aws-cn"
    } else {
        "aws"
    }
}
