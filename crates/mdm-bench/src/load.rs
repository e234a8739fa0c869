//! Closed-loop load: some clients, each sending its next request when the last one is answered.
//!
//! Cases are measured in rounds, one after the other within each round, so that whatever else the
//! machine does strikes all of them alike. The first case is the floor of the others.

use std::{
    future::Future,
    time::{Duration, Instant},
};

use anyhow::ensure;
use clap::Args;
use serde_json::{Map, Value, json};
use tokio::task::JoinSet;
use url::Url;

use crate::{http::Connection, percentiles};

/// How much load, for how long.
#[derive(Debug, Clone, Args)]
pub struct LoadOptions {
    /// The server, without TLS
    #[arg(long, default_value = "http://127.0.0.1:8081")]
    pub server: Url,
    /// How many clients there are, each with one connection
    #[arg(long, default_value_t = 8)]
    pub clients: usize,
    /// How long one case is measured in one round, in seconds
    #[arg(long, default_value_t = 3.0)]
    pub seconds: f64,
    /// How many rounds count; one more, before, is the warm-up
    #[arg(long, default_value_t = 5)]
    pub rounds: usize,
}

/// Something that is measured.
pub struct Case {
    /// What it is called in the figures.
    pub name: String,
    /// The status that is success.
    pub status: u16,
    /// The requests: for a client and the count of those that it has sent.
    pub requests: Box<dyn Fn(usize, u64) -> Vec<u8> + Send + Sync>,
}

/// A case's timings and its rate in each round.
#[derive(Default)]
struct Measured {
    timings: Vec<Duration>,
    rates: Vec<f64>,
}

/// Measures the cases; the first is the floor.
pub async fn measure(options: &LoadOptions, cases: Vec<Case>) -> anyhow::Result<Value> {
    ensure!(
        options.clients > 0 && options.rounds > 0,
        "at least one client and one round"
    );
    let cases: &'static [Case] = Vec::leak(cases);
    let mut measured: Vec<_> = cases.iter().map(|_| Measured::default()).collect();
    let mut sent = vec![0; cases.len()];
    for round in 0..=options.rounds {
        for ((case, measured), sent) in cases.iter().zip(&mut measured).zip(&mut sent) {
            let begun = Instant::now();
            let timings = run(options, case, *sent).await?;
            let rate = f64::from(u32::try_from(timings.len())?) / begun.elapsed().as_secs_f64();
            // Enough for each of the clients: none sends the same request again.
            *sent += u64::try_from(timings.len())?;
            if round > 0 {
                measured.timings.extend(timings);
                measured.rates.push(rate);
            }
        }
    }
    let mut figures = Map::new();
    let mut floor = None;
    for (case, mut measured) in cases.iter().zip(measured) {
        measured.rates.sort_by(f64::total_cmp);
        let rate = measured
            .rates
            .get(measured.rates.len() / 2)
            .copied()
            .unwrap_or_default();
        let of_floor = rate / *floor.get_or_insert(rate);
        let rounded: Vec<_> = measured.rates.iter().map(|rate| rate.round()).collect();
        figures.insert(
            case.name.clone(),
            json!({
                "per_second": rate.round(),
                "per_second_of_rounds": rounded,
                "of_the_floor": (of_floor * 1_000.0).round() / 1_000.0,
                "latency": percentiles::of(&measured.timings),
            }),
        );
    }
    Ok(
        json!({ "clients": options.clients, "seconds": options.seconds, "rounds": options.rounds, "cases": figures }),
    )
}

/// One case in one round: how long each call took.
async fn run(
    options: &LoadOptions,
    case: &'static Case,
    from: u64,
) -> anyhow::Result<Vec<Duration>> {
    let mut clients = JoinSet::new();
    let connections = open(options).await?;
    let until = Instant::now() + Duration::from_secs_f64(options.seconds);
    for (client, mut connection) in connections.into_iter().enumerate() {
        clients.spawn(async move {
            let mut timings = Vec::new();
            let mut number = from;
            while Instant::now() < until {
                let request = (case.requests)(client, number);
                number += 1;
                let begun = Instant::now();
                let (status, body) = connection.call(&request).await?;
                timings.push(begun.elapsed());
                ensure!(
                    status == case.status,
                    "{}: {status} {}",
                    case.name,
                    String::from_utf8_lossy(body.get(..300).unwrap_or(body))
                );
            }
            Ok(timings)
        });
    }
    let mut timings = Vec::new();
    while let Some(ended) = clients.join_next().await {
        timings.extend(ended??);
    }
    Ok(timings)
}

fn open(options: &LoadOptions) -> impl Future<Output = anyhow::Result<Vec<Connection>>> {
    let (server, count) = (options.server.clone(), options.clients);
    async move {
        let mut connections = Vec::with_capacity(count);
        for _ in 0..count {
            connections.push(Connection::open(&server).await?);
        }
        Ok(connections)
    }
}
