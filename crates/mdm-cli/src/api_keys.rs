//! `mdmctl api-keys`.

use anyhow::Result;
use clap::Subcommand;
use mdm_client::{Client, ListQuery};
use uuid::Uuid;

use crate::{
    input::{FileOption, ListOptions},
    output::Output,
};

const COLUMNS: &[&str] = &["id", "name", "role", "scopes", "expires_at", "last_used_at"];

#[derive(Debug, Subcommand)]
pub enum ApiKeys {
    /// List API keys, without the keys themselves
    List {
        #[command(flatten)]
        list: ListOptions,
    },
    /// Show an API key, without the key itself
    Get {
        /// Which one
        id: Uuid,
    },
    /// Make an API key; shows the key, once
    Create {
        #[command(flatten)]
        file: FileOption,
        /// What it is called
        #[arg(long)]
        name: Option<String>,
        /// viewer, operator or admin
        #[arg(long)]
        role: Option<String>,
        /// What it may do of what its role may, such as devices:read; may be repeated
        #[arg(long = "scope", value_name = "SCOPE")]
        scopes: Vec<String>,
        /// Until when it is good, such as 2026-12-31T00:00:00Z
        #[arg(long, value_name = "TIME")]
        expires_at: Option<String>,
    },
    /// Change a key's name, or how long it is good for
    Update {
        /// Which one
        id: Uuid,
        #[command(flatten)]
        file: FileOption,
        /// What it is called
        #[arg(long)]
        name: Option<String>,
        /// Until when it is good, such as 2026-12-31T00:00:00Z
        #[arg(long, value_name = "TIME")]
        expires_at: Option<String>,
    },
    /// Delete an API key: it stops working at once
    Delete {
        /// Which one
        id: Uuid,
    },
}

impl ApiKeys {
    pub async fn run(self, client: &Client, output: Output) -> Result<()> {
        match self {
            Self::List { list } => {
                let fetch = |query| async move { client.api_keys(&query).await };
                output
                    .list(&list.listing(ListQuery::new()), COLUMNS, fetch)
                    .await
            }
            Self::Get { id } => output.show(&client.api_key(id).await?),
            Self::Create {
                file,
                name,
                role,
                scopes,
                expires_at,
            } => {
                let body = file
                    .body()?
                    .set("name", name)
                    .set("role", role)
                    .set("scopes", (!scopes.is_empty()).then_some(scopes))
                    .set("expires_at", expires_at);
                output.show(&client.create_api_key(&body.build()?).await?)
            }
            Self::Update {
                id,
                file,
                name,
                expires_at,
            } => {
                let body = file.body()?.set("name", name).set("expires_at", expires_at);
                output.show(&client.update_api_key(id, &body.build()?).await?)
            }
            Self::Delete { id } => {
                client.delete_api_key(id).await?;
                output.done("deleted")
            }
        }
    }
}
