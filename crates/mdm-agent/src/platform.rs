//! What depends on the operating system: one module for each, with the same functions.

#[cfg(target_os = "linux")]
mod linux;

#[cfg(target_os = "linux")]
pub use linux::{
    OsRelease, hardware, hardware_uuid, kernel_release, node_name, os_release, software,
    system_info, uptime_seconds,
};

#[cfg(not(target_os = "linux"))]
compile_error!(
    "this version of the agent runs on Linux; other systems need a module in src/platform"
);
