//! Linux: `/proc`, `/sys`, `/etc/os-release`.

use std::{collections::BTreeMap, fs};

use chrono::{DateTime, Utc};
use mdm_proto::devices::Software;
use mdm_proto::inventory::{Cpu, Disk, Hardware, InterfaceAddress, Memory, SystemInfo};
use sha2::{Digest, Sha256};
use sysinfo::{CpuRefreshKind, Disks, MemoryRefreshKind, Networks, RefreshKind, System};

/// The fields of os-release(5).
#[derive(Debug, Clone, Default)]
pub struct OsRelease(BTreeMap<String, String>);

impl OsRelease {
    /// A field's value; the empty text if it is not there.
    pub fn get(&self, key: &str) -> &str {
        self.0.get(key).map_or("", String::as_str)
    }
}

/// Reads os-release(5).
pub fn os_release() -> OsRelease {
    let text = fs::read_to_string("/etc/os-release")
        .or_else(|_| fs::read_to_string("/usr/lib/os-release"))
        .unwrap_or_default();
    let fields = text.lines().filter_map(|line| line.split_once('='));
    OsRelease(
        fields
            .map(|(key, value)| (key.to_owned(), value.trim_matches(['"', '\'']).to_owned()))
            .collect(),
    )
}

/// The kernel's release, as `uname -r` gives it.
pub fn kernel_release() -> String {
    rustix::system::uname()
        .release()
        .to_string_lossy()
        .into_owned()
}

/// The machine's name in the network, as `uname -n` gives it.
pub fn node_name() -> String {
    rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned()
}

/// Seconds since the start of the machine.
pub fn uptime_seconds() -> u64 {
    let text = fs::read_to_string("/proc/uptime").unwrap_or_default();
    text.split(['.', ' '])
        .next()
        .and_then(|seconds| seconds.parse().ok())
        .unwrap_or_default()
}

/// What the firmware tells. Serial number and UUID are readable by root only.
pub fn hardware() -> Hardware {
    let read = |name: &str| {
        let text = fs::read_to_string(format!("/sys/class/dmi/id/{name}")).ok()?;
        let text = text.trim();
        (!text.is_empty() && text != "None" && !text.contains('\0')).then(|| text.to_owned())
    };
    Hardware {
        vendor: read("sys_vendor"),
        model: read("product_name"),
        serial: read("product_serial"),
        uuid: read("product_uuid"),
    }
}

/// An identifier that stays with the machine: the firmware's, else one derived from
/// machine-id(5), which itself must not leave the machine.
pub fn hardware_uuid() -> Option<String> {
    if let Some(uuid) = hardware()
        .uuid
        .and_then(|text| text.parse::<uuid::Uuid>().ok())
        .filter(|uuid| is_sane(*uuid))
    {
        return Some(uuid.to_string());
    }
    let machine_id = fs::read_to_string("/etc/machine-id").ok()?;
    let machine_id = machine_id.trim();
    if machine_id.len() != 32 {
        return None;
    }
    let digest = Sha256::digest(format!("mobius-mdm agent {machine_id}"));
    let bytes: [u8; 16] = digest.get(..16)?.try_into().ok()?;
    Some(
        uuid::Builder::from_custom_bytes(bytes)
            .into_uuid()
            .to_string(),
    )
}

/// Boards without an identifier of their own carry all zeros, all ones, or a known filler.
fn is_sane(uuid: uuid::Uuid) -> bool {
    let filler = uuid::Uuid::from_u128(0x0300_0200_0400_0500_0006_0007_0008_0009);
    !uuid.is_nil() && !uuid.is_max() && uuid != filler
}

/// Everything about this machine.
pub fn system_info(observed_at: DateTime<Utc>) -> SystemInfo {
    let release = os_release();
    let kind = RefreshKind::nothing()
        .with_cpu(CpuRefreshKind::nothing())
        .with_memory(MemoryRefreshKind::everything());
    let system = System::new_with_specifics(kind);
    let system = system.as_ref().ok();
    let cpus = system.map(System::cpus).unwrap_or_default();
    let memory = |read: fn(&System) -> u64| system.map(read).unwrap_or_default();
    SystemInfo {
        observed_at: observed_at.into(),
        hostname: node_name(),
        os_name: release.get("NAME").to_owned(),
        os_version: release.get("VERSION_ID").to_owned(),
        kernel: kernel_release(),
        architecture: std::env::consts::ARCH.to_owned(),
        uptime_seconds: uptime_seconds(),
        hardware: hardware(),
        cpu: Cpu {
            brand: cpus.first().map_or("", |cpu| cpu.brand()).trim().to_owned(),
            physical_cores: System::physical_core_count()
                .ok()
                .and_then(|cores| u64::try_from(cores).ok()),
            logical_cores: u64::try_from(cpus.len()).unwrap_or_default(),
        },
        memory: Memory {
            total_bytes: memory(System::total_memory),
            available_bytes: memory(System::available_memory),
            swap_total_bytes: memory(System::total_swap),
            swap_free_bytes: memory(System::free_swap),
        },
        disks: disks(),
        addresses: addresses(),
    }
}

fn disks() -> Vec<Disk> {
    let Ok(found) = Disks::new_with_refreshed_list() else {
        return Vec::new();
    };
    let mut disks: Vec<Disk> = found
        .iter()
        .map(|disk| Disk {
            device: disk.name().to_string_lossy().into_owned(),
            mount_point: disk.mount_point().display().to_string(),
            file_system: disk.file_system().to_string_lossy().into_owned(),
            total_bytes: disk.total_space(),
            available_bytes: disk.available_space(),
        })
        .collect();
    disks.sort_by(|a, b| a.mount_point.cmp(&b.mount_point));
    disks
}

fn addresses() -> Vec<InterfaceAddress> {
    let Ok(networks) = Networks::new_with_refreshed_list() else {
        return Vec::new();
    };
    let mut addresses: Vec<InterfaceAddress> = networks
        .iter()
        .flat_map(|(name, network)| {
            let mac = network.mac_address();
            let mac = (!mac.is_unspecified()).then(|| mac.to_string());
            network
                .ip_networks()
                .iter()
                .filter(|ip| !ip.addr.is_loopback())
                .map(move |ip| InterfaceAddress {
                    interface: name.to_string_lossy().into_owned(),
                    address: ip.addr.to_string(),
                    mac: mac.clone(),
                })
        })
        .collect();
    addresses.sort_by(|a, b| (&a.interface, &a.address).cmp(&(&b.interface, &b.address)));
    addresses
}

/// What dpkg or rpm has installed, by name; `None` where neither can tell.
pub fn software() -> Option<Vec<Software>> {
    let mut software = dpkg_packages().or_else(rpm_packages)?;
    software.sort_by(|a, b| (&a.name, &a.version).cmp(&(&b.name, &b.version)));
    Some(software)
}

fn dpkg_packages() -> Option<Vec<Software>> {
    let status = fs::read("/var/lib/dpkg/status").ok()?;
    let status = String::from_utf8_lossy(&status);
    let package = |stanza: &str| {
        let field = |name: &str| stanza.lines().find_map(|line| line.strip_prefix(name));
        field("Status: ")?.ends_with(" installed").then_some(())?;
        Some(Software {
            name: field("Package: ")?.to_owned(),
            version: field("Version: ")?.to_owned(),
            source: "deb".to_owned(),
        })
    };
    Some(status.split("\n\n").filter_map(package).collect())
}

fn rpm_packages() -> Option<Vec<Software>> {
    let listed = std::process::Command::new("rpm")
        .args(["-qa", "--qf", "%{NAME}\\t%{VERSION}-%{RELEASE}\\n"])
        .output();
    let listed = listed.ok().filter(|done| done.status.success())?;
    let packages = String::from_utf8_lossy(&listed.stdout)
        .lines()
        .filter_map(|line| line.split_once('\t'))
        .map(|(name, version)| Software {
            name: name.to_owned(),
            version: version.to_owned(),
            source: "rpm".to_owned(),
        })
        .collect();
    Some(packages)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_is_what_the_system_says() {
        let info = system_info(DateTime::UNIX_EPOCH);
        let read = |path: &str| fs::read_to_string(path).unwrap().trim().to_owned();
        assert_eq!(info.kernel, read("/proc/sys/kernel/osrelease"));
        assert_eq!(info.hostname, read("/proc/sys/kernel/hostname"));
        assert!(info.memory.total_bytes > 0 && info.cpu.logical_cores > 0);
        assert!(
            info.disks
                .iter()
                .all(|disk| disk.available_bytes <= disk.total_bytes)
        );
    }

    #[test]
    fn fillers_are_no_identity() {
        for filler in [
            "00000000-0000-0000-0000-000000000000",
            "ffffffff-ffff-ffff-ffff-ffffffffffff",
            "03000200-0400-0500-0006-000700080009",
        ] {
            assert!(!is_sane(filler.parse().unwrap()));
        }
    }
}
