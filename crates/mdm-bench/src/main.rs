//! `mdm-bench`: measures a server against the project's budgets. One file per measurement; each
//! prints one JSON object, and says in `docs/performance.md` how to repeat it.

mod agents;
mod connect;
mod delivery;
mod device;
mod fanout;
mod http;
mod list;
mod load;
mod outbox;
mod percentiles;
mod process;
mod seed;
mod sender;
mod sequence;
mod stamp;
mod start;
mod subscribers;
mod wire;

use std::{io::Write, process::ExitCode};

use clap::{Parser, Subcommand};

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
    /// Time from the call of the API until the agent has the command, and until the caller has the
    /// answer, with many agents connected; memory per connected agent.
    Agents(agents::Options),
    /// Events to many subscribers, in bursts and paced, beside a loop that does nothing but send:
    /// processor time, sends and latency per delivery; memory per connection.
    Fanout(fanout::Options),
    /// Storms of subscribers that come back at once, and want what they missed.
    Connect(connect::Options),
    /// Time from the commit of an event, and from a request of the API, until subscribers have it.
    E2e(delivery::Options),
    /// The floor of fan-out: accept subscribers, then send each line of standard input to all.
    #[command(hide = true)]
    RawSender(sender::Options),
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
}

#[tokio::main]
async fn main() -> ExitCode {
    let measured = match Cli::parse().measurement {
        Measurement::Start(options) => start::measure(options).await,
        Measurement::Agents(options) => agents::measure(options).await,
        Measurement::Fanout(options) => fanout::measure(options).await,
        Measurement::Connect(options) => connect::measure(options).await,
        Measurement::E2e(options) => delivery::measure(options).await,
        Measurement::RawSender(options) => {
            return match sender::run(&options) {
                Ok(()) => ExitCode::SUCCESS,
                Err(_the_bench_is_gone) => ExitCode::FAILURE,
            };
        }
        Measurement::Seed(options) => seed::seed(options).await,
        Measurement::List(options) => list::lists(options).await,
        Measurement::Search(options) => list::searches(options).await,
        Measurement::Enroll(options) => device::enrolments(options).await,
        Measurement::Checkin(options) => device::checkins(options).await,
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
