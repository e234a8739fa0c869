//! `mdmctl license`.

use std::{fs, path::PathBuf};

use anyhow::{Context, Result};
use clap::Subcommand;
use mdm_client::Client;

use crate::{input::read_secret, output::Output};

#[derive(Debug, Subcommand)]
pub enum License {
    /// Tell where the license stands
    #[command(visible_aliases = ["list", "status"])]
    Get,
    /// Set the license key, from a file or from standard input
    #[command(visible_alias = "create")]
    Update {
        /// The file with the key
        #[arg(long, short, value_name = "FILE")]
        file: Option<PathBuf>,
    },
    /// Take the license key away
    Delete,
}

impl License {
    pub async fn run(self, client: &Client, output: Output) -> Result<()> {
        let status = match self {
            Self::Get => client.license_status().await?,
            Self::Update { file } => {
                let key = match &file {
                    Some(path) => fs::read_to_string(path)
                        .with_context(|| format!("cannot read {}", path.display()))?,
                    None => read_secret("License key")?,
                };
                client.set_license(Some(key.trim())).await?
            }
            Self::Delete => client.set_license(None).await?,
        };
        output.show(&status)
    }
}
