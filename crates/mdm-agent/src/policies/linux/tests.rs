//! Machines that are laid out in a directory.

use std::fs;

use serde_json::json;
use tempfile::TempDir;

use super::*;

struct Machine(TempDir);

impl Machine {
    fn new(files: &[(&str, &str)]) -> Self {
        let machine = Self(tempfile::tempdir().unwrap());
        for (path, text) in files {
            let path = machine.0.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        machine
    }

    fn state(&self, name: &str, value: impl Into<Value>) -> String {
        check(self.0.path(), name, &value.into())
            .into_result(name)
            .state
    }
}

#[test]
fn packages_are_known_by_dpkgs_own_file() {
    let status = "Package: nis\nStatus: install ok installed\n\nPackage: telnetd\nStatus: deinstall ok config-files\n";
    let machine = Machine::new(&[("var/lib/dpkg/status", status)]);
    assert_eq!(
        machine.state("forbidden_packages", json!(["telnetd"])),
        "passed"
    );
    assert_eq!(
        machine.state("forbidden_packages", json!(["telnetd", "nis"])),
        "failed"
    );
    assert_eq!(machine.state("required_packages", json!(["nis"])), "passed");
    assert_eq!(
        machine.state("required_packages", json!(["auditd"])),
        "failed"
    );
}

#[test]
fn versions_are_compared_by_number() {
    let machine = Machine::new(&[("etc/os-release", "ID=debian\nVERSION_ID=\"12.10\"\n")]);
    assert_eq!(machine.state("os_version_min", json!("12.9")), "passed");
    assert_eq!(machine.state("os_version_min", json!("13")), "failed");
    assert_eq!(
        Machine::new(&[]).state("os_version_min", json!("13")),
        "error"
    );
}

#[test]
fn sshds_first_value_counts_included_files_too() {
    let config = "Include /etc/ssh/sshd_config.d/*.conf\nPermitRootLogin yes\nMatch User x\n  PasswordAuthentication no\n";
    let machine = Machine::new(&[
        ("etc/ssh/sshd_config", config),
        ("etc/ssh/sshd_config.d/10-own.conf", "PermitRootLogin no\n"),
    ]);
    assert_eq!(
        machine.state("ssh_root_login_allowed", json!(false)),
        "passed"
    );
    assert_eq!(
        machine.state("ssh_password_login_allowed", json!(false)),
        "failed"
    );
    assert_eq!(
        machine.state("ssh_password_login_allowed", json!(true)),
        "passed"
    );
    assert_eq!(
        Machine::new(&[]).state("ssh_root_login_allowed", json!(false)),
        "not_applicable"
    );
}

#[test]
fn passwords_are_as_long_as_what_checks_them_says() {
    let pam = (
        "etc/pam.d/common-password",
        "password requisite pam_pwquality.so retry=3\n",
    );
    let long = ("etc/security/pwquality.conf", "# minlen = 4\nminlen = 14\n");
    assert_eq!(
        Machine::new(&[pam, long]).state("password_min_length", json!(12)),
        "passed"
    );
    assert_eq!(
        Machine::new(&[pam]).state("password_min_length", json!(12)),
        "failed"
    );
    assert_eq!(
        Machine::new(&[long]).state("password_min_length", json!(12)),
        "failed"
    );
    let defs = Machine::new(&[("etc/login.defs", "PASS_MAX_DAYS\t99999\n")]);
    assert_eq!(defs.state("password_max_age_days", json!(365)), "failed");
}

#[test]
fn an_encrypted_disk_is_known_below_other_mappings() {
    let mounts = "22 1 253:1 / / rw - ext4 /dev/mapper/root rw\n";
    let machine = Machine::new(&[
        ("proc/self/mountinfo", mounts),
        ("sys/dev/block/253:1/dm/uuid", "LVM-abc"),
        ("sys/dev/block/253:1/slaves/dm-0/dm/uuid", "CRYPT-LUKS2-abc"),
    ]);
    assert_eq!(
        machine.state("disk_encryption_required", json!(true)),
        "passed"
    );
    let plain = Machine::new(&[
        ("proc/self/mountinfo", mounts),
        ("sys/dev/block/253:1/size", "1"),
    ]);
    assert_eq!(
        plain.state("disk_encryption_required", json!(true)),
        "failed"
    );
    let overlay = Machine::new(&[(
        "proc/self/mountinfo",
        "22 1 0:30 / / rw - overlay overlay rw\n",
    )]);
    assert_eq!(
        overlay.state("disk_encryption_required", json!(true)),
        "error"
    );
}

#[test]
fn updates_usb_forwarding_and_the_screen() {
    let machine = Machine::new(&[
        (
            "etc/apt/apt.conf.d/20auto",
            "APT::Periodic::Unattended-Upgrade \"1\";\n",
        ),
        (
            "etc/modprobe.d/usb.conf",
            "install usb_storage /bin/false\n",
        ),
        ("proc/sys/net/ipv4/ip_forward", "1\n"),
        ("usr/share/xsessions/gnome.desktop", ""),
        (
            "etc/dconf/db/local.d/00-lock",
            "[org/gnome/desktop/session]\nidle-delay=uint32 300\n[org/gnome/desktop/screensaver]\nlock-delay=uint32 5\n",
        ),
    ]);
    assert_eq!(machine.state("auto_updates", json!(true)), "passed");
    assert_eq!(machine.state("usb_storage_allowed", json!(false)), "passed");
    assert_eq!(
        machine.state("ip_forwarding_allowed", json!(false)),
        "failed"
    );
    assert_eq!(machine.state("screen_lock_seconds", json!(305)), "passed");
    assert_eq!(machine.state("screen_lock_seconds", json!(300)), "failed");
    assert_eq!(
        Machine::new(&[]).state("screen_lock_seconds", json!(300)),
        "not_applicable"
    );
}

#[test]
fn a_filter_is_one_that_turns_something_away() {
    let open = "table inet filter {\n chain input {\n type filter hook input priority 0; policy accept;\n }\n}";
    assert!(!network::nft_filters(open));
    assert!(network::nft_filters(&open.replace("accept", "drop")));
    assert!(!network::iptables_filters(
        "*filter\n:INPUT ACCEPT [0:0]\n-A FORWARD -j DROP\n"
    ));
    assert!(network::iptables_filters(
        "*filter\n:INPUT ACCEPT [0:0]\n-A INPUT -p tcp -j REJECT\n"
    ));
}

#[test]
fn what_linux_does_not_have_is_not_applicable() {
    assert_eq!(
        Machine::new(&[]).state("gatekeeper_enabled", json!(true)),
        "not_applicable"
    );
}

#[test]
fn what_is_there_and_cannot_be_read_is_an_error_and_no_finding() {
    // A directory where a file is expected can be read by nobody, root not excepted.
    for (path, name, value) in [
        (
            "etc/ssh/sshd_config",
            "ssh_root_login_allowed",
            json!(false),
        ),
        ("etc/login.defs", "password_max_age_days", json!(90)),
        ("var/lib/dpkg/status", "forbidden_packages", json!(["nis"])),
        ("etc/os-release", "os_version_min", json!("1")),
        (
            "proc/sys/net/ipv4/ip_forward",
            "ip_forwarding_allowed",
            json!(false),
        ),
    ] {
        let machine = Machine::new(&[(&format!("{path}/inside"), "")]);
        assert_eq!(machine.state(name, value), "error", "{name}");
    }
    // A part of a configuration is as good as all of it.
    let config = "Include /etc/ssh/own.conf\n";
    let machine = Machine::new(&[
        ("etc/ssh/sshd_config", config),
        ("etc/ssh/own.conf/inside", ""),
    ]);
    assert_eq!(
        machine.state("ssh_password_login_allowed", json!(false)),
        "error"
    );
}
