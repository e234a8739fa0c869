//! `mdmctl events`.

use std::io::{self, Write};

use anyhow::Result;
use clap::Args;
use mdm_client::{Client, EventQuery, Follower, Step};
use mdm_proto::events::{EventPage, Frame};
use uuid::Uuid;

use crate::{
    groups::group_ids,
    output::{Output, cell},
    session::Connection,
};

/// What happened, and with --follow what happens.
#[derive(Debug, Args)]
pub struct Events {
    /// Go on with what happens, until Ctrl-C; reconnects and misses nothing
    #[arg(long, short)]
    follow: bool,
    /// Only after the event with this id [default: the oldest kept, with --follow from now on]
    #[arg(long, value_name = "ID")]
    after: Option<String>,
    /// Only events of this type; may be repeated
    #[arg(long = "type", value_name = "TYPE")]
    types: Vec<String>,
    /// Only of this device, by id or by the hardware's identifier; may be repeated
    #[arg(long = "device", value_name = "DEVICE")]
    devices: Vec<String>,
    /// Only of this group, by id or name; may be repeated
    #[arg(long = "group", value_name = "GROUP")]
    groups: Vec<String>,
    /// How many at most, 1 to 500
    #[arg(long, default_value_t = 50, conflicts_with = "follow")]
    limit: u16,
}

impl Events {
    pub async fn run(self, connection: &Connection, output: Output) -> Result<()> {
        let client = connection.client().await?;
        let query = EventQuery {
            after: self.after,
            types: self.types,
            device_ids: device_ids(&client, &self.devices).await?,
            group_ids: group_ids(&client, &self.groups).await?,
            limit: Some(self.limit),
        };
        if self.follow {
            return follow(connection, query, output).await;
        }
        let mut query = query;
        loop {
            let page = client.events(&query).await?;
            print_page(&page, output)?;
            // The server looks at a part of the log at a time: a page may be empty, and more follow.
            if !page.events.is_empty() || query.after.as_deref() == Some(&page.next_cursor) {
                return Ok(());
            }
            query.after = Some(page.next_cursor);
        }
    }
}

/// Follows until it cannot: what is refused stays refused, all else is tried again.
async fn follow(connection: &Connection, query: EventQuery, output: Output) -> Result<()> {
    let mut follower = Follower::new(query, async || connection.client().await);
    loop {
        match follower.next().await? {
            Step::Event(event) => print_event(&event, output)?,
            Step::Resync { .. } => eprintln!(
                "mdmctl: the events since then are not kept any more; these are the later ones"
            ),
            Step::Broken { reason, pause } => eprintln!(
                "mdmctl: {reason}; connecting again in {:.1} s",
                pause.as_secs_f32()
            ),
        }
    }
}

pub fn print_page(page: &EventPage, output: Output) -> Result<()> {
    for event in &page.events {
        let event: Frame = serde_json::from_str(event.get())?;
        print_event(&event, output)?;
    }
    Ok(())
}

/// One line: as JSON, or as time, type and data.
fn print_event(event: &Frame, output: Output) -> Result<()> {
    let mut out = io::stdout().lock();
    if output.is_json() {
        serde_json::to_writer(&mut out, event)?;
        writeln!(out)?;
    } else {
        let data = cell(Some(&event.data));
        writeln!(out, "{}  {:<24}  {data}", event.timestamp, event.kind)?;
    }
    out.flush()?;
    Ok(())
}

/// The server's ids of devices.
pub async fn device_ids(client: &Client, devices: &[String]) -> Result<Vec<Uuid>> {
    let mut ids = Vec::with_capacity(devices.len());
    for device in devices {
        ids.push(client.device(device).await?.id);
    }
    Ok(ids)
}
