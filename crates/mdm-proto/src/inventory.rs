//! What a device tells of itself.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::time::Timestamp;

/// The result of `system_info` and `refresh_inventory`, and a device's `hardware_info`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct SystemInfo {
    /// When these values were read.
    pub observed_at: Timestamp,
    /// The machine's name.
    pub hostname: String,
    /// The operating system's name, such as `Debian GNU/Linux`.
    pub os_name: String,
    /// The operating system's version, such as `12`.
    pub os_version: String,
    /// The kernel's release, as `uname -r` gives it.
    pub kernel: String,
    /// The processor architecture, such as `x86_64`.
    pub architecture: String,
    /// Seconds since the start of the machine.
    pub uptime_seconds: u64,
    /// The machine's maker and model, where firmware tells.
    pub hardware: Hardware,
    /// The processor.
    pub cpu: Cpu,
    /// Main memory and swap.
    pub memory: Memory,
    /// Mounted disks.
    pub disks: Vec<Disk>,
    /// Network addresses.
    pub addresses: Vec<InterfaceAddress>,
}

/// Maker and model, where firmware tells.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Hardware {
    /// The maker.
    pub vendor: Option<String>,
    /// The model.
    pub model: Option<String>,
    /// The serial number; readable by root only on Linux.
    pub serial: Option<String>,
    /// The SMBIOS UUID; readable by root only on Linux.
    pub uuid: Option<String>,
}

/// The processor.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Cpu {
    /// The brand's name.
    pub brand: String,
    /// Physical cores, if known.
    pub physical_cores: Option<u64>,
    /// Logical cores.
    pub logical_cores: u64,
}

/// Main memory and swap, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Memory {
    /// Total main memory.
    pub total_bytes: u64,
    /// Main memory that a new process could get.
    pub available_bytes: u64,
    /// Total swap.
    pub swap_total_bytes: u64,
    /// Free swap.
    pub swap_free_bytes: u64,
}

/// A mounted disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Disk {
    /// The device's name.
    pub device: String,
    /// Where it is mounted.
    pub mount_point: String,
    /// The file system's kind.
    pub file_system: String,
    /// Its size.
    pub total_bytes: u64,
    /// What is free for an ordinary user.
    pub available_bytes: u64,
}

/// An address of a network interface.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct InterfaceAddress {
    /// The interface's name.
    pub interface: String,
    /// The address.
    pub address: String,
    /// The interface's hardware address.
    pub mac: Option<String>,
}
