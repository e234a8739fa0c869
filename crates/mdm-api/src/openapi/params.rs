//! Query and header parameters, for the document only: handlers take them one by one, so that they
//! can name the wrong one. A test compares both.
#![expect(dead_code, reason = "these types are never made: they describe")]

use utoipa::IntoParams;

/// Which page of a list, and in which order.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Page {
    /// How many at most.
    #[param(minimum = 1, maximum = 500, default = 50)]
    limit: Option<i64>,
    /// How many to pass over. An offset slips when entries come and go; a cursor does not.
    #[param(minimum = 0, maximum = 1_000_000_000)]
    offset: Option<i64>,
    /// The `next_cursor` of the page before, with the same `sort`; not together with `offset`.
    cursor: Option<String>,
    /// Fields to sort by, with commas in between, each with a `-` in front for the other direction.
    #[param(example = "id")]
    sort: Option<String>,
}

/// Which page of a list that has one order only.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub struct PlainPage {
    /// How many at most.
    #[param(minimum = 1, maximum = 500, default = 50)]
    limit: Option<i64>,
    /// How many to pass over.
    #[param(minimum = 0, maximum = 1_000_000_000)]
    offset: Option<i64>,
    /// The `next_cursor` of the page before; not together with `offset`.
    cursor: Option<String>,
}

/// Which devices.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Devices {
    /// `windows`, `macos`, `linux`, `ios` or `android`.
    platform: Option<String>,
    /// `pending`, `enrolled`, `online`, `offline` or `unenrolled`. Without it, all but the unenrolled.
    status: Option<String>,
    /// A part of hostname, hardware uuid or serial number, in any case of letters.
    search: Option<String>,
    /// A label, as `key:value`.
    label: Option<String>,
    /// Members of this group.
    group_id: Option<uuid::Uuid>,
    /// Devices that this policy reaches.
    policy_id: Option<uuid::Uuid>,
    /// Devices in this state towards the policy, or, without one, in it as the worst of their
    /// policies: `compliant`, `non_compliant`, `pending`, `error` or `not_applicable`.
    compliance: Option<String>,
}

/// Which deliveries of a webhook.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Deliveries {
    /// Only those that were taken, or only those that were not.
    delivered: Option<bool>,
}

/// Which commands.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Commands {
    /// `pending`, `sent`, `running`, `completed`, `failed`, `expired`, `cancelled` or `unknown`.
    status: Option<String>,
    /// Of this kind, such as `run_script`.
    command: Option<String>,
    /// Of this batch.
    batch_id: Option<uuid::Uuid>,
}

/// A part of the name.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Search {
    /// A part of the name, in any case of letters.
    search: Option<String>,
}

/// Which policies.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Policies {
    /// A part of the name, in any case of letters.
    search: Option<String>,
    /// For this platform, or `all`.
    platform: Option<String>,
    /// That count, or that do not.
    enabled: Option<bool>,
    /// With this tag.
    r#type: Option<String>,
}

/// Which applications.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Applications {
    /// A part of the name, in any case of letters.
    search: Option<String>,
    /// For this platform.
    platform: Option<String>,
}

/// Which users.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Users {
    /// A part of name or address, in any case of letters.
    search: Option<String>,
    /// With this role.
    role: Option<String>,
}

/// In which state.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub struct State {
    /// Only those in this state.
    state: Option<String>,
}

/// Whether an enrolled device may enrol anew.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub struct ReEnroll {
    /// Whether to take over from a device that is enrolled with the same uuid.
    #[param(default = false)]
    re_enroll: Option<bool>,
}

/// How long to wait.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Wait {
    /// For how many seconds to wait for the command's end.
    #[param(minimum = 0, maximum = 60)]
    wait: Option<i64>,
}

/// Which events.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Events {
    /// Only events after this one.
    after: Option<String>,
    /// Event types, with commas in between.
    types: Option<String>,
    /// Devices by the server's id, with commas in between.
    device_id: Option<String>,
    /// Groups, with commas in between.
    group_id: Option<String>,
}

/// How many events.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub struct EventLimit {
    /// How many at most.
    #[param(minimum = 1, maximum = 500, default = 50)]
    limit: Option<i64>,
}

/// Which events of one device.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub struct DeviceEvents {
    /// Only events after this one.
    after: Option<String>,
    /// Event types, with commas in between.
    types: Option<String>,
}

/// An update that must not overwrite another.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
pub struct IfMatch {
    /// The `ETag` of a former answer: if the object was changed since, this is a 412.
    #[param(rename = "If-Match")]
    if_match: Option<String>,
}
