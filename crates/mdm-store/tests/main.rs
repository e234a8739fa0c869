//! Tests of the store against PostgreSQL, each with a database of its own.

mod events;
