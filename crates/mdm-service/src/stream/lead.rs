//! Which node leads: it alone puts events in order, and does what one node is enough for.

use std::sync::Arc;

use tokio::sync::watch;

/// Whether this node leads. Cheap to clone; everything that only one node does asks here.
///
/// Two nodes may hold themselves for the leader for a moment, when one that stood still wakes up
/// after another took over. So work that asks here must bear being done twice: it locks the rows
/// that it works on, or says in its `WHERE` what it has seen.
#[derive(Debug, Clone)]
pub struct Lead(Arc<watch::Sender<bool>>);

impl Default for Lead {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(false)))
    }
}

/// Leads as long as it lives.
pub(super) struct Leading<'a>(&'a Lead);

impl Lead {
    /// Whether this node leads now.
    pub fn is_held(&self) -> bool {
        *self.0.borrow()
    }

    /// Waits until this node leads.
    pub async fn held(&self) {
        // The sender is ours: it does not go away while we wait.
        let mut held = self.0.subscribe();
        let _never = held.wait_for(|held| *held).await;
    }

    /// Waits until this node leads no longer.
    pub async fn lost(&self) {
        let mut held = self.0.subscribe();
        let _never = held.wait_for(|held| !*held).await;
    }

    pub(super) fn take(&self) -> Leading<'_> {
        self.0.send_replace(true);
        Leading(self)
    }
}

impl Drop for Leading<'_> {
    fn drop(&mut self) {
        self.0.0.send_replace(false);
    }
}
