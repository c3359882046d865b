//! Whose account pays: the AWS credential chain, a profile, an assumed role; and the region where nobody names one.
//!
//! What the chain finds: environment variables, profiles with keys, `role_arn`, `credential_process` or web identity,
//! web identity tokens (EKS), and the endpoints of ECS, EKS and EC2. Profiles of IAM Identity Center (`sso_…`) and of
//! `aws login` are not built in; `credential_process = aws configure export-credentials …` serves them.
//!
//! Invariant: nothing here is a secret, and nothing is asked for over the network before the first call.

use aws_config::{
    BehaviorVersion, environment::EnvironmentVariableRegionProvider, meta::region::RegionProviderChain,
    profile::ProfileFileRegionProvider, sts::AssumeRoleProvider,
};
use aws_sdk_bedrockruntime::config::{Credentials, Region as SdkRegion, SharedHttpClient};
use aws_types::SdkConfig;

use crate::names::Region;

/// The environment's word on the region that goes before the SDK's own.
const REGION_VARIABLE: &str = "BEDROCK_REGION";
/// Where a role is assumed when no region is known: the service's home.
const HOME_REGION: &str = "us-east-1";

/// What the settings say of an account.
#[derive(Debug, Clone, Copy)]
pub(in crate::provider) struct Account<'a> {
    /// Of targets that name none.
    pub region: Option<&'a Region>,
    /// Of the AWS configuration files.
    pub profile: Option<&'a str>,
    /// Assumed before calling.
    pub role_arn: Option<&'a str>,
    /// For tests and private endpoints.
    pub endpoint_url: Option<&'a str>,
    /// Sign with made-up credentials, for simulated endpoints.
    pub anonymous: bool,
}

/// The SDK's defaults as of one release: an update of the SDK must not change how we call.
pub(super) fn behavior() -> BehaviorVersion {
    BehaviorVersion::v2026_01_12()
}

impl Account<'_> {
    pub(super) async fn load(&self, http: SharedHttpClient) -> Result<SdkConfig, String> {
        if let Some(role) = self.role_arn
            && !(role.starts_with("arn:") && role.contains(":role/"))
        {
            return Err(format!("role_arn: {role:?} is no role: write arn:aws:iam::ACCOUNT:role/NAME"));
        }
        let mut loader = aws_config::defaults(behavior()).http_client(http).region(self.region_chain());
        if let Some(profile) = self.profile {
            loader = loader.profile_name(profile);
        }
        if self.anonymous {
            loader = loader.credentials_provider(Credentials::new("simulated", "simulated", None, None, "simulation"));
        }
        let sdk = loader.load().await;
        let Some(role) = self.role_arn else { return Ok(sdk) };
        let region = sdk.region().cloned().unwrap_or(SdkRegion::from_static(HOME_REGION));
        let provider =
            AssumeRoleProvider::builder(role).session_name("landbridge").region(region).configure(&sdk).build().await;
        Ok(sdk
            .into_builder()
            .credentials_provider(aws_credential_types::provider::SharedCredentialsProvider::new(provider))
            .build())
    }

    fn region_chain(&self) -> RegionProviderChain {
        let said = self.region.map(|region| region.as_str().to_owned());
        let said = said.or_else(|| std::env::var(REGION_VARIABLE).ok().filter(|region| !region.is_empty()));
        let mut profile = ProfileFileRegionProvider::builder();
        if let Some(name) = self.profile {
            profile = profile.profile_name(name);
        }
        // Not EC2's own region: to ask for it costs seconds at every start elsewhere.
        RegionProviderChain::first_try(said.map(SdkRegion::new))
            .or_else(EnvironmentVariableRegionProvider::new())
            .or_else(profile.build())
    }
}

/// The region inside a model's ARN, such as that of an application inference profile.
pub(super) fn region_of_arn(model: &str) -> Option<&str> {
    let mut parts = model.strip_prefix("arn:")?.split(':');
    let (_partition, service, region) = (parts.next()?, parts.next()?, parts.next()?);
    (service == "bedrock" && !region.is_empty()).then_some(region)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arns_name_their_region() {
        for (model, region) in [
            ("arn:aws:bedrock:eu-west-1:123:application-inference-profile/x", Some("eu-west-1")),
            ("arn:aws-us-gov:bedrock:us-gov-west-1:123:provisioned-model/x", Some("us-gov-west-1")),
            ("arn:aws:bedrock:::x", None),
            ("arn:aws:iam:us-east-1:123:role/x", None),
            ("us.amazon.nova-lite-v1:0", None),
            ("arn:", None),
        ] {
            assert_eq!(region_of_arn(model), region, "{model}");
        }
    }
}
