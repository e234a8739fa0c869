//! `embedded-postgres DATA_DIR` runs the embedded PostgreSQL without the server, prints its URL,
//! and stops it when its standard input ends or at Ctrl-C. For looking into a data directory with `psql`, for
//! `pg_dump`, and for tests that need a server to kill.

use std::process::ExitCode;

use mdm_postgres::{Cluster, ClusterConfig, ClusterError, DATABASE};
use tokio::sync::oneshot;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let Some(data_dir) = std::env::args_os().nth(1) else {
        eprintln!("usage: embedded-postgres DATA_DIR");
        return ExitCode::from(2);
    };
    match run(ClusterConfig::durable(data_dir)).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(config: ClusterConfig) -> Result<(), ClusterError> {
    let cluster = Cluster::start(config).await?;
    println!("{}", cluster.url(DATABASE));
    tokio::select! {
        _ = end_of_input() => {}
        _ = tokio::signal::ctrl_c() => {}
    }
    cluster.stop().await
}

/// Resolves when the input ends. A thread of its own, because the runtime would wait for the end of
/// the input before it ended itself.
fn end_of_input() -> oneshot::Receiver<()> {
    let (ended, receiver) = oneshot::channel();
    std::thread::spawn(move || {
        // An error ends the input as well, and nobody may be listening any more.
        let _read = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        let _sent = ended.send(());
    });
    receiver
}
