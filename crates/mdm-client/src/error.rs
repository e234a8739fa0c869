//! What can go wrong between client and server.

use mdm_proto::problem::Problem;

/// A call that gave no good answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The server refused and said why.
    #[error("{}: {} ({})", .0.title, .0.detail, .0.code)]
    Problem(Box<Problem>),
    /// The server could not be reached, or the connection broke.
    #[error("the server cannot be reached: {0}")]
    Transport(String),
    /// The answer is not one that this client understands.
    #[error("the server answered {status} with something that is not its API: {body}")]
    Unexpected {
        /// The HTTP status.
        status: u16,
        /// How the body begins.
        body: String,
    },
}

impl ClientError {
    /// The HTTP status of the answer, if there was one.
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Problem(problem) => Some(problem.status),
            Self::Unexpected { status, .. } => Some(*status),
            Self::Transport(_) => None,
        }
    }

    /// The problem's stable code, if the server gave one.
    pub fn code(&self) -> Option<&str> {
        match self {
            Self::Problem(problem) => Some(&problem.code),
            Self::Transport(_) | Self::Unexpected { .. } => None,
        }
    }

    /// Whether the same call may succeed later without being changed.
    pub fn is_temporary(&self) -> bool {
        self.status()
            .is_none_or(|status| status == 429 || status >= 500)
    }
}

impl From<reqwest::Error> for ClientError {
    fn from(error: reqwest::Error) -> Self {
        Self::Transport(chain(&error))
    }
}

/// The error with its causes: reqwest's own text hides them.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        cause = inner.source();
    }
    text
}

/// A package that did not come over whole.
#[derive(Debug, thiserror::Error)]
pub enum TransferError {
    /// The call failed.
    #[error(transparent)]
    Call(#[from] ClientError),
    /// The package could not be read or written on this side.
    #[error("the package cannot be read or written here: {0}")]
    File(#[from] std::io::Error),
    /// What came is not what was sent.
    #[error("the package was damaged on its way: its SHA-256 is {actual} instead of {expected}")]
    Damaged {
        /// The SHA-256 that it should have, in hexadecimal.
        expected: String,
        /// The one that it has.
        actual: String,
    },
}
