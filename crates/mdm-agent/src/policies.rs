//! Looking at this machine with the eyes of its policies.
//!
//! Settings of the server's catalogue are checked by [`linux`], checks of one's own by their query.
//! What cannot be checked is said to be an error, never to be met.

pub mod linux;

use std::{path::Path, time::Duration};

use mdm_client::{Client, ClientError};
use mdm_proto::{
    device_side::{DevicePolicy, PolicyResult},
    policies::RuleResult,
};
use serde_json::{Value, json};

use crate::{clock, sql};

/// How long a check's query may take.
const QUERY_TIME: Duration = Duration::from_secs(10);

/// What was found of all policies.
#[derive(Debug, Clone, PartialEq)]
pub struct Findings {
    /// For which number of the server's.
    pub revision: i64,
    /// Each policy.
    pub results: Vec<PolicyResult>,
}

/// Fetches the policies and looks at the machine.
pub async fn look(client: &Client) -> Result<Findings, ClientError> {
    let effective = client.own_policies().await?;
    let looking = tokio::task::spawn_blocking(move || {
        let results = effective.policies.iter().map(evaluate).collect();
        Findings {
            revision: effective.policy_revision,
            results,
        }
    });
    looking.await.map_err(|_cut_off| {
        ClientError::Transport("the look at the machine was cut off".to_owned())
    })
}

/// Looks at every rule of a policy.
fn evaluate(policy: &DevicePolicy) -> PolicyResult {
    let observed_at = clock::now().into();
    let mut rules = Vec::new();
    for (name, value) in policy.configuration.as_object().into_iter().flatten() {
        if name == "checks" {
            rules.extend(value.as_array().into_iter().flatten().map(run_check));
        } else {
            rules.push(linux::check(Path::new("/"), name, value).into_result(name));
        }
    }
    PolicyResult {
        policy_id: policy.id,
        policy_version: policy.version,
        observed_at,
        rules,
    }
}

/// A check passes if its query gives a row.
fn run_check(check: &Value) -> RuleResult {
    let text = |key: &str| check.get(key).and_then(Value::as_str).unwrap_or_default();
    let (state, actual, detail) = match sql::query(text("query"), QUERY_TIME) {
        Ok(found) if found.rows.is_empty() => ("failed", None, None),
        Ok(found) => ("passed", Some(json!({ "rows": found.rows.len() })), None),
        Err(error) => ("error", None, Some(error.to_string())),
    };
    RuleResult {
        rule: format!("check:{}", text("name")),
        state: state.to_owned(),
        actual,
        detail,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(query: &str) -> String {
        run_check(&json!({ "name": "a", "query": query })).state
    }

    #[test]
    fn a_check_passes_if_its_query_gives_a_row() {
        assert_eq!(state("SELECT 1"), "passed");
        assert_eq!(state("SELECT 1 WHERE 0"), "failed");
        assert_eq!(state("SELECT nonsense FROM nowhere"), "error");
    }

    #[test]
    fn every_rule_of_a_policy_is_reported_on() {
        let policy = DevicePolicy {
            id: uuid::Uuid::nil(),
            name: "p".to_owned(),
            version: 3,
            configuration: json!({ "uptime_days_max": 3650, "camera_allowed": false,
                "checks": [{ "name": "c", "query": "SELECT 1" }] }),
        };
        let result = evaluate(&policy);
        let mut rules: Vec<_> = result
            .rules
            .iter()
            .map(|rule| (rule.rule.as_str(), rule.state.as_str()))
            .collect();
        rules.sort_unstable();
        assert_eq!(
            rules,
            [
                ("camera_allowed", "not_applicable"),
                ("check:c", "passed"),
                ("uptime_days_max", "passed")
            ]
        );
    }
}
