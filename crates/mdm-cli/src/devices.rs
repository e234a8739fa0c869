//! `mdmctl devices`.

use anyhow::Result;
use clap::Subcommand;
use mdm_client::{Client, EventQuery, ListQuery};

use crate::{
    events::print_page,
    groups::group_id,
    input::{FileOption, ListOptions, SearchOptions, pair},
    output::Output,
    policies::policy_id,
};

pub const COLUMNS: &[&str] = &[
    "id",
    "hostname",
    "platform",
    "os_version",
    "status",
    "last_seen",
];

#[derive(Debug, Subcommand)]
pub enum Devices {
    /// List devices; unenrolled ones only with --status unenrolled
    List {
        #[command(flatten)]
        list: SearchOptions,
        /// windows, macos, linux, ios or android
        #[arg(long)]
        platform: Option<String>,
        /// enrolled, online, offline or unenrolled
        #[arg(long)]
        status: Option<String>,
        /// Only with this label
        #[arg(long, value_name = "KEY:VALUE")]
        label: Option<String>,
        /// Only members of this group, by id or name
        #[arg(long)]
        group: Option<String>,
        /// Only those that this policy reaches, by id or name
        #[arg(long)]
        policy: Option<String>,
        /// compliant, non_compliant, pending, error, not_applicable or no_policy
        #[arg(long)]
        compliance: Option<String>,
    },
    /// Show a device, by the server's id or the hardware's identifier
    Get {
        /// Which device
        device: String,
    },
    /// Enrol a device by hand; shows its token, once
    Create {
        #[command(flatten)]
        file: FileOption,
        /// The hardware's identifier
        #[arg(long)]
        uuid: Option<String>,
        /// What it is called
        #[arg(long)]
        hostname: Option<String>,
        /// windows, macos, linux, ios or android
        #[arg(long)]
        platform: Option<String>,
        /// The operating system's version
        #[arg(long)]
        os_version: Option<String>,
        /// The maker's serial number
        #[arg(long)]
        serial_number: Option<String>,
        /// A label; may be repeated
        #[arg(long = "label", value_name = "KEY=VALUE", value_parser = pair)]
        labels: Vec<(String, String)>,
        /// Take over from a device that is enrolled with the same identifier; its token ends
        #[arg(long)]
        re_enroll: bool,
    },
    /// Change a device
    Update {
        /// Which device
        device: String,
        #[command(flatten)]
        file: FileOption,
        /// What it is called
        #[arg(long)]
        hostname: Option<String>,
        /// A label, in place of all that it has; may be repeated
        #[arg(long = "label", value_name = "KEY=VALUE", value_parser = pair)]
        labels: Vec<(String, String)>,
        /// Only if the device still has this version
        #[arg(long)]
        if_version: Option<i64>,
    },
    /// Unenrol a device: its token stops working at once
    Delete {
        /// Which device
        device: String,
    },
    /// List the groups that a device is in
    Groups {
        /// Which device
        device: String,
        #[command(flatten)]
        list: SearchOptions,
    },
    /// Show the policies that count on a device, how they came there, and where it stands
    Policies {
        /// Which device
        device: String,
    },
    /// Show what a device said of its hardware and system
    Inventory {
        /// Which device
        device: String,
    },
    /// List what is installed on a device
    Software {
        /// Which device
        device: String,
        #[command(flatten)]
        list: SearchOptions,
    },
    /// List a device's commands, the newest first
    Commands {
        /// Which device
        device: String,
        #[command(flatten)]
        list: ListOptions,
        /// Only with this status
        #[arg(long)]
        status: Option<String>,
    },
    /// List what happened to a device, the oldest first
    Events {
        /// Which device
        device: String,
        /// Only after the event with this id
        #[arg(long, value_name = "ID")]
        after: Option<String>,
        /// How many at most, 1 to 500
        #[arg(long, default_value_t = 50)]
        limit: u16,
    },
}

impl Devices {
    pub async fn run(self, client: &Client, output: Output) -> Result<()> {
        match self {
            Self::List {
                list,
                platform,
                status,
                label,
                group,
                policy,
                compliance,
            } => {
                let mut query = ListQuery::new()
                    .filter_if("platform", platform)
                    .filter_if("status", status)
                    .filter_if("label", label)
                    .filter_if("compliance", compliance);
                if let Some(group) = group {
                    query = query.filter("group_id", group_id(client, &group).await?.to_string());
                }
                if let Some(policy) = policy {
                    query =
                        query.filter("policy_id", policy_id(client, &policy).await?.to_string());
                }
                let fetch = |query| async move { client.devices(&query).await };
                output.list(&list.listing(query), COLUMNS, fetch).await
            }
            Self::Get { device } => output.show(&client.device(&device).await?),
            Self::Create {
                file,
                uuid,
                hostname,
                platform,
                os_version,
                serial_number,
                labels,
                re_enroll,
            } => {
                let body = file
                    .body()?
                    .set("uuid", uuid)
                    .set("hostname", hostname)
                    .set("platform", platform)
                    .set("os_version", os_version)
                    .set("serial_number", serial_number)
                    .set_pairs("labels", &labels);
                output.show(&client.enroll_device(&body.build()?, re_enroll).await?)
            }
            Self::Update {
                device,
                file,
                hostname,
                labels,
                if_version,
            } => {
                let body = file
                    .body()?
                    .set("hostname", hostname)
                    .set_pairs("labels", &labels);
                output.show(
                    &client
                        .update_device(&device, &body.build()?, if_version)
                        .await?,
                )
            }
            Self::Delete { device } => {
                client.unenroll_device(&device).await?;
                output.done("unenrolled")
            }
            other => other.look(client, output).await,
        }
    }

    /// What there is to see of one device.
    async fn look(self, client: &Client, output: Output) -> Result<()> {
        match self {
            Self::Groups { device, list } => {
                let device = &device;
                let fetch = |query| async move { client.device_groups(device, &query).await };
                let listing = list.listing(ListQuery::new());
                output.list(&listing, crate::groups::COLUMNS, fetch).await
            }
            Self::Policies { device } => output.show(&client.device_policies(&device).await?),
            Self::Inventory { device } => output.show(&client.device_inventory(&device).await?),
            Self::Software { device, list } => {
                let device = &device;
                let fetch = |query| async move { client.device_software(device, &query).await };
                let columns = ["name", "version", "source"];
                output
                    .list(&list.listing(ListQuery::new()), &columns, fetch)
                    .await
            }
            Self::Commands {
                device,
                list,
                status,
            } => {
                let device = &device;
                let listing = list.listing(ListQuery::new().filter_if("status", status));
                let fetch = |query| async move { client.device_commands(device, &query).await };
                output.list(&listing, crate::commands::COLUMNS, fetch).await
            }
            Self::Events {
                device,
                after,
                limit,
            } => {
                let query = EventQuery {
                    after,
                    limit: Some(limit),
                    ..EventQuery::default()
                };
                print_page(&client.device_events(&device, &query).await?, output)
            }
            _ => Ok(()),
        }
    }
}
