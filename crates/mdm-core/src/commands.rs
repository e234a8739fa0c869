//! Commands: a ledger of what devices were told to do, and what they said came of it.

use std::{fmt, str::FromStr};

use chrono::Duration;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    clock::Timestamp,
    devices::words,
    ids::{BatchId, CommandId, DeviceId, OrganizationId, UserId},
    invalid::Invalid,
};

words! {
    /// What a device can be told to do.
    CommandKind, UnknownCommand, "command" {
        /// Report hostname, hardware, operating system, memory, disks, addresses.
        SystemInfo = "system_info",
        /// Report the last lines of the system's and the agent's logs.
        CollectLogs = "collect_logs",
        /// Run a script.
        RunScript = "run_script",
        /// Run one SQL query over the system's live tables.
        RunOsquery = "run_osquery",
        /// Install an application.
        InstallApp = "install_app",
        /// Remove an application.
        UninstallApp = "uninstall_app",
        /// Lock the screen.
        Lock = "lock",
        /// Restart the machine.
        Restart = "restart",
        /// Turn the machine off.
        Shutdown = "shutdown",
        /// Erase the machine.
        Wipe = "wipe",
        /// Collect the inventory anew.
        RefreshInventory = "refresh_inventory",
        /// Fetch and apply the effective policies.
        ApplyPolicies = "apply_policies",
    }
}

words! {
    /// Commands of one lane and device run in order; lanes do not wait for each other.
    Lane, UnknownLane, "lane" {
        /// What changes the machine's state.
        Control = "control",
        /// What only asks.
        Query = "query",
        /// Installation and removal of software.
        Software = "software",
        /// Scripts.
        Script = "script",
    }
}

words! {
    /// Where a command stands.
    #[derive(PartialOrd, Ord)]
    CommandStatus, UnknownCommandStatus, "command status" {
        /// Accepted, not yet handed to the device.
        Pending = "pending",
        /// Handed to the device's channel or check-in.
        Sent = "sent",
        /// The device has begun.
        Running = "running",
        /// The device says that it is done.
        Completed = "completed",
        /// The device says that it could not.
        Failed = "failed",
        /// Its time ran out first.
        Expired = "expired",
        /// Withdrawn.
        Cancelled = "cancelled",
        /// A destructive command whose outcome cannot be known.
        Unknown = "unknown",
    }
}

impl CommandKind {
    /// The lane that keeps the order of such commands.
    pub const fn lane(self) -> Lane {
        match self {
            Self::SystemInfo | Self::CollectLogs | Self::RunOsquery | Self::RefreshInventory => {
                Lane::Query
            }
            Self::InstallApp | Self::UninstallApp => Lane::Software,
            Self::RunScript => Lane::Script,
            Self::Lock | Self::Restart | Self::Shutdown | Self::Wipe | Self::ApplyPolicies => {
                Lane::Control
            }
        }
    }

    /// Whether doing it twice would do harm. Such commands are delivered at most once.
    pub const fn is_destructive(self) -> bool {
        matches!(
            self,
            Self::Lock | Self::Restart | Self::Shutdown | Self::Wipe
        )
    }
}

/// The transition is not one that a command may make.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a command that is {from} cannot become {to}")]
pub struct InvalidTransition {
    /// Where the command stands.
    pub from: CommandStatus,
    /// Where it was to go.
    pub to: CommandStatus,
}

/// What a transition request comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transition {
    /// The command moves on.
    Moves,
    /// It is there already: a repetition, and harmless.
    AlreadyThere,
}

impl CommandStatus {
    /// Whether the command is still to come to its end.
    pub const fn is_open(self) -> bool {
        matches!(self, Self::Pending | Self::Sent | Self::Running)
    }

    /// How far along its life the state is.
    const fn rank(self) -> u8 {
        match self {
            Self::Pending => 0,
            Self::Sent => 1,
            Self::Running => 2,
            Self::Completed | Self::Failed | Self::Expired | Self::Cancelled | Self::Unknown => 3,
        }
    }

    /// Decides a transition: forward from an open state it moves, to the same state it is a
    /// harmless repetition, and everything else is refused.
    pub fn to(self, next: Self) -> Result<Transition, InvalidTransition> {
        if self == next {
            Ok(Transition::AlreadyThere)
        } else if self.is_open() && next.rank() > self.rank() {
            Ok(Transition::Moves)
        } else {
            Err(InvalidTransition {
                from: self,
                to: next,
            })
        }
    }
}

/// How long a command waits for its device: 1 second to 30 days, by default 7 days.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimeToLive(Duration);

impl TimeToLive {
    /// The longest time, in seconds.
    pub const MAX_SECONDS: i64 = 30 * 24 * 3600;

    /// Takes the caller's wish, `None` meaning the default.
    pub fn parse(seconds: Option<i64>) -> Result<Self, Invalid> {
        let seconds = seconds.unwrap_or(7 * 24 * 3600);
        if (1..=Self::MAX_SECONDS).contains(&seconds) {
            Ok(Self(Duration::seconds(seconds)))
        } else {
            let detail = format!(
                "must be between 1 and {} seconds (30 days)",
                Self::MAX_SECONDS
            );
            Err(Invalid::new("/expires_in_seconds", "OUT_OF_RANGE", detail))
        }
    }

    /// The moment at which a command accepted at `now` ends.
    pub fn ends(self, now: Timestamp) -> Timestamp {
        now + self.0
    }
}

/// Which of a lane's waiting commands goes first: -100 to 100, higher first, by default 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Priority(i16);

impl Priority {
    /// Takes the caller's wish, `None` meaning the default.
    pub fn parse(value: Option<i64>) -> Result<Self, Invalid> {
        let value = value.unwrap_or(0);
        i16::try_from(value)
            .ok()
            .filter(|value| (-100..=100).contains(value))
            .map(Self)
            .ok_or_else(|| {
                Invalid::new("/priority", "OUT_OF_RANGE", "must be between -100 and 100")
            })
    }

    /// The number.
    pub const fn value(self) -> i16 {
        self.0
    }
}

/// A caller's name for one intention, so that a repeated request does not become a second
/// command: 1 to 128 visible ASCII characters.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct IdempotencyKey(String);

impl IdempotencyKey {
    /// Takes the value of the `Idempotency-Key` header.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        let good = (1..=128).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic());
        good.then(|| Self(text.to_owned())).ok_or_else(|| {
            Invalid::new(
                "",
                "INVALID_IDEMPOTENCY_KEY",
                "the Idempotency-Key header must have 1 to 128 visible ASCII characters",
            )
        })
    }

    /// The key's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A command in the ledger.
#[derive(Debug, Clone)]
pub struct Command {
    /// Its id.
    pub id: CommandId,
    /// The organisation that it belongs to.
    pub organization_id: OrganizationId,
    /// The device that it is for.
    pub device_id: DeviceId,
    /// What is to be done.
    pub kind: CommandKind,
    /// With what; an object.
    pub parameters: Value,
    /// Where it stands.
    pub status: CommandStatus,
    /// What the device answered.
    pub result: Option<Value>,
    /// Why it failed or ended otherwise.
    pub error: Option<String>,
    /// Who sent it; none if the server did.
    pub created_by: Option<UserId>,
    /// When it was accepted.
    pub created_at: Timestamp,
    /// When it was first handed to the device.
    pub sent_at: Option<Timestamp>,
    /// When it ended.
    pub completed_at: Option<Timestamp>,
    /// When it ends if nothing else ends it.
    pub expires_at: Timestamp,
    /// What goes first in the lane.
    pub priority: i16,
    /// The lane whose order it keeps.
    pub lane: Lane,
    /// How often it was handed to the device.
    pub attempts: i32,
    /// The batch that it belongs to, if it was sent to many.
    pub batch_id: Option<BatchId>,
}

/// One step of a command's life.
#[derive(Debug, Clone)]
pub struct CommandTransition {
    /// Where it came to.
    pub status: CommandStatus,
    /// When.
    pub at: Timestamp,
    /// The node that wrote it.
    pub node: String,
    /// Why: who or what moved it.
    pub cause: String,
}

/// Checks a command's parameters as far as the server can: the device checks the rest.
pub fn check_parameters(kind: CommandKind, parameters: &Value) -> Result<(), Invalid> {
    let Some(object) = parameters.as_object() else {
        return Err(Invalid::new(
            "/parameters",
            "WRONG_TYPE",
            "must be an object",
        ));
    };
    let required = match kind {
        CommandKind::RunOsquery => Some("query"),
        CommandKind::RunScript => Some("script"),
        _ => None,
    };
    if let Some(name) = required {
        let given = object
            .get(name)
            .and_then(Value::as_str)
            .is_some_and(|text| !text.trim().is_empty());
        if !given {
            let detail =
                format!("the command {kind} needs the parameter {name}: a text that is not empty");
            return Err(Invalid::new(
                format!("/parameters/{name}"),
                "REQUIRED",
                detail,
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_only_goes_forward_and_never_leaves_its_end() {
        for &from in CommandStatus::ALL {
            for &to in CommandStatus::ALL {
                let decided = from.to(to);
                if from == to {
                    assert_eq!(decided, Ok(Transition::AlreadyThere));
                } else if !from.is_open() || to.rank() < from.rank() {
                    assert_eq!(decided, Err(InvalidTransition { from, to }));
                } else {
                    assert_eq!(decided, Ok(Transition::Moves));
                }
            }
        }
    }

    #[test]
    fn a_device_that_answers_at_once_may_skip_running() {
        assert_eq!(
            CommandStatus::Sent.to(CommandStatus::Completed),
            Ok(Transition::Moves)
        );
    }

    #[test]
    fn destructive_commands_keep_their_order_in_the_control_lane() {
        for &kind in CommandKind::ALL {
            if kind.is_destructive() {
                assert_eq!(kind.lane(), Lane::Control);
            }
        }
    }

    #[test]
    fn a_time_to_live_of_more_than_thirty_days_is_refused() {
        assert!(TimeToLive::parse(Some(2_592_000)).is_ok());
        assert_eq!(
            TimeToLive::parse(Some(2_592_001)).unwrap_err().pointer,
            "/expires_in_seconds"
        );
        assert!(TimeToLive::parse(Some(0)).is_err());
    }

    #[test]
    fn a_query_without_its_text_is_pointed_at() {
        let error = check_parameters(CommandKind::RunOsquery, &serde_json::json!({})).unwrap_err();
        assert_eq!(error.pointer, "/parameters/query");
    }
}
