//! What the use cases work with.

use std::sync::Arc;

use mdm_core::{
    Clock, Entropy, Timestamp,
    devices::CheckinPace,
    ids::{DeviceId, OrganizationId},
};
use mdm_events::bus::Bus;
use mdm_store::{PgPool, StoreError, Transaction};

use crate::{
    api_keys::HeldKeys,
    applications::Packages,
    changes::Changes,
    channels::{CommandWatch, DeviceChannels},
    devices::{JOINING_AT_ONCE, Joining},
    gathering::Gathering,
    glances::{AskedGlance, LOOKS_AT_ONCE},
    idempotency,
    licenses::LicensePublicKey,
    lists::Totals,
    nodes::{OtherNodes, ThisNode},
    observer::Telling,
    passwords::Passwords,
    presence::Presence,
    sealing::SecretKey,
    stream::{EventWake, Lead},
    throttle::Throttle,
    tokens::AccessTokens,
    webhooks::{Endpoints, WebhookTransport},
};

/// The use cases and what they work with. Cheap to clone.
#[derive(Clone)]
pub struct Services {
    pub(crate) pool: PgPool,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) entropy: Arc<dyn Entropy>,
    pub(crate) wake: EventWake,
    pub(crate) lead: Lead,
    pub(crate) bus: Option<Bus>,
    pub(crate) this_node: ThisNode,
    pub(crate) other_nodes: Arc<OtherNodes>,
    pub(crate) webhooks: Arc<dyn WebhookTransport>,
    pub(crate) endpoints: Arc<Endpoints>,
    pub(crate) tokens: Arc<AccessTokens>,
    pub(crate) passwords: Passwords,
    pub(crate) throttle: Arc<Throttle>,
    pub(crate) channels: Arc<DeviceChannels>,
    pub(crate) watch: Arc<CommandWatch>,
    pub(crate) presence: Arc<Presence>,
    pub(crate) glances: Arc<Gathering<AskedGlance>>,
    pub(crate) joining: Arc<Gathering<Joining>>,
    pub(crate) pace: CheckinPace,
    pub(crate) secret_key: Arc<SecretKey>,
    pub(crate) packages: Packages,
    pub(crate) license_keys: Arc<[LicensePublicKey]>,
    pub(crate) totals: Arc<Totals>,
    pub(crate) changes: Arc<Changes>,
    pub(crate) held_keys: Arc<HeldKeys>,
    pub(crate) telling: Arc<Telling>,
}

/// What [`Services::new`] needs from outside.
pub struct Parts {
    /// Connections to the database.
    pub pool: PgPool,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub entropy: Arc<dyn Entropy>,
    /// This node, by whose id the ledger names it.
    pub node: ThisNode,
    /// The bus to other nodes, if there is one.
    pub bus: Option<Bus>,
    /// Posts events to endpoints.
    pub webhooks: Arc<dyn WebhookTransport>,
    /// Wakes the sequencer after commits.
    pub wake: EventWake,
    /// Whether this node does what one node is enough for.
    pub lead: Lead,
    /// Signs and checks access tokens.
    pub tokens: Arc<AccessTokens>,
    /// How often devices check in.
    pub pace: CheckinPace,
    /// Seals what is kept of answers.
    pub secret_key: Arc<SecretKey>,
    /// Where packages are kept.
    pub packages: Packages,
    /// Whose license keys are good.
    pub license_keys: Vec<LicensePublicKey>,
}

impl Services {
    /// Puts the use cases together.
    pub fn new(parts: Parts) -> Self {
        Self {
            pool: parts.pool,
            passwords: Passwords::new(Arc::clone(&parts.entropy)),
            clock: parts.clock,
            entropy: parts.entropy,
            this_node: parts.node,
            other_nodes: Arc::default(),
            webhooks: parts.webhooks,
            endpoints: Arc::default(),
            bus: parts.bus,
            wake: parts.wake,
            lead: parts.lead,
            tokens: parts.tokens,
            throttle: Arc::new(Throttle::default()),
            channels: Arc::new(DeviceChannels::default()),
            watch: Arc::new(CommandWatch::default()),
            presence: Arc::new(Presence::default()),
            glances: Arc::new(Gathering::new(LOOKS_AT_ONCE)),
            pace: parts.pace,
            secret_key: parts.secret_key,
            packages: parts.packages,
            license_keys: parts.license_keys.into(),
            totals: Arc::new(Totals::default()),
            changes: Arc::new(Changes::default()),
            held_keys: Arc::new(HeldKeys::default()),
            joining: Arc::new(Gathering::new(JOINING_AT_ONCE)),
            telling: Arc::new(Telling::default()),
        }
    }

    /// The present moment.
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// The channels of the devices that are connected to this node.
    pub const fn channels(&self) -> &Arc<DeviceChannels> {
        &self.channels
    }

    /// Who waits for the end of a command on this node.
    pub const fn watch(&self) -> &Arc<CommandWatch> {
        &self.watch
    }

    /// The access tokens.
    pub const fn tokens(&self) -> &Arc<AccessTokens> {
        &self.tokens
    }

    /// What limits failed attempts.
    pub const fn throttle(&self) -> &Arc<Throttle> {
        &self.throttle
    }

    /// The bus to other nodes, if there is one.
    pub const fn bus(&self) -> Option<&Bus> {
        self.bus.as_ref()
    }

    /// Where packages are kept.
    pub const fn packages(&self) -> &Packages {
        &self.packages
    }

    /// Tells the device's channel, on whichever node it is, that a command waits. The log tells it
    /// as well: this only saves the time until then.
    pub(crate) fn wake_device(&self, organization: OrganizationId, device: DeviceId) {
        if self.channels.is_open(organization, device) {
            self.channels.wake(organization, device);
        } else if let Some(bus) = self.bus.clone() {
            tokio::spawn(async move { bus.wake(organization, device).await });
        }
    }

    /// Asks the database for its version.
    pub async fn probe_database(&self) -> Result<String, StoreError> {
        let mut conn = self.pool.acquire().await?;
        mdm_store::organizations::database_version(&mut conn).await
    }

    pub(crate) async fn begin(&self) -> Result<Transaction, StoreError> {
        Ok(self.pool.begin().await?)
    }

    /// Commits and then wakes the sequencer: the events of the transaction are on their way. A
    /// request that brought an idempotency key is marked as carried out by the same commit.
    pub(crate) async fn commit(&self, mut transaction: Transaction) -> Result<(), StoreError> {
        idempotency::carry_out(&mut transaction).await?;
        self.commit_apart(transaction).await
    }

    /// As [`commit`](Self::commit), for what is no part of the request that began it.
    pub(crate) async fn commit_apart(&self, transaction: Transaction) -> Result<(), StoreError> {
        transaction.commit().await?;
        self.changes.happened();
        self.wake.wake();
        Ok(())
    }
}
