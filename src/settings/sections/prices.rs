//! `prices`: negotiated discounts.

use std::collections::{BTreeMap, BTreeSet};

use rust_decimal::Decimal;

use super::providers::known;
use crate::{
    names::ProviderName,
    settings::PriceSetting,
    yaml::{Findings, Keys, Node},
};

const KEYS: Keys = Keys::new("a price", &["multiplier"]);

/// Reads every discount.
pub(in crate::settings) fn read(
    node: &Node,
    names: &BTreeSet<ProviderName>,
    findings: &mut Findings,
) -> Option<BTreeMap<ProviderName, PriceSetting>> {
    let mut prices = BTreeMap::new();
    for entry in node.entries("prices", findings)? {
        let name: Option<ProviderName> = entry.key.name("a provider", findings);
        let name = name.and_then(|name| known(name, entry.key.position, names, findings));
        let Some(section) = entry.value.section(&KEYS, findings) else { continue };
        let multiplier = section.require("multiplier", findings);
        let range = Decimal::new(1, 4)..=Decimal::TEN;
        let multiplier = multiplier.and_then(|node| node.decimal("multiplier", range, findings));
        if let (Some(name), Some(multiplier)) = (name, multiplier) {
            prices.insert(name, PriceSetting { multiplier });
        }
    }
    Some(prices)
}
