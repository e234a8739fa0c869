//! What policies and applications have in common: their assignment to devices and groups.
//!
//! One target alone is named as one: that it has it already is then a 409, where among several it
//! is passed over.

use mdm_proto::policies::{AssignToDevices, AssignToGroups, Assigned};
use uuid::Uuid;

use crate::{Client, ClientError};

impl Client {
    pub(crate) async fn assign_to_devices(
        &self,
        what: &str,
        devices: &[String],
        intent: Option<&str>,
    ) -> Result<Assigned, ClientError> {
        let mut body = AssignToDevices {
            intent: intent.map(str::to_owned),
            ..AssignToDevices::default()
        };
        match devices {
            [one] => body.device_id = Some(one.clone()),
            many => body.device_ids = Some(many.to_vec()),
        }
        self.post(&format!("{what}/devices"), &body).await
    }

    pub(crate) async fn assign_to_groups(
        &self,
        what: &str,
        groups: &[Uuid],
        intent: Option<&str>,
    ) -> Result<Assigned, ClientError> {
        let mut body = AssignToGroups {
            intent: intent.map(str::to_owned),
            ..AssignToGroups::default()
        };
        match groups {
            [one] => body.group_id = Some(*one),
            many => body.group_ids = Some(many.to_vec()),
        }
        self.post(&format!("{what}/groups"), &body).await
    }
}
