//! What the address of a Bedrock endpoint says: the service to sign for, and its region.

/// The runtime, as signatures name it.
pub(super) const RUNTIME: &str = "bedrock";
/// The endpoint that speaks other makers' forms alone, as signatures name it.
const MANTLE: &str = "bedrock-mantle";

/// An endpoint of Bedrock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Endpoint<'a> {
    /// For signatures.
    pub service: &'static str,
    /// In its host's name.
    pub region: &'a str,
}

/// Reads `https://bedrock-runtime.us-east-1.amazonaws.com/…` and its likes (FIPS, dual stack, VPC endpoints).
pub(super) fn endpoint(url: &str) -> Option<Endpoint<'_>> {
    let (_, rest) = url.split_once("://")?;
    let host = rest.split(['/', ':']).next()?;
    let ours = [".amazonaws.com", ".amazonaws.com.cn", ".api.aws"].iter().any(|end| host.ends_with(end));
    let mut labels = host.split('.').skip_while(|label| !label.starts_with("bedrock-"));
    let service = match labels.next()? {
        "bedrock-runtime" | "bedrock-runtime-fips" => RUNTIME,
        "bedrock-mantle" => MANTLE,
        _ => return None,
    };
    let region = labels.next().filter(|region| region.contains('-'))?;
    ours.then_some(Endpoint { service, region })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_name_service_and_region() {
        for (url, expected) in [
            ("https://bedrock-runtime.us-east-1.amazonaws.com/openai/v1", Some(("bedrock", "us-east-1"))),
            ("https://bedrock-runtime-fips.us-gov-west-1.amazonaws.com/openai/v1", Some(("bedrock", "us-gov-west-1"))),
            ("https://bedrock-runtime.eu-west-1.api.aws:443/openai/v1", Some(("bedrock", "eu-west-1"))),
            ("https://bedrock-mantle.us-west-2.api.aws/v1", Some(("bedrock-mantle", "us-west-2"))),
            ("https://vpce-0a1.bedrock-runtime.us-east-1.vpce.amazonaws.com/openai/v1", Some(("bedrock", "us-east-1"))),
            ("https://bedrock-runtime.us-east-1.amazonaws.com.evil.test/v1", None),
            ("https://bedrock-runtime.amazonaws.com/v1", None),
            ("https://api.openai.com/v1", None),
            ("nonsense", None),
        ] {
            let found = endpoint(url).map(|endpoint| (endpoint.service, endpoint.region));
            assert_eq!(found, expected, "{url}");
        }
    }
}
