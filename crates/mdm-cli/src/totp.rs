//! `mdmctl totp`.

use anyhow::Result;
use clap::Subcommand;
use mdm_client::Client;

use crate::output::Output;

#[derive(Debug, Subcommand)]
pub enum Totp {
    /// Make a secret for an authenticator; it counts when a code of it is confirmed
    Begin,
    /// Confirm the authenticator by a code; shows the recovery codes, once
    Confirm {
        /// The present code
        code: String,
    },
    /// Remove the authenticator
    Remove {
        /// The present code, or a recovery code
        code: String,
    },
}

impl Totp {
    pub async fn run(self, client: &Client, output: Output) -> Result<()> {
        match self {
            Self::Begin => output.show(&client.begin_totp().await?),
            Self::Confirm { code } => output.show(&client.confirm_totp(&code).await?),
            Self::Remove { code } => {
                client.remove_totp(&code).await?;
                output.done("removed")
            }
        }
    }
}
