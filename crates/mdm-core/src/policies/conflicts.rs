//! When several policies set the same thing: the strictest wins, as the setting says what strict
//! means.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{Configuration, catalogue};
use crate::ids::PolicyId;

/// What counts on a device for one setting.
#[derive(Debug, Clone, PartialEq)]
pub struct EffectiveSetting {
    /// The value that counts.
    pub value: Value,
    /// The policies that ask for it.
    pub policies: Vec<PolicyId>,
    /// Those that ask for less.
    pub overruled: Vec<Overruled>,
}

/// A policy that asks for less than another.
#[derive(Debug, Clone, PartialEq)]
pub struct Overruled {
    /// Which policy.
    pub policy_id: PolicyId,
    /// What it asks for.
    pub value: Value,
}

/// What counts for each setting when all of these hold.
pub fn resolve<'a>(
    policies: impl IntoIterator<Item = (PolicyId, &'a Configuration)>,
) -> BTreeMap<String, EffectiveSetting> {
    let mut asked: BTreeMap<&str, Vec<(PolicyId, &Value)>> = BTreeMap::new();
    for (policy, configuration) in policies {
        for (name, value) in configuration.settings() {
            asked.entry(name).or_default().push((policy, value));
        }
    }
    asked
        .into_iter()
        .filter_map(|(name, asked)| {
            let setting = catalogue::find(name)?;
            let values = asked.iter().map(|(_, value)| *value);
            let value = setting.strictness.strictest(values)?;
            let (same, less): (Vec<_>, Vec<_>) =
                asked.into_iter().partition(|(_, asked)| **asked == value);
            let effective = EffectiveSetting {
                value,
                policies: same.into_iter().map(|(policy, _)| policy).collect(),
                overruled: less
                    .into_iter()
                    .map(|(policy_id, value)| Overruled {
                        policy_id,
                        value: value.clone(),
                    })
                    .collect(),
            };
            Some((name.to_owned(), effective))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policies::PolicyPlatform;
    use proptest::prelude::*;
    use serde_json::json;
    use uuid::Uuid;

    fn policy(number: u128, value: &Value) -> (PolicyId, Configuration) {
        let configuration = Configuration::parse("", PolicyPlatform::All, value).unwrap();
        (PolicyId::from_uuid(Uuid::from_u128(number)), configuration)
    }

    fn effective(policies: &[(PolicyId, Configuration)]) -> BTreeMap<String, EffectiveSetting> {
        resolve(
            policies
                .iter()
                .map(|(id, configuration)| (*id, configuration)),
        )
    }

    #[test]
    fn the_strictest_wins_and_the_others_are_shown() {
        let policies = [
            policy(
                1,
                &json!({"screen_lock_seconds": 600, "password_min_length": 8}),
            ),
            policy(
                2,
                &json!({"screen_lock_seconds": 300, "password_min_length": 14}),
            ),
        ];
        let effective = effective(&policies);
        let lock = &effective["screen_lock_seconds"];
        assert_eq!(
            (&lock.value, &lock.policies),
            (&json!(300), &vec![policies[1].0])
        );
        assert_eq!(lock.overruled[0].policy_id, policies[0].0);
        assert_eq!(effective["password_min_length"].value, json!(14));
    }

    #[test]
    fn lists_are_joined() {
        let policies = [
            policy(1, &json!({"forbidden_packages": ["telnetd", "nis"]})),
            policy(2, &json!({"forbidden_packages": ["rsh-server", "nis"]})),
        ];
        let joined = &effective(&policies)["forbidden_packages"];
        assert_eq!(joined.value, json!(["nis", "rsh-server", "telnetd"]));
    }

    proptest! {
        #[test]
        fn the_order_of_policies_changes_no_value(lengths in proptest::collection::vec(4_u32..64, 1..8)) {
            let mut policies: Vec<_> = (1..).zip(&lengths)
                .map(|(number, length)| policy(number, &json!({"password_min_length": length})))
                .collect();
            let forwards = effective(&policies)["password_min_length"].value.clone();
            policies.reverse();
            prop_assert_eq!(&effective(&policies)["password_min_length"].value, &forwards);
            prop_assert_eq!(forwards, json!(lengths.iter().max()));
        }
    }
}
