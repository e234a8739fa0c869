//! What devices do: enrol, and check in.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;
use mdm_client::Client;
use mdm_proto::enrollment::CreateEnrollmentSecret;
use serde_json::{Value, json};

use crate::{
    http::request,
    list::floor,
    load::{Case, LoadOptions, measure},
    seed::{Tenant, new_id},
};

/// How it is measured.
#[derive(Debug, Args)]
pub struct Options {
    #[command(flatten)]
    load: LoadOptions,
    /// What `seed` printed
    #[arg(long, value_name = "FILE")]
    tenants: PathBuf,
}

/// New devices enrol with a secret without a limit, into the first organisation.
pub async fn enrolments(options: Options) -> anyhow::Result<Value> {
    let server = &options.load.server;
    let tenants = Tenant::read(&options.tenants)?;
    let tenant = tenants.first().context("no organisation was seeded")?;
    let wish = CreateEnrollmentSecret {
        name: "bench".to_owned(),
        ..CreateEnrollmentSecret::default()
    };
    let admin = Client::new(server.clone(), None)?.with_api_key(tenant.api_key.clone().into());
    let secret = admin.create_enrollment_secret(&wish).await?.secret;
    let to = server.clone();
    let enrolments = Case {
        name: "enrolments".to_owned(),
        status: 201,
        requests: Box::new(move |_, _| {
            let id = new_id();
            let body = json!({
                "uuid": id,
                "hostname": format!("desk-{}", id.simple()),
                "platform": "linux",
                "os_version": "12",
                "enrollment_secret": secret,
            });
            request(&to, "POST", "/api/v1/device/enroll", &[], &body.to_string())
        }),
    };
    measure(&options.load, vec![floor(server), enrolments]).await
}

/// Devices that are online check in with nothing new, in each organisation.
pub async fn checkins(options: Options) -> anyhow::Result<Value> {
    let server = &options.load.server;
    let mut cases = vec![floor(server)];
    for tenant in Tenant::read(&options.tenants)? {
        let (server, name) = (server.clone(), tenant.label());
        cases.push(Case {
            name,
            status: 200,
            requests: Box::new(move |client, number| {
                let salt = u64::try_from(client).unwrap_or(0).wrapping_mul(7_919);
                let place = number.wrapping_add(salt) % u64::from(tenant.devices);
                let place = u32::try_from(place).unwrap_or(0);
                // Those that are offline would come online, which is news.
                let place = if place % 10 == 9 { place - 1 } else { place };
                let token = format!("Bearer {}", tenant.device_token(place));
                let headers = [("Authorization", token.as_str())];
                request(&server, "POST", "/api/v1/device/checkin", &headers, "{}")
            }),
        });
    }
    measure(&options.load, cases).await
}
