//! The log, on stderr: text for people on a terminal, JSON for programs otherwise.

use std::io::IsTerminal;

use tracing_subscriber::{EnvFilter, fmt, prelude::*};

use crate::config::LogFormat;

/// Begins to log. A filter that cannot be read is an error that names it.
pub fn init(format: LogFormat, level: &str) -> Result<(), String> {
    // What a client sends that is no HTTP is no error of the server's. Whoever wants to see it says so.
    let filter = EnvFilter::try_new(format!("actix_http::h1::dispatcher=off,{level}"))
        .map_err(|error| format!("log_level: {level:?} cannot be read: {error}"))?;
    let json = match format {
        LogFormat::Json => true,
        LogFormat::Text => false,
        LogFormat::Auto => !std::io::stderr().is_terminal(),
    };
    let registry = tracing_subscriber::registry().with(filter);
    let result = if json {
        registry
            .with(
                fmt::layer()
                    .json()
                    .flatten_event(true)
                    .with_writer(std::io::stderr),
            )
            .try_init()
    } else {
        registry
            .with(
                fmt::layer()
                    .with_ansi(std::io::stderr().is_terminal())
                    .with_writer(std::io::stderr),
            )
            .try_init()
    };
    result.map_err(|error| error.to_string())
}
