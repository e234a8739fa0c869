//! The real binaries against each other.
#![cfg(test)]

mod events;
#[cfg(feature = "slow")]
mod kills;
mod main_job;
mod mdmctl;
mod processes;
mod results;
mod startup;
mod trial;
