//! The device channel: the agent's WebSocket. One task per connected device; the ledger is the
//! truth, and the channel only makes it fast.
//!
//! The task waits almost all of the time. What it does now and then, with its queries, is boxed: the
//! memory of an idle channel is then that of its waiting only.

use std::{sync::Arc, time::Duration};

use actix_web::{HttpRequest, HttpResponse, get, http::StatusCode, web};
use actix_ws::{AggregatedMessage, AggregatedMessageStream, CloseCode, CloseReason, Session};
use futures_util::StreamExt;
use mdm_core::{
    Timestamp,
    devices::Device,
    ids::{CommandId, ConnectionId},
    json::RawJson,
    tokens::TokenHash,
};
use mdm_proto::{
    channel::{AgentFrame, MAX_AGENT_FRAME_BYTES, ServerFrame, Welcome, close},
    device_side::PolicyResult,
};
use mdm_service::{
    channels::{ChannelSeat, ChannelSignal},
    commands::Delivery,
    devices::DeviceReport,
};
use mdm_store::StoreError;
use tokio::time::{Instant, timeout};
use utoipa_actix_web::service_config::ServiceConfig;

use crate::{
    extract::{AuthenticatedDevice, device_token_hash},
    frame_guard::guarded,
    mapping,
    problem::ApiError,
    routes::device_side::{policy_reports, take_result},
    state::AppState,
};

/// Adds the route below `/api/v1`.
pub fn configure(config: &mut ServiceConfig<'_>) {
    config.service(open);
}

/// An agent that does not read what it is sent for this long has gone.
const SEND_TIMEOUT: Duration = Duration::from_secs(20);
/// Frames that make no sense, before the channel is closed.
const BAD_FRAMES_AT_MOST: u32 = 10;
/// After a failure of the database the commands are looked for again this much later.
const RETRY: Duration = Duration::from_secs(1);

/// The agent's WebSocket (RFC 6455): commands come at once.
#[utoipa::path(tag = "device side", responses((status = 101, description = "The channel begins")))]
#[get("/device/channel")]
async fn open(
    state: web::Data<AppState>,
    request: HttpRequest,
    AuthenticatedDevice(mut device): AuthenticatedDevice,
    payload: web::Payload,
) -> Result<HttpResponse, ApiError> {
    let payload = guarded(&request, payload, MAX_AGENT_FRAME_BYTES).await?;
    let (response, session, stream) = actix_ws::handle(&request, payload).map_err(|error| {
        ApiError::new(
            StatusCode::BAD_REQUEST,
            "NOT_A_WEBSOCKET",
            "Bad request",
            format!("this route is a WebSocket: {error}"),
        )
    })?;
    // What the device is made of is not kept for the life of the connection.
    device.hardware_info = RawJson::empty_object();
    let token = device_token_hash(&request)?;
    let (connection, now) = (state.new_connection_id(), state.services.now());
    let stream = stream
        .max_frame_size(MAX_AGENT_FRAME_BYTES)
        .aggregate_continuations()
        .max_continuation_size(MAX_AGENT_FRAME_BYTES);
    let channel = Channel {
        state: state.into_inner(),
        device,
        token,
        connection,
        session,
        heard_at: now,
        bad_frames: 0,
    };
    actix_web::rt::spawn(channel.run(stream));
    Ok(response)
}

/// Why a channel ends.
enum End {
    /// The agent said goodbye.
    Goodbye,
    /// The connection broke, or the agent does not read.
    Broken,
    /// The server ends it, for this reason.
    Close(u16, &'static str),
}

impl From<StoreError> for End {
    /// The agent reconnects, with jitter, and says again what was not acknowledged.
    fn from(error: StoreError) -> Self {
        tracing::warn!(%error, "a device channel ends because the database failed");
        Self::Close(1013, "the database is away; try again")
    }
}

struct Channel {
    state: Arc<AppState>,
    device: Device,
    token: TokenHash,
    connection: ConnectionId,
    session: Session,
    heard_at: Timestamp,
    bad_frames: u32,
}

impl Channel {
    async fn run(mut self, mut stream: AggregatedMessageStream) {
        let (organization, device) = (self.device.organization_id, self.device.id);
        let services = self.state.services.clone();
        let opening = services.channel_opened(organization, device, self.connection);
        let end = match Box::pin(opening).await {
            Ok(seat) => self.serve(seat, &mut stream).await,
            Err(error) => error.into(),
        };
        drop(stream);
        let orderly = matches!(end, End::Goodbye);
        if let End::Close(code, reason) = end {
            Box::pin(self.close(code, reason)).await;
        }
        // A device whose server goes away is not offline: it comes back to another one.
        if self.state.is_stopping() {
            services
                .channels()
                .close(organization, device, self.connection);
        } else {
            let (connection, heard) = (self.connection, self.heard_at);
            Box::pin(services.channel_closed(organization, device, connection, heard, orderly))
                .await;
        }
    }

    async fn close(&mut self, code: u16, reason: &str) {
        let reason = CloseReason {
            code: CloseCode::from(code),
            description: Some(reason.to_owned()),
        };
        let _gone_already = timeout(SEND_TIMEOUT, self.session.clone().close(Some(reason))).await;
    }

    async fn serve(&mut self, mut seat: ChannelSeat, stream: &mut AggregatedMessageStream) -> End {
        match Box::pin(self.greet()).await {
            Ok(()) => {}
            Err(end) => return end,
        }
        let silence = Duration::from_secs(self.state.heartbeat_seconds * 2);
        let mut heard = Instant::now();
        let mut look_again = None;
        loop {
            let step = tokio::select! {
                message = stream.next() => {
                    heard = Instant::now();
                    match message {
                        Some(Ok(message)) => Box::pin(self.heard(message)).await,
                        Some(Err(_)) => Err(End::Close(close::BAD_MESSAGE, "a frame could not be read")),
                        None => Err(End::Broken),
                    }
                }
                signal = seat.signals.recv() => Box::pin(self.signalled(signal)).await,
                () = seat.commands.notified() => Box::pin(self.deliver_new(&mut look_again)).await,
                () = tokio::time::sleep_until(look_again.unwrap_or(heard + silence)) => {
                    if look_again.take().is_some() {
                        Box::pin(self.deliver_new(&mut look_again)).await
                    } else {
                        Err(End::Close(close::SILENT, "nothing was heard of the agent"))
                    }
                }
                () = self.state.stopping.cancelled() => Err(End::Close(close::GOING_AWAY, "the server is shutting down")),
            };
            if let Err(end) = step {
                return end;
            }
        }
    }

    /// Ends the channel if its token is the device's no longer.
    async fn check_token(&self) -> Result<(), End> {
        let (organization, device) = (self.device.organization_id, self.device.id);
        let services = &self.state.services;
        if services
            .is_token_of(organization, device, &self.token)
            .await?
        {
            return Ok(());
        }
        Err(End::Close(
            close::SESSION_ENDED,
            "the device was unenrolled or enrolled anew",
        ))
    }

    /// `welcome`, and everything that waits.
    async fn greet(&mut self) -> Result<(), End> {
        // Again: whoever changed the enrolment since the upgrade did not find this channel.
        self.check_token().await?;
        let welcome = Welcome {
            device_id: self.device.id.uuid(),
            server_time: self.state.services.now().into(),
            heartbeat_seconds: self.state.heartbeat_seconds,
        };
        self.send(&ServerFrame::Welcome(welcome)).await?;
        self.policies_changed().await?;
        let delivery = self
            .state
            .services
            .deliver_all(self.device.organization_id, self.device.id)
            .await?;
        let more = delivery.more;
        self.hand_over(delivery).await?;
        if more {
            self.deliver_until_done().await
        } else {
            Ok(())
        }
    }

    async fn deliver_new(&mut self, look_again: &mut Option<Instant>) -> Result<(), End> {
        match self.deliver_until_done().await {
            // Nothing was handed out: the commands are where they were, and the channel stays.
            Err(End::Close(1013, _)) => {
                *look_again = Some(Instant::now() + RETRY);
                Ok(())
            }
            other => other,
        }
    }

    async fn deliver_until_done(&mut self) -> Result<(), End> {
        loop {
            let delivery = self
                .state
                .services
                .deliver_new(self.device.organization_id, self.device.id)
                .await?;
            let more = delivery.more;
            self.hand_over(delivery).await?;
            if !more {
                return Ok(());
            }
        }
    }

    async fn hand_over(&mut self, delivery: Delivery) -> Result<(), End> {
        if !delivery.reconcile.is_empty() {
            let command_ids = delivery
                .reconcile
                .into_iter()
                .map(CommandId::uuid)
                .collect();
            self.send(&ServerFrame::Reconcile { command_ids }).await?;
        }
        for command in delivery.commands {
            self.send(&ServerFrame::Command(mapping::delivered(command)))
                .await?;
        }
        Ok(())
    }

    async fn signalled(&mut self, signal: Option<ChannelSignal>) -> Result<(), End> {
        match signal {
            Some(ChannelSignal::Cancel(id)) => {
                self.send(&ServerFrame::Cancel {
                    command_id: id.uuid(),
                })
                .await
            }
            Some(ChannelSignal::PoliciesChanged) => self.policies_changed().await,
            Some(ChannelSignal::Replaced) => Err(End::Close(
                close::TOO_SLOW,
                "replaced by a newer channel of this device",
            )),
            Some(ChannelSignal::EnrollmentChanged) => self.check_token().await,
            None => Err(End::Close(close::TOO_SLOW, "the agent does not keep up")),
        }
    }

    /// Tells the agent that its policies changed, and sends the commands that its applications need.
    async fn policies_changed(&mut self) -> Result<(), End> {
        let services = &self.state.services;
        services.see_to_applications(&self.device).await?;
        let policy_revision = services.policy_revision(&self.device).await?;
        self.send(&ServerFrame::PoliciesChanged { policy_revision })
            .await
    }

    async fn take_policy_results(&mut self, results: Vec<PolicyResult>) -> Result<(), End> {
        let reports = match policy_reports(results) {
            Ok(reports) => reports,
            Err(refused) => return self.bad_frame(&refused.to_string()).await,
        };
        let services = &self.state.services;
        services.report_policies(&self.device, reports).await?;
        Ok(())
    }

    async fn heard(&mut self, message: AggregatedMessage) -> Result<(), End> {
        let services = &self.state.services;
        services.device_seen(self.device.organization_id, self.device.id);
        self.heard_at = services.now();
        match message {
            AggregatedMessage::Text(text) => self.heard_text(&text).await,
            AggregatedMessage::Ping(payload) => {
                let sent = timeout(SEND_TIMEOUT, self.session.pong(&payload)).await;
                if matches!(sent, Ok(Ok(()))) {
                    Ok(())
                } else {
                    Err(End::Broken)
                }
            }
            AggregatedMessage::Pong(_) => Ok(()),
            AggregatedMessage::Binary(_) => self.bad_frame("binary frames mean nothing here").await,
            AggregatedMessage::Close(reason) => {
                let orderly = reason.is_some_and(|reason| {
                    matches!(reason.code, CloseCode::Normal | CloseCode::Away)
                });
                Err(if orderly { End::Goodbye } else { End::Broken })
            }
        }
    }

    async fn heard_text(&mut self, text: &str) -> Result<(), End> {
        match serde_json::from_str::<AgentFrame>(text) {
            Ok(AgentFrame::Heartbeat {}) => Ok(()),
            Ok(AgentFrame::CommandStatus(result)) => {
                match take_result(&self.state, &self.device, result).await {
                    Ok(ack) => self.send(&ServerFrame::CommandAck(ack)).await,
                    Err(_logged) => Err(End::Close(1013, "the database is away; try again")),
                }
            }
            Ok(AgentFrame::Inventory { system_info }) => self.take_inventory(system_info).await,
            Ok(AgentFrame::PolicyResults { results }) => self.take_policy_results(results).await,
            Err(error) => self.bad_frame(&error.to_string()).await,
        }
    }

    async fn take_inventory(&mut self, system_info: serde_json::Value) -> Result<(), End> {
        use mdm_service::devices::DeviceError;
        let report = DeviceReport {
            os_version: None,
            system_info: Some(system_info),
        };
        match self
            .state
            .services
            .report_device(&self.device, report)
            .await
        {
            Ok(()) => Ok(()),
            Err(DeviceError::Store(error)) => Err(error.into()),
            Err(refused) => self.bad_frame(&refused.to_string()).await,
        }
    }

    async fn bad_frame(&mut self, detail: &str) -> Result<(), End> {
        self.bad_frames += 1;
        if self.bad_frames > BAD_FRAMES_AT_MOST {
            return Err(End::Close(
                close::BAD_MESSAGE,
                "too many frames that could not be understood",
            ));
        }
        self.send(&ServerFrame::Error {
            code: "BAD_FRAME".to_owned(),
            detail: detail.to_owned(),
        })
        .await
    }

    async fn send(&mut self, frame: &ServerFrame) -> Result<(), End> {
        let text = serde_json::to_string(frame).map_err(|_unwritable| End::Broken)?;
        match timeout(SEND_TIMEOUT, self.session.text(text)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(End::Broken),
        }
    }
}
