//! The account that PostgreSQL runs as.
//!
//! An ordinary user runs it as itself. PostgreSQL refuses root, so root hands it to `postgres`, or
//! to `nobody` where there is no such user.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use crate::error::ClusterError;

const PASSWD: &str = "/etc/passwd";

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Account {
    pub name: String,
    pub uid: u32,
    pub gid: u32,
    /// True when the server has to change to this account.
    pub switch: bool,
}

impl Account {
    /// The account for a new cluster.
    pub fn for_new_cluster() -> Result<Self, ClusterError> {
        let own = Self::own();
        if own.uid != 0 {
            return Ok(own);
        }
        let passwd = fs::read_to_string(PASSWD).unwrap_or_default();
        ["postgres", "nobody"]
            .iter()
            .find_map(|name| by_name(&passwd, name))
            .filter(|account| account.uid != 0)
            .ok_or(ClusterError::NoAccount)
    }

    /// The account for a cluster that exists: whoever owns it.
    pub fn for_existing_cluster(data: &Path, uid: u32, gid: u32) -> Result<Self, ClusterError> {
        let own = Self::own();
        if own.uid == uid && uid != 0 {
            return Ok(own);
        }
        if own.uid != 0 {
            return Err(ClusterError::ForeignOwner {
                path: data.to_path_buf(),
                owner: uid,
                own: own.uid,
            });
        }
        if uid == 0 {
            return Err(ClusterError::OwnedByRoot {
                path: data.to_path_buf(),
                account: Self::for_new_cluster()?.name,
            });
        }
        Ok(Self {
            name: name_of(uid),
            uid,
            gid,
            switch: true,
        })
    }

    fn own() -> Self {
        let uid = rustix::process::geteuid().as_raw();
        Self {
            name: name_of(uid),
            uid,
            gid: rustix::process::getegid().as_raw(),
            switch: false,
        }
    }

    /// Makes `command` run as this account, with nothing of the server's environment: that holds
    /// secrets, and `PG*` variables which would change what PostgreSQL does.
    pub fn confine(&self, command: &mut Command) {
        command.env_clear();
        if let Some(path) = std::env::var_os("PATH") {
            command.env("PATH", path);
        }
        // A Ctrl-C in the terminal is for the server, which then stops PostgreSQL in good order.
        command.process_group(0);
        if self.switch {
            command.uid(self.uid).gid(self.gid);
        }
    }

    /// Gives `path`, but not what a symbolic link there leads to, to this account.
    pub fn take(&self, path: &Path) -> Result<(), ClusterError> {
        if self.switch {
            std::os::unix::fs::lchown(path, Some(self.uid), Some(self.gid))
                .map_err(crate::error::file("change the owner of", path))?;
        }
        Ok(())
    }
}

fn by_name(passwd: &str, name: &str) -> Option<Account> {
    passwd
        .lines()
        .filter_map(entry)
        .find(|account| account.name == name)
}

fn name_of(uid: u32) -> String {
    fs::read_to_string(PASSWD)
        .unwrap_or_default()
        .lines()
        .filter_map(entry)
        .find(|account| account.uid == uid)
        .map_or_else(|| uid.to_string(), |account| account.name)
}

fn entry(line: &str) -> Option<Account> {
    let mut fields = line.split(':');
    let name = fields.next()?.to_owned();
    let uid = fields.nth(1)?.parse().ok()?;
    let gid = fields.next()?.parse().ok()?;
    Some(Account {
        name,
        uid,
        gid,
        switch: true,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINES: &str = "root:x:0:0:root:/root:/bin/sh\n\n+nis\nodd:x:y:1\nnobody:x:65534:65533:nobody:/:/usr/sbin/nologin\n";

    #[test]
    fn an_account_is_found_by_its_name() {
        let account = by_name(LINES, "nobody").unwrap();
        assert_eq!((account.uid, account.gid), (65_534, 65_533));
    }

    #[test]
    fn a_broken_line_is_no_account() {
        assert_eq!(by_name(LINES, "odd"), None);
        assert_eq!(by_name(LINES, "+nis"), None);
    }
}
