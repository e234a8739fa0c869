//! `mdmctl commands`.

use anyhow::Result;
use clap::Subcommand;
use mdm_client::{Client, ListQuery};
use uuid::Uuid;

use crate::{input::ListOptions, output::Output};

pub const COLUMNS: &[&str] = &[
    "id",
    "device_id",
    "command",
    "status",
    "created_at",
    "completed_at",
];

/// `mdmctl run` sends new ones.
#[derive(Debug, Subcommand)]
pub enum Commands {
    /// List commands, the newest first
    List {
        #[command(flatten)]
        list: ListOptions,
        /// pending, sent, running, completed, failed, expired, cancelled or unknown
        #[arg(long)]
        status: Option<String>,
        /// Only this command
        #[arg(long)]
        command: Option<String>,
        /// Only of this batch
        #[arg(long, value_name = "ID")]
        batch: Option<Uuid>,
    },
    /// Show a command with its steps and its result
    Get {
        /// Which command
        id: Uuid,
    },
    /// Show how far one command to many devices has come
    Batch {
        /// Which batch
        id: Uuid,
    },
    /// Withdraw a command
    #[command(visible_alias = "delete")]
    Cancel {
        /// Which command
        id: Uuid,
    },
}

impl Commands {
    pub async fn run(self, client: &Client, output: Output) -> Result<()> {
        match self {
            Self::List {
                list,
                status,
                command,
                batch,
            } => {
                let query = ListQuery::new()
                    .filter_if("status", status)
                    .filter_if("command", command)
                    .filter_if("batch_id", batch);
                let fetch = |query| async move { client.commands(&query).await };
                output.list(&list.listing(query), COLUMNS, fetch).await
            }
            Self::Get { id } => output.show(&client.command(id).await?),
            Self::Batch { id } => output.show(&client.command_batch(id).await?),
            Self::Cancel { id } => output.show(&client.cancel_command(id).await?),
        }
    }
}
