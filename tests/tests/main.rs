//! The real binaries against each other.
#![cfg(test)]

#[cfg(feature = "slow")]
mod dice;
mod events;
mod fleet;
#[cfg(feature = "slow")]
mod kills;
mod main_job;
mod mdmctl;
#[cfg(feature = "slow")]
mod nats;
mod nodes;
mod processes;
mod results;
mod startup;
mod trial;
#[cfg(feature = "slow")]
mod upheaval;
