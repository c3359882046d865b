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
    /// Its tokens are counted by Bedrock.
    pub counts: bool,
}

/// What calls do.
#[derive(Debug, Clone, Copy)]
pub(super) struct Actions {
    /// Some answers are streamed.
    pub streaming: bool,
}

impl Actions {
    fn names(self) -> Vec<&'static str> {
        let mut names = vec!["bedrock:InvokeModel"];
        if self.streaming {
            names.push("bedrock:InvokeModelWithResponseStream");
        }
        names
    }
}

/// What is behind a profile.
#[derive(Debug, Default)]
struct Behind {
    models: BTreeSet<String>,
    /// `aws:RequestedRegion`, where the models' own ARNs do not say it.
    regions: BTreeSet<String>,
}

/// A policy in the making.
#[derive(Debug)]
pub(super) struct Policy {
    actions: Actions,
    /// Models called by themselves, and whatever is named by an ARN of its own.
    plain: BTreeSet<String>,
    /// Profiles by the region that they are called from.
    profiles: BTreeMap<String, BTreeSet<String>>,
    /// Models by the profile that alone may lead to them.
    behind: BTreeMap<String, Behind>,
    guardrails: BTreeSet<String>,
    counted: BTreeSet<String>,
    words: BTreeMap<String, BTreeSet<String>>,
    notes: BTreeSet<String>,
}

impl Policy {
    pub(super) fn of(needs: &[Need], account: &str, actions: Actions) -> Self {
        let mut policy = Self {
            actions,
            plain: BTreeSet::new(),
            profiles: BTreeMap::new(),
            behind: BTreeMap::new(),
            guardrails: BTreeSet::new(),
            counted: BTreeSet::new(),
            words: BTreeMap::new(),
            notes: BTreeSet::new(),
        };
        for need in needs {
            policy.add(need, account);
        }
        policy
    }

    fn add(&mut self, need: &Need, account: &str) {
        let region = need.region.as_str();
        let partition = partition(region);
        let base = bedrock_id(&need.model).base;
        let place = place_of(&need.model);
        let foundation = |region: &str| format!("arn:{partition}:bedrock:{region}::foundation-model/{base}");
        let reach = match kind_of_arn(&need.model) {
            Some("foundation-model") => {
                self.plain.insert(need.model.clone());
                "the model itself".to_owned()
            }
            Some("application-inference-profile") => {
                self.profile(region, &need.model);
                let behind = self.behind.entry(need.model.clone()).or_default();
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
                self.profile(region, &profile);
                let behind = self.behind.entry(profile).or_default();
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
                self.plain.insert(need.model.clone());
                "the resource as it is named".to_owned()
            }
            None => {
                self.plain.insert(foundation(region));
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

    fn profile(&mut self, region: &str, arn: &str) {
        self.profiles.entry(region.to_owned()).or_default().insert(arn.to_owned());
    }

    /// What an operator should know besides.
    pub(super) fn notes(&self) -> impl Iterator<Item = String> {
        self.notes.iter().cloned()
    }

    /// The document as AWS takes it.
    pub(super) fn document(&self) -> Value {
        let actions = self.actions.names();
        let mut statements = Vec::new();
        if !self.plain.is_empty() {
            statements.push(statement("ModelsCalledByThemselves", &actions, &self.plain, None));
        }
        for (place, (region, profiles)) in self.profiles.iter().enumerate() {
            let condition = json!({ "StringEquals": { "aws:RequestedRegion": region } });
            let sid = format!("ProfilesFromRegion{}", place + 1);
            statements.push(statement(&sid, &actions, profiles, Some(condition)));
        }
        for (place, (profile, behind)) in self.behind.iter().enumerate() {
            let mut equals = json!({ "bedrock:InferenceProfileArn": profile });
            if !behind.regions.is_empty() {
                equals["aws:RequestedRegion"] = json!(behind.regions);
            }
            let sid = format!("ModelsBehindProfile{}", place + 1);
            statements.push(statement(&sid, &actions, &behind.models, Some(json!({ "StringEquals": equals }))));
        }
        if !self.guardrails.is_empty() {
            statements.push(statement("Guardrails", &["bedrock:ApplyGuardrail"], &self.guardrails, None));
        }
        if !self.counted.is_empty() {
            statements.push(statement("CountedModels", &["bedrock:CountTokens"], &self.counted, None));
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
        let mut actions = self.actions.names();
        if !self.guardrails.is_empty() {
            actions.push("bedrock:ApplyGuardrail");
        }
        if !self.counted.is_empty() {
            actions.push("bedrock:CountTokens");
        }
        text += "\nActions: ";
        text += &actions.join(", ");
        text.push('\n');
        text
    }
}

fn statement(sid: &str, actions: &[&str], resources: &BTreeSet<String>, condition: Option<Value>) -> Value {
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
