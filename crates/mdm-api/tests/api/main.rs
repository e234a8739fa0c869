//! The API from outside: a real server on a free port, a real PostgreSQL with a database per test.
#![cfg(test)]

mod access;
mod app;
mod applications;
mod auth;
mod bulk;
mod commands;
mod devices;
mod enrollment;
mod events;
mod groups;
mod idempotency;
mod license;
mod lists;
mod malformed;
mod policies;
mod second_factor;
mod system;
mod users;
mod web;
mod webhooks;
