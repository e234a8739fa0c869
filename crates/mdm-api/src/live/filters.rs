//! Filters as clients write them.

use std::str::FromStr;

use mdm_core::{
    Invalid,
    events::EventKind,
    ids::{DeviceId, GroupId},
};
use mdm_events::Filters;
use mdm_proto::events as wire;

use crate::{extract::Params, problem::ApiError};

/// Reads `types`, `device_id` and `group_id` of a query string: lists with commas.
pub(super) fn of_query(params: &mut Params) -> Result<Filters, ApiError> {
    let types = params.take("types").unwrap_or_default();
    let devices = params.take("device_id").unwrap_or_default();
    let groups = params.take("group_id").unwrap_or_default();
    let kinds: Result<Vec<_>, _> = items(&types).map(|text| kind(text, "/types")).collect();
    let devices = ids::<DeviceId>(&devices, "/device_id")?;
    let groups = ids::<GroupId>(&groups, "/group_id")?;
    Ok(Filters::new(kinds?, devices, groups))
}

/// Reads `types` of a query string that is about one device.
pub(super) fn of_one_device(params: &mut Params, device: DeviceId) -> Result<Filters, ApiError> {
    let types = params.take("types").unwrap_or_default();
    let kinds: Result<Vec<_>, _> = items(&types).map(|text| kind(text, "/types")).collect();
    Ok(Filters::new(kinds?, vec![device], Vec::new()))
}

/// Reads the filters of a `subscribe` frame.
pub(super) fn of_frame(filters: &wire::Filters) -> Result<Filters, Invalid> {
    let kinds: Result<Vec<_>, _> = filters
        .types
        .iter()
        .map(|text| kind(text, "/data/types"))
        .collect();
    let devices = filters.device_ids.iter().copied().map(DeviceId::from_uuid);
    let groups = filters.group_ids.iter().copied().map(GroupId::from_uuid);
    Ok(Filters::new(kinds?, devices.collect(), groups.collect()))
}

/// Writes filters as `subscribed` gives them back.
pub(super) fn to_frame(filters: &Filters) -> wire::Filters {
    wire::Filters {
        types: filters
            .kinds()
            .iter()
            .map(|kind| kind.as_str().to_owned())
            .collect(),
        device_ids: filters.device_ids().iter().map(|id| id.uuid()).collect(),
        group_ids: filters.group_ids().iter().map(|id| id.uuid()).collect(),
    }
}

fn items(list: &str) -> impl Iterator<Item = &str> {
    list.split(',')
        .map(str::trim)
        .filter(|item| !item.is_empty())
}

fn kind(text: &str, pointer: &str) -> Result<EventKind, Invalid> {
    EventKind::parse_public(text).ok_or_else(|| EventKind::unknown(pointer))
}

fn ids<T: FromStr>(list: &str, pointer: &str) -> Result<Vec<T>, ApiError> {
    let parsed: Option<Vec<T>> = items(list).map(|item| item.parse().ok()).collect();
    parsed.ok_or_else(|| {
        ApiError::invalid_field(
            pointer,
            "INVALID_ID",
            "must be UUIDs, with commas in between",
        )
    })
}
