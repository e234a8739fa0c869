//! `mdmctl groups`.

use anyhow::Result;
use clap::Subcommand;
use mdm_client::{Client, ListQuery};
use mdm_proto::groups::PreviewGroup;
use serde_json::Value;
use uuid::Uuid;

use crate::{
    devices,
    input::{FileOption, ListOptions, SearchOptions, id_of, json, pair},
    output::Output,
};

pub const COLUMNS: &[&str] = &["id", "name", "device_count", "labels", "updated_at"];

/// Groups are called by id or name.
#[derive(Debug, Subcommand)]
pub enum Groups {
    /// List groups
    List {
        #[command(flatten)]
        list: SearchOptions,
    },
    /// Show a group
    Get {
        /// By id or name
        group: String,
    },
    /// Make a group
    Create {
        #[command(flatten)]
        fields: Fields,
    },
    /// Change a group
    Update {
        /// By id or name
        group: String,
        #[command(flatten)]
        fields: Fields,
        /// Only if the group still has this version
        #[arg(long)]
        if_version: Option<i64>,
    },
    /// Delete a group; its devices stay
    Delete {
        /// By id or name
        group: String,
    },
    /// List a group's members
    Members {
        /// By id or name
        group: String,
        #[command(flatten)]
        list: ListOptions,
    },
    /// Put devices into a group by hand
    Add {
        /// By id or name
        group: String,
        /// Which devices
        #[arg(required = true)]
        devices: Vec<String>,
    },
    /// Take a device out of a group
    Remove {
        /// By id or name
        group: String,
        /// Which device
        device: String,
    },
    /// List the policies of a group
    Policies {
        /// By id or name
        group: String,
        #[command(flatten)]
        list: ListOptions,
    },
    /// Tell who would be in a group with these filters
    Preview {
        /// Such as '{"platform": "linux"}'
        #[arg(value_parser = json)]
        filters: Value,
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
    /// Which devices are members by themselves, such as '{"platform": "linux"}'
    #[arg(long, value_name = "JSON", value_parser = json)]
    filters: Option<Value>,
    /// A label, in place of all that it has; may be repeated
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = pair)]
    labels: Vec<(String, String)>,
}

impl Fields {
    fn build<T: serde::de::DeserializeOwned>(self) -> Result<T> {
        let body = self
            .file
            .body()?
            .set("name", self.name)
            .set("description", self.description)
            .set("filters", self.filters)
            .set_pairs("labels", &self.labels);
        body.build()
    }
}

impl Groups {
    pub async fn run(self, client: &Client, output: Output) -> Result<()> {
        match self {
            Self::List { list } => {
                let fetch = |query| async move { client.groups(&query).await };
                output
                    .list(&list.listing(ListQuery::new()), COLUMNS, fetch)
                    .await
            }
            Self::Get { group } => {
                let id = group_id(client, &group).await?;
                output.show(&client.group(id).await?)
            }
            Self::Create { fields } => output.show(&client.create_group(&fields.build()?).await?),
            Self::Update {
                group,
                fields,
                if_version,
            } => {
                let id = group_id(client, &group).await?;
                output.show(
                    &client
                        .update_group(id, &fields.build()?, if_version)
                        .await?,
                )
            }
            Self::Delete { group } => {
                client.delete_group(group_id(client, &group).await?).await?;
                output.done("deleted")
            }
            Self::Members { group, list } => {
                let id = group_id(client, &group).await?;
                let fetch = |query| async move { client.group_members(id, &query).await };
                output
                    .list(&list.listing(ListQuery::new()), devices::COLUMNS, fetch)
                    .await
            }
            Self::Add { group, devices } => {
                let id = group_id(client, &group).await?;
                output.show(&client.add_group_members(id, &devices).await?)
            }
            Self::Remove { group, device } => {
                let id = group_id(client, &group).await?;
                client.remove_group_member(id, &device).await?;
                output.done("removed")
            }
            Self::Policies { group, list } => {
                let id = group_id(client, &group).await?;
                let fetch = |query| async move { client.group_policies(id, &query).await };
                let listing = list.listing(ListQuery::new());
                output.list(&listing, crate::policies::COLUMNS, fetch).await
            }
            Self::Preview { filters } => {
                output.show(&client.preview_group(&PreviewGroup { filters }).await?)
            }
        }
    }
}

/// A group by its id or name.
pub async fn group_id(client: &Client, text: &str) -> Result<Uuid> {
    id_of("group", text, "name", |query| async move {
        client.groups(&query).await
    })
    .await
}

/// Groups by their ids or names.
pub async fn group_ids(client: &Client, texts: &[String]) -> Result<Vec<Uuid>> {
    let mut ids = Vec::with_capacity(texts.len());
    for text in texts {
        ids.push(group_id(client, text).await?);
    }
    Ok(ids)
}
