//! Errors as they leave the API: problem details (RFC 9457). One mapping from the services'
//! errors; a failure of our own is logged here, once, and its body says nothing of the inside.

use actix_web::{
    HttpResponse, ResponseError,
    http::{Method, StatusCode, header},
};
use mdm_core::{Invalid, enrollment::SecretRefused};
use mdm_proto::problem::{FieldProblem, MEDIA_TYPE, Problem};
use mdm_service::{
    api_keys::ApiKeyError,
    applications::{ApplicationError, PackageError},
    auth::AuthError,
    commands::{CommandError, ReportError},
    context::Forbidden,
    devices::DeviceError,
    enrollment::EnrollmentError,
    groups::GroupError,
    idempotency::IdempotencyError,
    licenses::LicenseError,
    passwords::PasswordError,
    policies::PolicyError,
    socket_tickets::TicketError,
    throttle::Throttled,
    tokens::TokenError,
    users::UserError,
    webhooks::WebhookError,
};
use mdm_store::StoreError;

use crate::request_id;

/// An error on its way to the client.
#[derive(Debug)]
pub struct ApiError {
    status: StatusCode,
    code: &'static str,
    title: &'static str,
    detail: String,
    errors: Vec<FieldProblem>,
    retry_after: Option<u64>,
    allow: Option<Box<str>>,
}

impl ApiError {
    /// An error with this status, stable code, fixed title and particular detail.
    pub fn new(
        status: StatusCode,
        code: &'static str,
        title: &'static str,
        detail: impl Into<String>,
    ) -> Self {
        Self {
            status,
            code,
            title,
            detail: detail.into(),
            errors: Vec::new(),
            retry_after: None,
            allow: None,
        }
    }

    /// No good credentials.
    pub fn unauthorized(code: &'static str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, code, "Not authenticated", detail)
    }

    /// The caller may not.
    pub fn forbidden(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "FORBIDDEN", "Not permitted", detail)
    }

    /// There is no such thing.
    pub fn not_found(code: &'static str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, code, "Not found", detail)
    }

    /// The state of things does not allow it.
    pub fn conflict(code: &'static str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, code, "Conflict", detail)
    }

    /// These fields are not acceptable.
    pub fn invalid(errors: Vec<FieldProblem>) -> Self {
        let detail = errors
            .iter()
            .map(|error| {
                if error.pointer.is_empty() {
                    error.detail.clone()
                } else {
                    format!("{}: {}", error.pointer, error.detail)
                }
            })
            .collect::<Vec<_>>()
            .join("; ");
        Self {
            errors,
            ..Self::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                "INVALID",
                "Invalid input",
                detail,
            )
        }
    }

    /// This field is not acceptable.
    pub fn invalid_field(
        pointer: impl Into<String>,
        code: &str,
        detail: impl Into<String>,
    ) -> Self {
        Self::invalid(vec![FieldProblem {
            pointer: pointer.into(),
            code: code.to_owned(),
            detail: detail.into(),
        }])
    }

    /// The path takes other methods.
    pub fn method_not_allowed(method: &Method, allowed: &[&str]) -> Self {
        let allow = allowed.join(", ");
        let detail = format!("{method} is not for this path; it takes {allow}");
        let error = Self::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "METHOD_NOT_ALLOWED",
            "Method not allowed",
            detail,
        );
        Self {
            allow: Some(allow.into()),
            ..error
        }
    }

    /// The request cannot be understood.
    pub fn bad_request(code: &'static str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, "Bad request", detail)
    }

    /// The body is not of a kind that the route takes.
    pub fn unsupported_media_type(detail: impl Into<String>) -> Self {
        let code = "UNSUPPORTED_MEDIA_TYPE";
        Self::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            code,
            "Unsupported media type",
            detail,
        )
    }

    fn stale(detail: impl Into<String>) -> Self {
        Self::new(
            StatusCode::PRECONDITION_FAILED,
            "STALE",
            "Changed in the meantime",
            detail,
        )
    }

    fn unavailable() -> Self {
        let detail = "the database cannot be reached at the moment; try again";
        let error = Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "UNAVAILABLE",
            "Temporarily unavailable",
            detail,
        );
        Self {
            retry_after: Some(1),
            ..error
        }
    }

    fn busy() -> Self {
        let detail = "too many logins at once; try again";
        let error = Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "BUSY",
            "Temporarily unavailable",
            detail,
        );
        Self {
            retry_after: Some(5),
            ..error
        }
    }

    pub(crate) fn internal() -> Self {
        let detail = "the server failed; its log tells more under the request id";
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "INTERNAL",
            "Internal error",
            detail,
        )
    }

    /// The body, with the id of the request that is being answered.
    pub fn to_problem(&self) -> Problem {
        Problem {
            kind: format!(
                "urn:mobius-mdm:problem:{}",
                self.code.to_lowercase().replace('_', "-")
            ),
            title: self.title.to_owned(),
            status: self.status.as_u16(),
            detail: self.detail.clone(),
            code: self.code.to_owned(),
            request_id: request_id::current(),
            errors: self.errors.clone(),
            error: self.title.to_owned(),
        }
    }
}

impl std::fmt::Display for ApiError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}: {}", self.status.as_u16(), self.code, self.detail)
    }
}

impl ResponseError for ApiError {
    fn status_code(&self) -> StatusCode {
        self.status
    }

    fn error_response(&self) -> HttpResponse {
        let mut response = HttpResponse::build(self.status);
        response.content_type(MEDIA_TYPE);
        if let Some(seconds) = self.retry_after {
            response.insert_header((header::RETRY_AFTER, seconds.to_string()));
        }
        if let Some(allow) = &self.allow {
            response.insert_header((header::ALLOW, &**allow));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            response.insert_header((header::WWW_AUTHENTICATE, "Bearer"));
        }
        response.json_body(&self.to_problem())
    }
}

/// Writes a body without changing the content type that was set.
trait JsonBody {
    fn json_body(&mut self, body: &Problem) -> HttpResponse;
}

impl JsonBody for actix_web::HttpResponseBuilder {
    fn json_body(&mut self, body: &Problem) -> HttpResponse {
        self.body(serde_json::to_vec(body).unwrap_or_default())
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        if matches!(error, StoreError::ReservationLost) {
            return IdempotencyError::InProgress.into();
        }
        if error.is_unavailable() {
            tracing::warn!(request_id = %request_id::current(), %error, "the database is away");
            return Self::unavailable();
        }
        tracing::error!(request_id = %request_id::current(), %error, "the store failed");
        Self::internal()
    }
}

impl From<Invalid> for ApiError {
    fn from(invalid: Invalid) -> Self {
        Self::invalid_field(invalid.pointer, invalid.code, invalid.detail)
    }
}

impl From<Forbidden> for ApiError {
    fn from(forbidden: Forbidden) -> Self {
        Self::forbidden(forbidden.to_string())
    }
}

impl From<Throttled> for ApiError {
    fn from(throttled: Throttled) -> Self {
        let error = Self::new(
            StatusCode::TOO_MANY_REQUESTS,
            "TOO_MANY_ATTEMPTS",
            "Too many attempts",
            throttled.to_string(),
        );
        Self {
            retry_after: Some(throttled.retry_after_seconds),
            ..error
        }
    }
}

impl From<TokenError> for ApiError {
    fn from(error: TokenError) -> Self {
        let code = match error {
            TokenError::Invalid => "TOKEN_INVALID",
            TokenError::Expired => "TOKEN_EXPIRED",
            TokenError::TicketInvalid => "TICKET_INVALID",
            TokenError::SessionEnded => "SESSION_ENDED",
            TokenError::Unavailable => return Self::unavailable(),
        };
        Self::unauthorized(code, error.to_string())
    }
}

impl From<AuthError> for ApiError {
    fn from(error: AuthError) -> Self {
        match error {
            AuthError::WrongCredentials => {
                Self::unauthorized("WRONG_CREDENTIALS", error.to_string())
            }
            AuthError::TotpRequired => Self::unauthorized("TOTP_REQUIRED", error.to_string()),
            AuthError::WrongTotp => Self::unauthorized("WRONG_TOTP", error.to_string()),
            AuthError::TotpEnabled => Self::conflict("TOTP_ENABLED", error.to_string()),
            AuthError::TotpNotBegun => Self::conflict("TOTP_NOT_BEGUN", error.to_string()),
            AuthError::InvalidRefreshToken => {
                Self::unauthorized("REFRESH_TOKEN_INVALID", error.to_string())
            }
            AuthError::RefreshTokenReused => {
                Self::unauthorized("REFRESH_TOKEN_REUSED", error.to_string())
            }
            // A key or a device is known, but has no session to speak of.
            AuthError::NotSignedIn => Self::forbidden(error.to_string()),
            AuthError::NoSuchSession => Self::not_found("SESSION_NOT_FOUND", error.to_string()),
            AuthError::Throttled(throttled) => throttled.into(),
            AuthError::Invalid(invalid) => invalid.into(),
            AuthError::Store(error) => error.into(),
            AuthError::Password(PasswordError::Busy) => Self::busy(),
            AuthError::Password(_) | AuthError::Key(_) | AuthError::Sealing(_) => {
                tracing::error!(request_id = %request_id::current(), %error, "signing in failed");
                Self::internal()
            }
        }
    }
}

impl From<EnrollmentError> for ApiError {
    fn from(error: EnrollmentError) -> Self {
        match error {
            EnrollmentError::Forbidden(forbidden) => forbidden.into(),
            EnrollmentError::Invalid(invalid) => invalid.into(),
            EnrollmentError::NotFound => {
                Self::not_found("ENROLLMENT_SECRET_NOT_FOUND", error.to_string())
            }
            EnrollmentError::Store(error) => error.into(),
        }
    }
}

impl From<DeviceError> for ApiError {
    fn from(error: DeviceError) -> Self {
        match error {
            DeviceError::Forbidden(forbidden) => forbidden.into(),
            DeviceError::Invalid(invalid) => invalid.into(),
            DeviceError::NotFound => Self::not_found("DEVICE_NOT_FOUND", error.to_string()),
            DeviceError::AlreadyEnrolled => {
                Self::conflict("DEVICE_ALREADY_ENROLLED", error.to_string())
            }
            DeviceError::Unenrolled => Self::conflict("DEVICE_UNENROLLED", error.to_string()),
            DeviceError::SecretRefused(refused) => {
                let code = match refused {
                    SecretRefused::Unknown => "ENROLLMENT_SECRET_UNKNOWN",
                    SecretRefused::Revoked => "ENROLLMENT_SECRET_REVOKED",
                    SecretRefused::Expired => "ENROLLMENT_SECRET_EXPIRED",
                    SecretRefused::UsedUp => "ENROLLMENT_SECRET_USED_UP",
                };
                Self::new(
                    StatusCode::FORBIDDEN,
                    code,
                    "Not permitted",
                    error.to_string(),
                )
            }
            DeviceError::SecretMissing => {
                Self::unauthorized("ENROLLMENT_SECRET_MISSING", error.to_string())
            }
            DeviceError::Stale => Self::stale(error.to_string()),
            DeviceError::LicenseLimit => Self::conflict("LICENSE_LIMIT_REACHED", error.to_string()),
            DeviceError::LicenseExpired => Self::conflict("LICENSE_EXPIRED", error.to_string()),
            DeviceError::Throttled(throttled) => throttled.into(),
            DeviceError::Store(error) => error.into(),
        }
    }
}

impl From<CommandError> for ApiError {
    fn from(error: CommandError) -> Self {
        match error {
            CommandError::Forbidden(forbidden) => forbidden.into(),
            CommandError::Invalid(invalid) => invalid.into(),
            CommandError::Device(error) => error.into(),
            CommandError::NotFound => Self::not_found("COMMAND_NOT_FOUND", error.to_string()),
            CommandError::BatchNotFound => {
                Self::not_found("COMMAND_BATCH_NOT_FOUND", error.to_string())
            }
            CommandError::IdempotencyMismatch => Self::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                "IDEMPOTENCY_KEY_REUSED",
                "Invalid input",
                error.to_string(),
            ),
            CommandError::TooManyOpen => {
                Self::conflict("TOO_MANY_OPEN_COMMANDS", error.to_string())
            }
            CommandError::Transition(_) => Self::conflict("COMMAND_ENDED", error.to_string()),
            CommandError::HandedOver => Self::conflict("COMMAND_HANDED_OVER", error.to_string()),
            CommandError::NotOnline(_) => Self::conflict("DEVICE_NOT_ONLINE", error.to_string()),
            CommandError::Store(error) => error.into(),
        }
    }
}

impl From<ReportError> for ApiError {
    fn from(error: ReportError) -> Self {
        let code = report_code(&error);
        match error {
            ReportError::NotFound => Self::not_found(code, error.to_string()),
            ReportError::Ended(_) | ReportError::Backwards(_) => {
                Self::conflict(code, error.to_string())
            }
            ReportError::UnknownStatus => Self::invalid_field("/status", code, error.to_string()),
            ReportError::Unstorable => Self::invalid_field("/result", code, error.to_string()),
            ReportError::Store(error) => error.into(),
        }
    }
}

/// The stable code of a report that was not taken over.
pub const fn report_code(error: &ReportError) -> &'static str {
    match error {
        ReportError::NotFound => "COMMAND_NOT_FOUND",
        ReportError::Ended(_) => "COMMAND_ENDED",
        ReportError::Backwards(_) => "INVALID_TRANSITION",
        ReportError::UnknownStatus => "UNKNOWN_STATUS",
        ReportError::Unstorable => "CONTROL_CHARACTER",
        ReportError::Store(_) => "UNAVAILABLE",
    }
}

impl From<GroupError> for ApiError {
    fn from(error: GroupError) -> Self {
        let text = error.to_string();
        match error {
            GroupError::Forbidden(forbidden) => forbidden.into(),
            GroupError::Invalid(invalid) => invalid.into(),
            GroupError::NotFound => Self::not_found("DEVICE_GROUP_NOT_FOUND", text),
            GroupError::Device(error) => error.into(),
            GroupError::AlreadyMember => Self::conflict("ALREADY_MEMBER", text),
            GroupError::NotMember => Self::not_found("NOT_A_MEMBER", text),
            GroupError::MemberByFilter => Self::conflict("MEMBER_BY_FILTER", text),
            GroupError::Stale => Self::stale(text),
            GroupError::Store(error) => error.into(),
        }
    }
}

impl From<PolicyError> for ApiError {
    fn from(error: PolicyError) -> Self {
        let text = error.to_string();
        match error {
            PolicyError::Forbidden(forbidden) => forbidden.into(),
            PolicyError::Invalid(invalid) => Self::invalid(
                invalid
                    .into_iter()
                    .map(|invalid| FieldProblem {
                        pointer: invalid.pointer,
                        code: invalid.code.to_owned(),
                        detail: invalid.detail,
                    })
                    .collect(),
            ),
            PolicyError::NotFound => Self::not_found("POLICY_NOT_FOUND", text),
            PolicyError::Device(error) => error.into(),
            PolicyError::Group(error) => error.into(),
            PolicyError::AlreadyAssigned => Self::conflict("ALREADY_ASSIGNED", text),
            PolicyError::NotAssigned => Self::not_found("NOT_ASSIGNED", text),
            PolicyError::Stale => Self::stale(text),
            PolicyError::Store(error) => error.into(),
        }
    }
}

impl From<ApplicationError> for ApiError {
    fn from(error: ApplicationError) -> Self {
        let text = error.to_string();
        match error {
            ApplicationError::Forbidden(forbidden) => forbidden.into(),
            ApplicationError::Invalid(invalid) => invalid.into(),
            ApplicationError::NotFound => Self::not_found("APPLICATION_NOT_FOUND", text),
            ApplicationError::Device(error) => error.into(),
            ApplicationError::Group(error) => error.into(),
            ApplicationError::Assigned => Self::conflict("APPLICATION_ASSIGNED", text),
            ApplicationError::AlreadyAssigned => Self::conflict("ALREADY_ASSIGNED", text),
            ApplicationError::NotAssigned => Self::not_found("NOT_ASSIGNED", text),
            ApplicationError::Stale => Self::stale(text),
            ApplicationError::Package(error) => error.into(),
            ApplicationError::Store(error) => error.into(),
        }
    }
}

impl From<PackageError> for ApiError {
    fn from(error: PackageError) -> Self {
        let text = error.to_string();
        match error {
            PackageError::TooLarge(_) => Self::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                "PACKAGE_TOO_LARGE",
                "Too large",
                text,
            ),
            PackageError::Empty => Self::invalid_field("/package", "EMPTY", text),
            PackageError::WrongChecksum { .. } => {
                Self::invalid_field("/checksum", "WRONG_CHECKSUM", text)
            }
            PackageError::Storage(error) => {
                tracing::error!(request_id = %request_id::current(), %error, "the storage of packages failed");
                let error = Self::new(
                    StatusCode::SERVICE_UNAVAILABLE,
                    "STORAGE_UNAVAILABLE",
                    "Temporarily unavailable",
                    "the storage of packages does not work at the moment; try again",
                );
                Self {
                    retry_after: Some(5),
                    ..error
                }
            }
        }
    }
}

impl From<LicenseError> for ApiError {
    fn from(error: LicenseError) -> Self {
        match error {
            LicenseError::Forbidden(forbidden) => forbidden.into(),
            LicenseError::Invalid(invalid) => invalid.into(),
            LicenseError::Store(error) => error.into(),
        }
    }
}

impl From<UserError> for ApiError {
    fn from(error: UserError) -> Self {
        let text = error.to_string();
        match error {
            UserError::Forbidden(forbidden) => forbidden.into(),
            UserError::Invalid(invalid) => invalid.into(),
            UserError::NotFound => Self::not_found("USER_NOT_FOUND", text),
            UserError::EmailTaken => Self::conflict("EMAIL_TAKEN", text),
            UserError::LastAdministrator => Self::conflict("LAST_ADMINISTRATOR", text),
            UserError::Stale => Self::stale(text),
            UserError::Password(PasswordError::Busy) => Self::busy(),
            UserError::Password(error) => {
                tracing::error!(request_id = %request_id::current(), %error, "a password cannot be hashed");
                Self::internal()
            }
            UserError::Store(error) => error.into(),
        }
    }
}

impl From<WebhookError> for ApiError {
    fn from(error: WebhookError) -> Self {
        let text = error.to_string();
        match error {
            WebhookError::Forbidden(forbidden) => forbidden.into(),
            WebhookError::Invalid(invalid) => invalid.into(),
            WebhookError::NotFound => Self::not_found("WEBHOOK_NOT_FOUND", text),
            WebhookError::DeliveryNotFound => Self::not_found("DELIVERY_NOT_FOUND", text),
            WebhookError::EventGone => Self::new(StatusCode::GONE, "EVENT_GONE", "Gone", text),
            WebhookError::Stale => Self::stale(text),
            WebhookError::Sealing(error) => {
                tracing::error!(request_id = %request_id::current(), %error, "a webhook's secret cannot be opened");
                Self::internal()
            }
            WebhookError::Store(error) => error.into(),
        }
    }
}

impl From<TicketError> for ApiError {
    fn from(error: TicketError) -> Self {
        match error {
            TicketError::Forbidden(forbidden) => forbidden.into(),
            TicketError::Sealing(error) => {
                tracing::error!(request_id = %request_id::current(), %error, "a ticket cannot be sealed");
                Self::internal()
            }
            TicketError::Store(error) => error.into(),
        }
    }
}

impl From<ApiKeyError> for ApiError {
    fn from(error: ApiKeyError) -> Self {
        let text = error.to_string();
        match error {
            ApiKeyError::Forbidden(forbidden) => forbidden.into(),
            ApiKeyError::Invalid(invalid) => invalid.into(),
            ApiKeyError::NotFound => Self::not_found("API_KEY_NOT_FOUND", text),
            ApiKeyError::NotAUser => Self::forbidden(text),
            ApiKeyError::Store(error) => error.into(),
        }
    }
}

impl From<IdempotencyError> for ApiError {
    fn from(error: IdempotencyError) -> Self {
        let text = error.to_string();
        match error {
            IdempotencyError::Invalid(invalid) => invalid.into(),
            IdempotencyError::Mismatch => Self::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                "IDEMPOTENCY_KEY_REUSED",
                "Invalid input",
                text,
            ),
            IdempotencyError::InProgress => Self {
                retry_after: Some(1),
                ..Self::conflict("IDEMPOTENCY_IN_PROGRESS", text)
            },
            IdempotencyError::AnswerLost => Self::conflict("IDEMPOTENCY_ANSWER_LOST", text),
            IdempotencyError::Sealed(error) => {
                tracing::error!(request_id = %request_id::current(), %error, "a kept answer cannot be read");
                Self::internal()
            }
            IdempotencyError::Store(error) => error.into(),
        }
    }
}
