//! `mdm-bench`: measures a server against the project's budgets. One file per measurement; each
//! prints one JSON object, and says in `docs/performance.md` how to repeat it.

mod agents;
mod connect;
mod device;
mod e2e;
mod fanout;
mod http;
mod hub;
mod installation;
mod list;
mod load;
mod percentiles;
mod process;
mod raw_send;
mod seed;
mod sequence;
mod stamp;
mod start;
mod subscribers;
mod wire;

use std::{io::Write, process::ExitCode};

use clap::{Parser, Subcommand};
use serde_json::Value;

/// Mobius MDM's load generator. Each measurement prints one JSON object to stdout.
#[derive(Debug, Parser)]
#[command(name = "mdm-bench", version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    measurement: Measurement,
}

#[derive(Debug, Subcommand)]
enum Measurement {
    /// Time from the start of the process to serving, with a database that exists; idle memory;
    /// time to stop.
    Start(start::Options),
    /// Many agents connected that all send heartbeats: time from the call of the API until an agent
    /// has the command, and until the caller has the answer; memory per connected agent.
    Agents(agents::Options),
    /// Make organisations full of devices in the database of a running server, and print how to
    /// call it in their names. They stay: use a database that can be thrown away.
    Seed(seed::Options),
    /// A list of devices in each seeded organisation.
    List(list::Options),
    /// Searches of devices by parts of their hostnames, in each seeded organisation.
    Search(list::SearchOptions),
    /// Devices that enrol, into the first seeded organisation.
    Enroll(device::Options),
    /// Devices that check in without news, in each seeded organisation.
    Checkin(device::Options),
    /// Events to many subscribers, in bursts and paced: deliveries per second, the server's CPU time
    /// per delivery, latency, memory per connection; in turn with a raw-send loop, the floor, and,
    /// if one is given, a peer.
    Fanout(fanout::Options),
    /// Subscribers that all connect at the same moment after having missed some events: time until
    /// all are welcomed and have them, the database's transactions, memory per connection.
    Connect(connect::Options),
    /// Time from a commit, and from a call of the API, until all subscribers have the event.
    E2e(e2e::Options),
    /// The floor of `fanout`, which starts it.
    #[command(hide = true)]
    RawSend(raw_send::Options),
}

#[tokio::main]
async fn main() -> ExitCode {
    let measurement = Cli::parse().measurement;
    let measured = match process::raise_descriptors() {
        Ok(()) => measure(measurement).await,
        Err(error) => Err(error),
    };
    match measured.and_then(|figures| Ok(serde_json::to_string_pretty(&figures)?)) {
        Ok(text) => {
            let _nobody_reads = writeln!(std::io::stdout(), "{text}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            let _nobody_reads = writeln!(std::io::stderr(), "mdm-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn measure(measurement: Measurement) -> anyhow::Result<Value> {
    match measurement {
        Measurement::Start(options) => start::measure(options).await,
        Measurement::Agents(options) => agents::measure(options).await,
        Measurement::Seed(options) => seed::seed(options).await,
        Measurement::List(options) => list::lists(options).await,
        Measurement::Search(options) => list::searches(options).await,
        Measurement::Enroll(options) => device::enrolments(options).await,
        Measurement::Checkin(options) => device::checkins(options).await,
        Measurement::Fanout(options) => fanout::measure(options).await,
        Measurement::Connect(options) => connect::measure(options).await,
        Measurement::E2e(options) => e2e::measure(options).await,
        Measurement::RawSend(options) => raw_send::serve(&options).map(|()| Value::Null),
    }
}
