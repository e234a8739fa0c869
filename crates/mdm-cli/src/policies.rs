//! `mdmctl policies`.

use anyhow::Result;
use clap::Subcommand;
use mdm_client::{Client, ListQuery};
use serde_json::Value;
use uuid::Uuid;

use crate::{
    groups::{group_id, group_ids},
    input::{FileOption, ListOptions, SearchOptions, id_of, json},
    output::Output,
};

pub const COLUMNS: &[&str] = &["id", "name", "platform", "enabled", "version", "updated_at"];

/// Policies are called by id or name.
#[derive(Debug, Subcommand)]
pub enum Policies {
    /// List policies
    List {
        #[command(flatten)]
        list: SearchOptions,
        /// Only for this platform
        #[arg(long)]
        platform: Option<String>,
        /// Only those that count, or only those that do not
        #[arg(long)]
        enabled: Option<bool>,
    },
    /// Show a policy
    Get {
        /// By id or name
        policy: String,
    },
    /// Make a policy
    Create {
        #[command(flatten)]
        fields: Fields,
    },
    /// Change a policy
    Update {
        /// By id or name
        policy: String,
        #[command(flatten)]
        fields: Fields,
        /// Only if the policy still has this version
        #[arg(long)]
        if_version: Option<i64>,
    },
    /// Delete a policy, and take it away from everybody
    Delete {
        /// By id or name
        policy: String,
    },
    /// List the settings that policies can ask for
    Settings,
    /// Assign a policy to devices and groups
    Assign {
        /// By id or name
        policy: String,
        #[command(flatten)]
        to: Targets,
    },
    /// Take a policy away from devices and groups
    Unassign {
        /// By id or name
        policy: String,
        #[command(flatten)]
        from: Targets,
    },
    /// List the devices that a policy is assigned to directly
    Devices {
        /// By id or name
        policy: String,
        #[command(flatten)]
        list: ListOptions,
    },
    /// List the groups that a policy is assigned to
    Groups {
        /// By id or name
        policy: String,
        #[command(flatten)]
        list: ListOptions,
    },
    /// List the devices that a policy reaches, and where they stand
    Compliance {
        /// By id or name
        policy: String,
        #[command(flatten)]
        list: ListOptions,
        /// compliant, non_compliant, pending, error or not_applicable
        #[arg(long)]
        state: Option<String>,
    },
}

#[derive(Debug, clap::Args)]
pub struct Fields {
    #[command(flatten)]
    file: FileOption,
    /// What it is called
    #[arg(long)]
    name: Option<String>,
    /// What people say of it
    #[arg(long)]
    description: Option<String>,
    /// windows, macos, linux, ios, android or all
    #[arg(long)]
    platform: Option<String>,
    /// Whether it counts
    #[arg(long)]
    enabled: Option<bool>,
    /// What devices must be like, such as '{"password_min_length": 12}'
    #[arg(long, value_name = "JSON", value_parser = json)]
    configuration: Option<Value>,
}

impl Fields {
    fn build<T: serde::de::DeserializeOwned>(self) -> Result<T> {
        let body = self
            .file
            .body()?
            .set("name", self.name)
            .set("description", self.description)
            .set("platform", self.platform)
            .set("enabled", self.enabled)
            .set("configuration", self.configuration);
        body.build()
    }
}

/// Devices and groups.
#[derive(Debug, clap::Args)]
#[group(required = true, multiple = true)]
pub struct Targets {
    /// A device, by the server's id or the hardware's identifier; may be repeated
    #[arg(long = "device", value_name = "DEVICE")]
    pub devices: Vec<String>,
    /// A group, by id or name; may be repeated
    #[arg(long = "group", value_name = "GROUP")]
    pub groups: Vec<String>,
}

impl Policies {
    pub async fn run(self, client: &Client, output: Output) -> Result<()> {
        match self {
            Self::List {
                list,
                platform,
                enabled,
            } => {
                let query = ListQuery::new()
                    .filter_if("platform", platform)
                    .filter_if("enabled", enabled);
                let fetch = |query| async move { client.policies(&query).await };
                output.list(&list.listing(query), COLUMNS, fetch).await
            }
            Self::Get { policy } => {
                let id = policy_id(client, &policy).await?;
                output.show(&client.policy(id).await?)
            }
            Self::Create { fields } => output.show(&client.create_policy(&fields.build()?).await?),
            Self::Update {
                policy,
                fields,
                if_version,
            } => {
                let id = policy_id(client, &policy).await?;
                output.show(
                    &client
                        .update_policy(id, &fields.build()?, if_version)
                        .await?,
                )
            }
            Self::Delete { policy } => {
                client
                    .delete_policy(policy_id(client, &policy).await?)
                    .await?;
                output.done("deleted")
            }
            Self::Settings => {
                let columns = ["name", "title", "platforms", "default", "strictest"];
                output.rows(&client.policy_settings().await?.settings, &columns)
            }
            other => other.assignment(client, output).await,
        }
    }

    /// Who has a policy, and where they stand.
    async fn assignment(self, client: &Client, output: Output) -> Result<()> {
        match self {
            Self::Assign { policy, to } => {
                let id = policy_id(client, &policy).await?;
                let groups = group_ids(client, &to.groups).await?;
                let mut assigned = Vec::new();
                if !to.devices.is_empty() {
                    assigned.push(client.assign_policy_to_devices(id, &to.devices).await?);
                }
                if !groups.is_empty() {
                    assigned.push(client.assign_policy_to_groups(id, &groups).await?);
                }
                output.rows(&assigned, &["policy_id", "assigned"])
            }
            Self::Unassign { policy, from } => {
                let id = policy_id(client, &policy).await?;
                for device in &from.devices {
                    client.unassign_policy_from_device(id, device).await?;
                }
                for group in &from.groups {
                    let group = group_id(client, group).await?;
                    client.unassign_policy_from_group(id, group).await?;
                }
                output.done("unassigned")
            }
            Self::Devices { policy, list } => {
                let id = policy_id(client, &policy).await?;
                let fetch = |query| async move { client.policy_devices(id, &query).await };
                let columns = ["device_id", "name", "assigned_at"];
                output
                    .list(&list.listing(ListQuery::new()), &columns, fetch)
                    .await
            }
            Self::Groups { policy, list } => {
                let id = policy_id(client, &policy).await?;
                let fetch = |query| async move { client.policy_groups(id, &query).await };
                let columns = ["group_id", "name", "assigned_at"];
                output
                    .list(&list.listing(ListQuery::new()), &columns, fetch)
                    .await
            }
            Self::Compliance {
                policy,
                list,
                state,
            } => {
                let id = policy_id(client, &policy).await?;
                let listing = list.listing(ListQuery::new().filter_if("state", state));
                let fetch = |query| async move { client.policy_compliance(id, &query).await };
                let columns = ["device_id", "hostname", "state", "observed_at"];
                output.list(&listing, &columns, fetch).await
            }
            _ => Ok(()),
        }
    }
}

/// A policy by its id or name.
pub async fn policy_id(client: &Client, text: &str) -> Result<Uuid> {
    id_of("policy", text, "name", |query| async move {
        client.policies(&query).await
    })
    .await
}
