//! `mdmctl secrets`.

use anyhow::Result;
use clap::{Args, Subcommand};
use mdm_client::{Client, ListQuery};
use uuid::Uuid;

use crate::{
    groups::group_ids,
    input::{FileOption, ListOptions, pair},
    output::Output,
};

const COLUMNS: &[&str] = &["id", "name", "uses", "max_uses", "expires_at", "revoked_at"];

#[derive(Debug, Subcommand)]
pub enum Secrets {
    /// List enrolment secrets, without the secrets themselves
    List {
        #[command(flatten)]
        list: ListOptions,
    },
    /// Show an enrolment secret, without the secret itself
    Get {
        /// Which one
        id: Uuid,
    },
    /// Make an enrolment secret; shows the secret, once
    Create {
        #[command(flatten)]
        fields: Fields,
        /// How many devices can join with it
        #[arg(long, value_name = "N")]
        max_uses: Option<i64>,
    },
    /// Change what devices get that join from now on, and until when they may
    Update {
        /// Which one
        id: Uuid,
        #[command(flatten)]
        fields: Fields,
    },
    /// Revoke an enrolment secret; devices that joined with it stay
    #[command(visible_alias = "revoke")]
    Delete {
        /// Which one
        id: Uuid,
    },
}

#[derive(Debug, Args)]
pub struct Fields {
    #[command(flatten)]
    file: FileOption,
    /// What it is called
    #[arg(long)]
    name: Option<String>,
    /// A label for devices that join with it; may be repeated
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = pair)]
    labels: Vec<(String, String)>,
    /// A group for devices that join with it, by id or name; may be repeated
    #[arg(long = "group", value_name = "GROUP")]
    groups: Vec<String>,
    /// Until when it is good, such as 2026-12-31T00:00:00Z
    #[arg(long, value_name = "TIME")]
    expires_at: Option<String>,
}

impl Fields {
    async fn body(self, client: &Client) -> Result<crate::input::Body> {
        let groups = group_ids(client, &self.groups).await?;
        let groups: Vec<_> = groups.iter().map(Uuid::to_string).collect();
        let body = self
            .file
            .body()?
            .set("name", self.name)
            .set_pairs("labels", &self.labels)
            .set("group_ids", (!groups.is_empty()).then_some(groups))
            .set("expires_at", self.expires_at);
        Ok(body)
    }
}

impl Secrets {
    pub async fn run(self, client: &Client, output: Output) -> Result<()> {
        match self {
            Self::List { list } => {
                let fetch = |query| async move { client.enrollment_secrets(&query).await };
                output
                    .list(&list.listing(ListQuery::new()), COLUMNS, fetch)
                    .await
            }
            Self::Get { id } => output.show(&client.enrollment_secret(id).await?),
            Self::Create { fields, max_uses } => {
                let body = fields.body(client).await?.set("max_uses", max_uses);
                output.show(&client.create_enrollment_secret(&body.build()?).await?)
            }
            Self::Update { id, fields } => {
                let change = fields.body(client).await?.build()?;
                output.show(&client.update_enrollment_secret(id, &change).await?)
            }
            Self::Delete { id } => {
                client.revoke_enrollment_secret(id).await?;
                output.done("revoked")
            }
        }
    }
}
