//! The embedded PostgreSQL.
//!
//! It is a crate of its own because it has no checked query: the queries of this crate compile only
//! once `.sqlx` is up to date, and bringing that up to date takes a running PostgreSQL.

pub use mdm_postgres::{Cluster, ClusterConfig, ClusterError, DATABASE, Durability};
