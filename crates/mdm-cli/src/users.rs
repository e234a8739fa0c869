//! `mdmctl users`.

use anyhow::Result;
use clap::Subcommand;
use mdm_client::{Client, ListQuery};
use uuid::Uuid;

use crate::{
    input::{FileOption, SearchOptions, id_of, read_secret},
    output::Output,
};

const COLUMNS: &[&str] = &["id", "email", "name", "role", "disabled", "created_at"];

/// Users are called by id or e-mail address.
#[derive(Debug, Subcommand)]
pub enum Users {
    /// List users
    List {
        #[command(flatten)]
        list: SearchOptions,
        /// Only with this role
        #[arg(long)]
        role: Option<String>,
    },
    /// Show a user
    Get {
        /// By id or e-mail address
        user: String,
    },
    /// Make a user; the password is asked for, or read from standard input
    Create {
        /// The e-mail address
        #[arg(long)]
        email: String,
        /// What the user is called
        #[arg(long)]
        name: Option<String>,
        /// viewer, operator or admin
        #[arg(long)]
        role: Option<String>,
    },
    /// Change a user; another role or password, or disabling, ends the user's sessions
    Update {
        /// By id or e-mail address
        user: String,
        #[command(flatten)]
        file: FileOption,
        /// The e-mail address
        #[arg(long)]
        email: Option<String>,
        /// What the user is called
        #[arg(long)]
        name: Option<String>,
        /// viewer, operator or admin
        #[arg(long)]
        role: Option<String>,
        /// Whether the user is locked out
        #[arg(long)]
        disabled: Option<bool>,
        /// A new password, asked for or read from standard input
        #[arg(long)]
        password: bool,
        /// Only if the account still has this version
        #[arg(long)]
        if_version: Option<i64>,
    },
    /// Delete a user
    Delete {
        /// By id or e-mail address
        user: String,
    },
}

impl Users {
    pub async fn run(self, client: &Client, output: Output) -> Result<()> {
        match self {
            Self::List { list, role } => {
                let listing = list.listing(ListQuery::new().filter_if("role", role));
                let fetch = |query| async move { client.users(&query).await };
                output.list(&listing, COLUMNS, fetch).await
            }
            Self::Get { user } => {
                let id = user_id(client, &user).await?;
                output.show(&client.user(id).await?)
            }
            Self::Create { email, name, role } => {
                let wish = mdm_proto::users::CreateUser {
                    email,
                    name,
                    role,
                    password: read_secret("Password of the new user")?,
                };
                output.show(&client.create_user(&wish).await?)
            }
            Self::Update {
                user,
                file,
                email,
                name,
                role,
                disabled,
                password,
                if_version,
            } => {
                let id = user_id(client, &user).await?;
                let password = password.then(|| read_secret("New password")).transpose()?;
                let body = file
                    .body()?
                    .set("email", email)
                    .set("name", name)
                    .set("role", role)
                    .set("disabled", disabled)
                    .set("password", password);
                output.show(&client.update_user(id, &body.build()?, if_version).await?)
            }
            Self::Delete { user } => {
                client.delete_user(user_id(client, &user).await?).await?;
                output.done("deleted")
            }
        }
    }
}

async fn user_id(client: &Client, text: &str) -> Result<Uuid> {
    id_of("user", text, "email", |query| async move {
        client.users(&query).await
    })
    .await
}
