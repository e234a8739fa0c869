//! Device groups: members by hand and by filters.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use version_compare::Cmp;
use wildmatch::WildMatch;

use crate::{
    clock::Timestamp,
    devices::{Device, DeviceStatus, Labels, Platform},
    ids::{GroupId, OrganizationId},
    invalid::{self, Invalid},
};

/// A set of devices.
#[derive(Debug, Clone)]
pub struct DeviceGroup {
    /// Its id.
    pub id: GroupId,
    /// The organisation that it belongs to.
    pub organization_id: OrganizationId,
    /// What people call it. Need not be unique.
    pub name: String,
    /// What people say of it.
    pub description: Option<String>,
    /// Which devices are members by themselves; none if absent.
    pub filters: Option<GroupFilters>,
    /// Labels given by people.
    pub labels: Labels,
    /// How many devices are members.
    pub device_count: i64,
    /// Whether all memberships by filter follow the present filters.
    pub up_to_date: bool,
    /// Counts the changes of the row: its `ETag`.
    pub version: i64,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
}

/// What a device must be like to be a member: every condition that is given must hold, and of
/// several values of one condition any.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupFilters {
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    platform: Vec<Platform>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    status: Vec<DeviceStatus>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    hostname: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    os_version: Vec<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    labels: BTreeMap<String, String>,
}

/// A comparison with a version, such as `>= 12.1`.
struct VersionCondition<'a> {
    operator: Cmp,
    version: &'a str,
}

impl<'a> VersionCondition<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        const OPERATORS: [(&str, Cmp); 7] = [
            (">=", Cmp::Ge),
            ("<=", Cmp::Le),
            ("!=", Cmp::Ne),
            ("==", Cmp::Eq),
            (">", Cmp::Gt),
            ("<", Cmp::Lt),
            ("=", Cmp::Eq),
        ];
        let text = text.trim();
        let (operator, version) = OPERATORS
            .iter()
            .find_map(|(sign, operator)| Some((*operator, text.strip_prefix(sign)?)))
            .unwrap_or((Cmp::Eq, text));
        let version = version.trim();
        let plausible = version.starts_with(|first: char| first.is_ascii_digit());
        plausible.then_some(Self { operator, version })
    }

    fn holds(&self, version: &str) -> bool {
        version_compare::compare_to(version, self.version, self.operator).unwrap_or(false)
    }
}

/// The names of the conditions.
const CONDITIONS: [&str; 5] = ["platform", "status", "hostname", "os_version", "labels"];
/// How many values a condition may have.
const VALUES_AT_MOST: usize = 50;

impl GroupFilters {
    /// Takes filters as JSON: an object of `platform`, `status`, `hostname` (a glob with `*` and
    /// `?`, in any case of letters), `os_version` (a comparison such as `>=12.1`; several must all
    /// hold) and `labels`; all but the last one text or a list of texts. An object without any
    /// condition is no filter: `None`.
    pub fn parse(pointer: &str, value: &Value) -> Result<Option<Self>, Invalid> {
        let wrong = |detail| Invalid::new(pointer, "WRONG_TYPE", detail);
        let Value::Object(fields) = value else {
            return Err(wrong("must be an object"));
        };
        if let Some(unknown) = fields
            .keys()
            .find(|key| !CONDITIONS.contains(&key.as_str()))
        {
            let detail = format!(
                "there is no such condition; known are: {}",
                CONDITIONS.join(", ")
            );
            let pointer = format!("{pointer}/{}", invalid::escape(unknown));
            return Err(Invalid::new(pointer, "UNKNOWN_FIELD", detail));
        }
        let filters = Self {
            platform: parsed(pointer, "platform", fields)?,
            status: parsed(pointer, "status", fields)?,
            hostname: texts(pointer, "hostname", fields)?,
            os_version: texts(pointer, "os_version", fields)?,
            labels: labels(pointer, fields)?,
        };
        if let Some(bad) = filters
            .os_version
            .iter()
            .position(|text| VersionCondition::parse(text).is_none())
        {
            let pointer = format!("{pointer}/os_version/{bad}");
            let detail = "must be a comparison with a version, such as >=12.1";
            return Err(Invalid::new(pointer, "INVALID_COMPARISON", detail));
        }
        let conditions = fields
            .values()
            .filter(|value| !matches!(value, Value::Null))
            .count();
        Ok((conditions > 0 && !filters.is_empty()).then_some(filters))
    }

    fn is_empty(&self) -> bool {
        self.platform.is_empty()
            && self.status.is_empty()
            && self.hostname.is_empty()
            && self.os_version.is_empty()
            && self.labels.is_empty()
    }

    /// Whether the device is a member. An unenrolled one never is.
    pub fn admit(&self, device: &Device) -> bool {
        let version = device.os_version.as_deref();
        device.status != DeviceStatus::Unenrolled
            && (self.platform.is_empty() || self.platform.contains(&device.platform))
            && (self.status.is_empty() || self.status.contains(&device.status))
            && (self.hostname.is_empty()
                || self.hostname.iter().any(|glob| {
                    WildMatch::new_case_insensitive(glob).matches(device.hostname.as_str())
                }))
            && self.os_version.iter().all(|condition| {
                VersionCondition::parse(condition)
                    .zip(version)
                    .is_some_and(|(condition, version)| condition.holds(version))
            })
            && self
                .labels
                .iter()
                .all(|(key, value)| device.labels.pairs().get(key) == Some(value))
    }

    /// The platforms that it asks for; all if empty. What a query can narrow by.
    pub fn platforms(&self) -> &[Platform] {
        &self.platform
    }

    /// Whether a change of a device's status can change its membership.
    pub fn asks_for_status(&self) -> bool {
        !self.status.is_empty()
    }
}

fn texts(pointer: &str, name: &str, fields: &Map<String, Value>) -> Result<Vec<String>, Invalid> {
    let pointer = format!("{pointer}/{name}");
    let listed = match fields.get(name) {
        None | Some(Value::Null) => return Ok(Vec::new()),
        Some(Value::Array(items)) => items.clone(),
        Some(item) => vec![item.clone()],
    };
    if listed.is_empty() || listed.len() > VALUES_AT_MOST {
        let detail = format!("must have 1 to {VALUES_AT_MOST} values");
        return Err(Invalid::new(pointer, "WRONG_NUMBER", detail));
    }
    listed
        .iter()
        .enumerate()
        .map(|(index, item)| match item {
            Value::String(text) => invalid::text(&format!("{pointer}/{index}"), text, 253),
            _ => Err(Invalid::new(
                format!("{pointer}/{index}"),
                "WRONG_TYPE",
                "must be a text",
            )),
        })
        .collect()
}

fn parsed<T>(pointer: &str, name: &str, fields: &Map<String, Value>) -> Result<Vec<T>, Invalid>
where
    T: std::str::FromStr,
    T::Err: std::fmt::Display,
{
    texts(pointer, name, fields)?
        .iter()
        .enumerate()
        .map(|(index, text)| {
            text.parse().map_err(|unknown: T::Err| {
                Invalid::new(
                    format!("{pointer}/{name}/{index}"),
                    "UNKNOWN_VALUE",
                    unknown.to_string(),
                )
            })
        })
        .collect()
}

fn labels(pointer: &str, fields: &Map<String, Value>) -> Result<BTreeMap<String, String>, Invalid> {
    let pairs = match fields.get("labels") {
        None | Some(Value::Null) => return Ok(BTreeMap::new()),
        Some(value) => serde_json::from_value::<BTreeMap<String, String>>(value.clone()),
    };
    let pairs = pairs.map_err(|_wrong| {
        Invalid::new(
            format!("{pointer}/labels"),
            "WRONG_TYPE",
            "must be an object of texts",
        )
    })?;
    let checked = Labels::parse(pairs).map_err(|wrong| Invalid {
        pointer: format!("{pointer}{}", wrong.pointer),
        ..wrong
    })?;
    Ok(checked.pairs().clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        devices::{HardwareUuid, Hostname},
        ids::DeviceId,
        json::RawJson,
    };
    use serde_json::json;
    use uuid::Uuid;

    fn device() -> Device {
        Device {
            id: DeviceId::from_uuid(Uuid::nil()),
            organization_id: OrganizationId::from_uuid(Uuid::nil()),
            uuid: HardwareUuid::parse("u").unwrap(),
            hostname: Hostname::parse("Web-01.example.org").unwrap(),
            platform: Platform::Linux,
            os_version: Some("12.10".to_owned()),
            serial_number: None,
            status: DeviceStatus::Online,
            last_seen: None,
            enrolled_at: chrono::DateTime::UNIX_EPOCH,
            labels: Labels::parse(BTreeMap::from([("env".to_owned(), "prod".to_owned())])).unwrap(),
            hardware_info: RawJson::empty_object(),
            hardware_observed_at: None,
            version: 1,
        }
    }

    fn admits(filters: &Value) -> bool {
        GroupFilters::parse("/filters", filters)
            .unwrap()
            .unwrap()
            .admit(&device())
    }

    #[test]
    fn every_condition_must_hold_and_of_several_values_any() {
        assert!(admits(&json!({"platform": "linux"})));
        assert!(admits(
            &json!({"platform": ["macos", "linux"], "status": "online"})
        ));
        assert!(!admits(&json!({"platform": "linux", "status": "offline"})));
        assert!(admits(&json!({"labels": {"env": "prod"}})));
        assert!(!admits(&json!({"labels": {"env": "prod", "site": "a"}})));
    }

    #[test]
    fn hostnames_are_matched_by_globs_in_any_case() {
        assert!(admits(&json!({"hostname": "web-*"})));
        assert!(admits(&json!({"hostname": "WEB-??.example.org"})));
        assert!(!admits(&json!({"hostname": "web"})));
    }

    #[test]
    fn versions_are_compared_by_number_and_all_comparisons_must_hold() {
        assert!(admits(&json!({"os_version": ">12.9"})));
        assert!(admits(&json!({"os_version": [">=12", "<13"]})));
        assert!(!admits(&json!({"os_version": [">=12", "<12.10"]})));
        assert!(admits(&json!({"os_version": "12.10"})));
    }

    #[test]
    fn a_device_without_a_version_meets_no_comparison() {
        let filters = GroupFilters::parse("/filters", &json!({"os_version": "!=1"}))
            .unwrap()
            .unwrap();
        let device = Device {
            os_version: None,
            ..device()
        };
        assert!(!filters.admit(&device));
    }

    #[test]
    fn an_unenrolled_device_is_in_no_group() {
        let filters = GroupFilters::parse("/filters", &json!({"platform": "linux"}))
            .unwrap()
            .unwrap();
        let device = Device {
            status: DeviceStatus::Unenrolled,
            ..device()
        };
        assert!(!filters.admit(&device));
    }

    #[test]
    fn what_is_wrong_is_pointed_at() {
        for (filters, pointer) in [
            (json!([]), "/filters"),
            (json!({"colour": "red"}), "/filters/colour"),
            (
                json!({"platform": ["linux", "beos"]}),
                "/filters/platform/1",
            ),
            (json!({"os_version": "new"}), "/filters/os_version/0"),
            (json!({"hostname": []}), "/filters/hostname"),
            (json!({"labels": {"a": 1}}), "/filters/labels"),
        ] {
            let refused = GroupFilters::parse("/filters", &filters).unwrap_err();
            assert_eq!(refused.pointer, pointer);
        }
        assert_eq!(GroupFilters::parse("/filters", &json!({})).unwrap(), None);
    }
}
