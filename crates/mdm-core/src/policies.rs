//! Policies: what devices must be like.
//!
//! A policy's configuration is settings of the [`catalogue`] by name, and custom checks.

use std::{collections::BTreeMap, fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{
    clock::Timestamp,
    devices::{Platform, words},
    ids::{GroupId, OrganizationId, PolicyId},
    invalid::{self, Invalid},
};

pub mod catalogue;
mod conflicts;

pub use conflicts::{EffectiveSetting, Overruled, resolve};

/// Which devices a policy is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PolicyPlatform {
    /// Devices of every platform.
    All,
    /// Devices of this one.
    Only(Platform),
}

impl PolicyPlatform {
    /// Whether devices of the platform are meant.
    pub fn includes(self, platform: Platform) -> bool {
        match self {
            Self::All => true,
            Self::Only(only) => only == platform,
        }
    }

    /// Its name in the API and the database.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Only(platform) => platform.as_str(),
        }
    }
}

/// The text names no platform, nor is it `all`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown platform; known are: all, windows, macos, linux, ios, android")]
pub struct UnknownPolicyPlatform;

impl FromStr for PolicyPlatform {
    type Err = UnknownPolicyPlatform;

    fn from_str(text: &str) -> Result<Self, UnknownPolicyPlatform> {
        if text == "all" {
            return Ok(Self::All);
        }
        text.parse()
            .map(Self::Only)
            .map_err(|_unknown| UnknownPolicyPlatform)
    }
}

/// What devices must be like.
#[derive(Debug, Clone)]
pub struct Policy {
    /// Its id.
    pub id: PolicyId,
    /// The organisation that it belongs to.
    pub organization_id: OrganizationId,
    /// What people call it. Need not be unique.
    pub name: String,
    /// What people say of it.
    pub description: Option<String>,
    /// Which devices it is for.
    pub platform: PolicyPlatform,
    /// A tag that clients of the older API send. Nothing depends on it.
    pub kind: Option<String>,
    /// Whether it counts at all.
    pub enabled: bool,
    /// What it asks for.
    pub configuration: Configuration,
    /// Counts the changes: devices report against it.
    pub version: i64,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
}

/// How a policy came to a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AssignmentPath {
    /// It is assigned to the device.
    Direct,
    /// It is assigned to a group that the device is in.
    Group {
        /// Which group.
        id: GroupId,
        /// What people call it.
        name: String,
    },
}

/// A check of one's own: passes if the query returns a row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Check {
    /// Its name, unique within the policy: 1 to 100 characters.
    pub name: String,
    /// One `SELECT` over the device's tables: at most 16 KiB.
    pub query: String,
    /// A script that may put things right: at most 64 KiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remediation: Option<String>,
}

/// What a policy asks for: checked against the catalogue.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Configuration {
    settings: BTreeMap<String, Value>,
    checks: Vec<Check>,
}

/// The largest configuration, in bytes of JSON.
const MAX_CONFIGURATION: usize = 256 * 1024;
/// How many checks a policy may have.
const CHECKS_AT_MOST: usize = 100;

impl Configuration {
    /// Takes a configuration for devices of the platform: an object of settings by name, and
    /// `checks`. Errors point below `pointer`.
    pub fn parse(
        pointer: &str,
        platform: PolicyPlatform,
        value: &Value,
    ) -> Result<Self, Vec<Invalid>> {
        let Value::Object(fields) = value else {
            return Err(vec![Invalid::new(
                pointer,
                "WRONG_TYPE",
                "must be an object",
            )]);
        };
        if value.to_string().len() > MAX_CONFIGURATION {
            let detail = "must have at most 256 KiB as JSON";
            return Err(vec![Invalid::new(pointer, "TOO_LONG", detail)]);
        }
        let (mut settings, mut checks, mut wrong) = (BTreeMap::new(), Vec::new(), Vec::new());
        for (name, value) in fields {
            let pointer = format!("{pointer}/{}", invalid::escape(name));
            if name == "checks" {
                match parse_checks(&pointer, value) {
                    Ok(parsed) => checks = parsed,
                    Err(invalid) => wrong.push(invalid),
                }
                continue;
            }
            match catalogue::check(&pointer, name, platform, value) {
                Ok(()) => {
                    settings.insert(name.clone(), value.clone());
                }
                Err(invalid) => wrong.push(invalid),
            }
        }
        if wrong.is_empty() {
            Ok(Self { settings, checks })
        } else {
            Err(wrong)
        }
    }

    /// Reads what the database holds, which was checked before it was written.
    pub fn from_stored(value: &Value) -> Option<Self> {
        let mut fields = value.as_object()?.clone();
        let checks = match fields.remove("checks") {
            Some(checks) => serde_json::from_value(checks).ok()?,
            None => Vec::new(),
        };
        Some(Self {
            settings: fields.into_iter().collect(),
            checks,
        })
    }

    /// As JSON, as it was given.
    pub fn to_json(&self) -> Value {
        let mut fields: Map<String, Value> = self
            .settings
            .iter()
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect();
        if !self.checks.is_empty() {
            let checks = self.checks.iter().map(check_json).collect();
            fields.insert("checks".to_owned(), Value::Array(checks));
        }
        Value::Object(fields)
    }

    /// The settings by name.
    pub const fn settings(&self) -> &BTreeMap<String, Value> {
        &self.settings
    }

    /// The checks.
    pub fn checks(&self) -> &[Check] {
        &self.checks
    }

    /// The names under which a device reports on this configuration: each setting's own, and
    /// `check:` with the name of each check.
    pub fn rules(&self) -> Vec<String> {
        let settings = self.settings.keys().cloned();
        let checks = self
            .checks
            .iter()
            .map(|check| format!("check:{}", check.name));
        settings.chain(checks).collect()
    }
}

fn check_json(check: &Check) -> Value {
    let mut fields = Map::new();
    fields.insert("name".to_owned(), check.name.clone().into());
    fields.insert("query".to_owned(), check.query.clone().into());
    if let Some(remediation) = &check.remediation {
        fields.insert("remediation".to_owned(), remediation.clone().into());
    }
    Value::Object(fields)
}

fn parse_checks(pointer: &str, value: &Value) -> Result<Vec<Check>, Invalid> {
    let Value::Array(items) = value else {
        return Err(Invalid::new(
            pointer,
            "WRONG_TYPE",
            "must be a list of checks",
        ));
    };
    if items.len() > CHECKS_AT_MOST {
        let detail = format!("must have at most {CHECKS_AT_MOST} checks");
        return Err(Invalid::new(pointer, "TOO_MANY", detail));
    }
    let mut checks: Vec<Check> = Vec::with_capacity(items.len());
    for (index, item) in items.iter().enumerate() {
        let pointer = format!("{pointer}/{index}");
        let check: Check = serde_json::from_value(item.clone())
            .map_err(|error| Invalid::new(&pointer, "INVALID_CHECK", error.to_string()))?;
        let name = invalid::text(&format!("{pointer}/name"), &check.name, 100)?;
        if checks.iter().any(|other| other.name == name) {
            let detail = "another check of this policy has the same name";
            return Err(Invalid::new(format!("{pointer}/name"), "REPEATED", detail));
        }
        long_text(&format!("{pointer}/query"), &check.query, 16 * 1024)?;
        if let Some(remediation) = &check.remediation {
            long_text(&format!("{pointer}/remediation"), remediation, 64 * 1024)?;
        }
        checks.push(Check { name, ..check });
    }
    Ok(checks)
}

fn long_text(pointer: &str, text: &str, most: usize) -> Result<(), Invalid> {
    if text.trim().is_empty() {
        return Err(Invalid::new(pointer, "EMPTY", "must not be empty"));
    }
    if text.len() > most || text.contains('\0') {
        let detail = format!("must have at most {most} bytes, without the character U+0000");
        return Err(Invalid::new(pointer, "TOO_LONG", detail));
    }
    Ok(())
}

words! {
    /// Where a device stands towards a policy.
    #[derive(PartialOrd, Ord)]
    ComplianceState, UnknownComplianceState, "compliance state" {
        /// The device said that every rule is met.
        Compliant = "compliant",
        /// The device said that a rule is not met.
        NonCompliant = "non_compliant",
        /// The device has not said anything of the policy's present version.
        Pending = "pending",
        /// The device could not tell of every rule.
        Error = "error",
        /// The policy is for other platforms, or no rule of it applies to the device.
        NotApplicable = "not_applicable",
    }
}

words! {
    /// What a device says of one rule.
    RuleState, UnknownRuleState, "rule state" {
        /// It is met.
        Passed = "passed",
        /// It is not met.
        Failed = "failed",
        /// It could not be checked.
        Error = "error",
        /// It makes no sense on this device.
        NotApplicable = "not_applicable",
    }
}

/// What a device says of one rule of a policy.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RuleResult {
    /// Its name, as in [`Configuration::rules`].
    pub rule: String,
    /// What came of it.
    pub state: RuleState,
    /// What the device found, as far as it can be told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub actual: Option<Value>,
    /// What there is to say of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

/// What the rules' results make of a policy. A rule of which the device said nothing could not be
/// checked; a result for a rule that the policy does not have is left out.
pub fn assess(
    configuration: &Configuration,
    told: Vec<RuleResult>,
) -> (ComplianceState, Vec<RuleResult>) {
    let mut told: BTreeMap<String, RuleResult> = told
        .into_iter()
        .map(|result| (result.rule.clone(), result))
        .collect();
    let results: Vec<RuleResult> = configuration
        .rules()
        .into_iter()
        .map(|rule| {
            told.remove(&rule).unwrap_or_else(|| RuleResult {
                rule,
                state: RuleState::Error,
                actual: None,
                detail: Some("the device did not report on it".to_owned()),
            })
        })
        .collect();
    let any = |state| results.iter().any(|result| result.state == state);
    let state = if any(RuleState::Failed) {
        ComplianceState::NonCompliant
    } else if any(RuleState::Error) {
        ComplianceState::Error
    } else if results.is_empty() || any(RuleState::Passed) {
        ComplianceState::Compliant
    } else {
        ComplianceState::NotApplicable
    };
    (state, results)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn parse(value: &Value) -> Result<Configuration, Vec<Invalid>> {
        Configuration::parse("/configuration", PolicyPlatform::All, value)
    }

    fn result(rule: &str, state: RuleState) -> RuleResult {
        RuleResult {
            rule: rule.to_owned(),
            state,
            actual: None,
            detail: None,
        }
    }

    #[test]
    fn every_unknown_setting_and_wrong_type_is_pointed_at() {
        let wrong = parse(
            &json!({"firewall": true, "screen_lock_seconds": "soon", "firewall_enabled": true}),
        );
        let pointers: Vec<_> = wrong
            .unwrap_err()
            .into_iter()
            .map(|invalid| invalid.pointer)
            .collect();
        assert_eq!(
            pointers,
            [
                "/configuration/firewall",
                "/configuration/screen_lock_seconds"
            ]
        );
    }

    #[test]
    fn a_setting_must_fit_the_platform() {
        let settings = json!({"gatekeeper_enabled": true});
        let linux = PolicyPlatform::Only(Platform::Linux);
        let refused = Configuration::parse("/configuration", linux, &settings).unwrap_err();
        assert_eq!(refused[0].code, "WRONG_PLATFORM");
        assert!(Configuration::parse("/configuration", PolicyPlatform::All, &settings).is_ok());
    }

    #[test]
    fn checks_need_names_of_their_own() {
        let check = json!({"name": "a", "query": "SELECT 1"});
        let refused = parse(&json!({"checks": [check, check]})).unwrap_err();
        assert_eq!(refused[0].pointer, "/configuration/checks/1/name");
    }

    #[test]
    fn a_configuration_survives_the_database() {
        let value =
            json!({"firewall_enabled": true, "checks": [{"name": "a", "query": "SELECT 1"}]});
        let configuration = parse(&value).unwrap();
        assert_eq!(configuration.to_json(), value);
        assert_eq!(Configuration::from_stored(&value).unwrap(), configuration);
        assert_eq!(configuration.rules(), ["firewall_enabled", "check:a"]);
    }

    #[test]
    fn a_rule_that_was_not_told_of_is_never_taken_for_met() {
        let configuration =
            parse(&json!({"firewall_enabled": true, "screen_lock_seconds": 300})).unwrap();
        let (state, rules) = assess(
            &configuration,
            vec![result("firewall_enabled", RuleState::Passed)],
        );
        assert_eq!(state, ComplianceState::Error);
        assert_eq!(rules.len(), 2);
    }

    #[test]
    fn one_failed_rule_makes_a_device_non_compliant() {
        let configuration =
            parse(&json!({"firewall_enabled": true, "screen_lock_seconds": 300})).unwrap();
        let told = vec![
            result("firewall_enabled", RuleState::Error),
            result("screen_lock_seconds", RuleState::Failed),
        ];
        assert_eq!(
            assess(&configuration, told).0,
            ComplianceState::NonCompliant
        );
    }

    #[test]
    fn rules_that_do_not_apply_leave_the_verdict_to_the_others() {
        let configuration =
            parse(&json!({"firewall_enabled": true, "screen_lock_seconds": 300})).unwrap();
        let told = vec![
            result("firewall_enabled", RuleState::Passed),
            result("screen_lock_seconds", RuleState::NotApplicable),
        ];
        assert_eq!(assess(&configuration, told).0, ComplianceState::Compliant);
        let told = vec![
            result("firewall_enabled", RuleState::NotApplicable),
            result("screen_lock_seconds", RuleState::NotApplicable),
        ];
        assert_eq!(
            assess(&configuration, told).0,
            ComplianceState::NotApplicable
        );
    }
}
