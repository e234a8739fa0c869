//! `mdmctl webhooks`.

use anyhow::Result;
use clap::Subcommand;
use mdm_client::{Client, ListQuery};
use uuid::Uuid;

use crate::{
    input::{FileOption, ListOptions},
    output::Output,
};

const COLUMNS: &[&str] = &["id", "name", "url", "event_types", "enabled", "failures"];
const DELIVERIES: &[&str] = &[
    "id",
    "at",
    "event_type",
    "attempt",
    "delivered",
    "status",
    "error",
];

#[derive(Debug, Subcommand)]
pub enum Webhooks {
    /// List webhooks
    List {
        #[command(flatten)]
        list: ListOptions,
    },
    /// Show a webhook: where it stands, and what went wrong the last time
    Get {
        /// Which one
        id: Uuid,
    },
    /// Make a webhook; shows its secret, once
    Create {
        #[command(flatten)]
        file: FileOption,
        /// What it is called
        #[arg(long)]
        name: Option<String>,
        /// Where events are posted to
        #[arg(long)]
        url: Option<String>,
        /// Only events of this type; may be repeated
        #[arg(long = "type", value_name = "TYPE")]
        types: Vec<String>,
    },
    /// Change a webhook; the next event is tried at once
    Update {
        /// Which one
        id: Uuid,
        #[command(flatten)]
        file: FileOption,
        /// What it is called
        #[arg(long)]
        name: Option<String>,
        /// Where events are posted to
        #[arg(long)]
        url: Option<String>,
        /// Only events of this type; may be repeated
        #[arg(long = "type", value_name = "TYPE")]
        types: Vec<String>,
        /// true or false
        #[arg(long)]
        enabled: Option<bool>,
    },
    /// Delete a webhook, with its deliveries
    Delete {
        /// Which one
        id: Uuid,
    },
    /// List the attempts to deliver events, the newest first
    Deliveries {
        /// Of which webhook
        id: Uuid,
        /// Only those that were taken, or only those that were not: true or false
        #[arg(long)]
        delivered: Option<bool>,
        #[command(flatten)]
        list: ListOptions,
    },
    /// Post the event of a delivery once more
    Replay {
        /// Of which webhook
        id: Uuid,
        /// Which delivery
        delivery: Uuid,
    },
    /// Post a test message
    Test {
        /// To which webhook
        id: Uuid,
    },
}

impl Webhooks {
    pub async fn run(self, client: &Client, output: Output) -> Result<()> {
        let listed = |types: Vec<String>| (!types.is_empty()).then_some(types);
        match self {
            Self::List { list } => {
                let fetch = |query| async move { client.webhooks(&query).await };
                output
                    .list(&list.listing(ListQuery::new()), COLUMNS, fetch)
                    .await
            }
            Self::Get { id } => output.show(&client.webhook(id).await?),
            Self::Create {
                file,
                name,
                url,
                types,
            } => {
                let body = file.body()?.set("name", name).set("url", url);
                let body = body.set("event_types", listed(types));
                output.show(&client.create_webhook(&body.build()?).await?)
            }
            Self::Update {
                id,
                file,
                name,
                url,
                types,
                enabled,
            } => {
                let body = file.body()?.set("name", name).set("url", url);
                let body = body
                    .set("event_types", listed(types))
                    .set("enabled", enabled);
                output.show(&client.update_webhook(id, &body.build()?, None).await?)
            }
            Self::Delete { id } => {
                client.delete_webhook(id).await?;
                output.done("deleted")
            }
            Self::Deliveries {
                id,
                delivered,
                list,
            } => {
                let query = ListQuery::new().filter_if("delivered", delivered);
                let fetch = |query| async move { client.webhook_deliveries(id, &query).await };
                output.list(&list.listing(query), DELIVERIES, fetch).await
            }
            Self::Replay { id, delivery } => {
                output.show(&client.replay_webhook_delivery(id, delivery).await?)
            }
            Self::Test { id } => output.show(&client.test_webhook(id).await?),
        }
    }
}
