//! Single-use tickets for sockets: what a web page puts into an address in place of its token,
//! which would stay in the logs of proxies.

use mdm_core::{
    Timestamp,
    roles::Permission,
    tokens::{Token, TokenKind},
};
use mdm_store::{StoreError, socket_tickets};
use secrecy::SecretString;

use crate::{
    context::{Forbidden, OpContext},
    sealing::CannotOpen,
    services::Services,
    tokens::TokenError,
};

/// For how long a ticket is good.
const LIFETIME: chrono::Duration = chrono::Duration::seconds(30);

/// Why no ticket was issued.
#[derive(Debug, thiserror::Error)]
pub enum TicketError {
    /// The caller may not.
    #[error(transparent)]
    Forbidden(#[from] Forbidden),
    /// The credential could not be sealed.
    #[error(transparent)]
    Sealing(#[from] CannotOpen),
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Services {
    /// Issues a ticket that stands for the caller's own credential.
    pub async fn issue_ticket(
        &self,
        ctx: &OpContext,
        credential: &str,
    ) -> Result<(Token, Timestamp), TicketError> {
        ctx.require(Permission::ReadEvents)?;
        let ticket = Token::generate(TokenKind::SocketTicket, self.entropy.as_ref());
        let sealed = self
            .secret_key
            .seal(self.entropy.as_ref(), credential.as_bytes())?;
        let expires_at = self.now() + LIFETIME;
        let mut tx = self.begin().await?;
        socket_tickets::insert(&mut tx, &ticket.hash(), &sealed, expires_at).await?;
        self.commit(tx).await?;
        Ok((ticket, expires_at))
    }

    /// Takes a ticket, which works once, and gives the credential that it stands for; whether that
    /// is good now has yet to be looked at.
    pub async fn redeem_ticket(&self, ticket: &str) -> Result<SecretString, TokenError> {
        let ticket = Token::parse(TokenKind::SocketTicket, ticket);
        let ticket = ticket.ok_or(TokenError::TicketInvalid)?;
        let sealed = self.take_ticket(&ticket).await.map_err(|error| {
            tracing::warn!(%error, "cannot look up a ticket");
            TokenError::Unavailable
        })?;
        let sealed = sealed.ok_or(TokenError::TicketInvalid)?;
        let opened = self.secret_key.open(&sealed);
        let opened = opened.map_err(|_sealed: CannotOpen| TokenError::TicketInvalid)?;
        let credential = String::from_utf8(opened);
        let credential = credential.map_err(|_binary| TokenError::TicketInvalid)?;
        Ok(credential.into())
    }

    async fn take_ticket(&self, ticket: &Token) -> Result<Option<Vec<u8>>, StoreError> {
        let mut conn = self.pool.acquire().await?;
        socket_tickets::take(&mut conn, &ticket.hash(), self.now()).await
    }

    pub(crate) async fn forget_tickets(&self) -> Result<(), StoreError> {
        let mut conn = self.pool.acquire().await?;
        socket_tickets::delete_expired(&mut conn, self.now()).await
    }
}
