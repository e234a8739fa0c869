//! Lists and searches of devices.

use std::path::PathBuf;

use clap::Args;
use serde_json::Value;
use url::Url;

use crate::{
    http::request,
    load::{Case, LoadOptions, measure},
    seed::Tenant,
};

/// What is listed.
#[derive(Debug, Args)]
pub struct Options {
    #[command(flatten)]
    load: LoadOptions,
    /// What `seed` printed
    #[arg(long, value_name = "FILE")]
    tenants: PathBuf,
    /// Which list, without the server's address
    #[arg(long, default_value = "/api/v1/devices?limit=50")]
    path: String,
}

/// The floor of all that is asked of a server: an answer without a question.
pub fn floor(server: &Url) -> Case {
    let floor = request(server, "GET", "/livez", &[], "");
    Case {
        name: "floor_livez".to_owned(),
        status: 200,
        requests: Box::new(move |_, _| floor.clone()),
    }
}

/// The same list in each organisation.
pub async fn lists(options: Options) -> anyhow::Result<Value> {
    let server = &options.load.server;
    let mut cases = vec![floor(server)];
    for tenant in Tenant::read(&options.tenants)? {
        let key = [("X-API-Key", tenant.api_key.as_str())];
        let list = request(server, "GET", &options.path, &key, "");
        cases.push(Case {
            name: tenant.label(),
            status: 200,
            requests: Box::new(move |_, _| list.clone()),
        });
    }
    measure(&options.load, cases).await
}

/// A text to search for.
type Text = fn(u64) -> String;

/// How it is searched.
#[derive(Debug, Args)]
pub struct SearchOptions {
    #[command(flatten)]
    load: LoadOptions,
    /// What `seed` printed
    #[arg(long, value_name = "FILE")]
    tenants: PathBuf,
}

/// Searches by a part of the hostname that one device has, by one that a hundred have, and by one
/// that a seventh has.
pub async fn searches(options: SearchOptions) -> anyhow::Result<Value> {
    let server = &options.load.server;
    let mut cases = vec![floor(server)];
    for tenant in Tenant::read(&options.tenants)? {
        let devices = u64::from(tenant.devices);
        let texts: [(&str, Text); 3] = [
            ("one", |number| format!("-{number:07}")),
            ("a_hundred", |number| format!("-{:05}", number / 100)),
            ("a_seventh", |_| "kiosk-".to_owned()),
        ];
        for (name, text) in texts {
            let (server, tenant) = (server.clone(), tenant.clone());
            cases.push(Case {
                name: format!("{}_found_{name}", tenant.label()),
                status: 200,
                requests: Box::new(move |client, number| {
                    // Another one each time, scattered.
                    let salt = u64::try_from(client).unwrap_or(0).wrapping_mul(7_919);
                    let place = number.wrapping_mul(104_729).wrapping_add(salt) % devices;
                    let path = format!("/api/v1/devices?limit=50&search={}", text(place));
                    request(&server, "GET", &path, &[("X-API-Key", &tenant.api_key)], "")
                }),
            });
        }
    }
    measure(&options.load, cases).await
}
