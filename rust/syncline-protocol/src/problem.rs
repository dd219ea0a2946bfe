use serde::{Deserialize, Serialize};

/// An answer that speaks of the request, not of operations: `application/problem+json` (RFC 9457) with a stable `code`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// What went wrong, as a word for programs. Unknown words are kept.
    pub code: String,
    /// The HTTP status.
    pub status: u16,
    /// The kind of problem, for people.
    pub title: String,
    /// What is wrong with this request; never a payload, a token or a query string.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// The member of the request that is wrong, as `operations[3].entity_type`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// `server_behind`: the server's epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<String>,
    /// `server_behind`: the mark that the server has for the device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mark: Option<u64>,
    /// `unsupported_protocol`: the versions that the endpoint speaks.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub supported: Vec<u32>,
    /// `body_too_large`, `too_many_operations`: what the endpoint takes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<crate::Limits>,
}

/// The codes of this protocol version, each with its HTTP status and what a client does about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProblemCode {
    /// The body is not JSON, or a member is missing or out of range.
    InvalidRequest,
    /// The body nests deeper than the endpoint reads.
    TooDeep,
    /// The body has more bytes than the endpoint takes.
    BodyTooLarge,
    /// The push has more operations than the endpoint takes.
    TooManyOperations,
    /// A content encoding other than identity, gzip and zstd, or a content type other than JSON.
    UnsupportedMedia,
    /// No such path.
    UnknownPath,
    /// The path takes another method.
    MethodNotAllowed,
    /// Another protocol version; `supported` lists those spoken.
    UnsupportedProtocol,
    /// No token, or one that does not verify.
    Unauthorized,
    /// The token is good, but does not allow this.
    Forbidden,
    /// The body's user is not the token's.
    WrongUser,
    /// The body's scope is not one of the token's.
    WrongScope,
    /// The device id belongs to another user.
    WrongDevice,
    /// Another copy of this device has written (spec §6, clone detection).
    DeviceForked,
    /// The server's history is not the one the client knows (spec §6); carries `epoch` and `mark`.
    ServerBehind,
    /// Too many requests.
    RateLimited,
    /// The endpoint is starting, stopping, full or otherwise unable for now.
    Unavailable,
    /// A defect of the endpoint.
    Internal,
}

/// What a client does about a problem (spec §2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProblemClass {
    /// The request will never be taken as it is: blame.
    Permanent,
    /// The same request may be taken later: the connection backs off.
    Transient,
    /// The credential is not good: `auth_required`.
    Auth,
    /// The batch is too large: send smaller ones.
    TooLarge,
    /// The code has a procedure of its own: `unsupported_protocol`, `device_forked`, `server_behind`.
    Procedure,
}

impl ProblemCode {
    /// Every code.
    pub const ALL: [Self; 18] = [
        Self::InvalidRequest,
        Self::TooDeep,
        Self::BodyTooLarge,
        Self::TooManyOperations,
        Self::UnsupportedMedia,
        Self::UnknownPath,
        Self::MethodNotAllowed,
        Self::UnsupportedProtocol,
        Self::Unauthorized,
        Self::Forbidden,
        Self::WrongUser,
        Self::WrongScope,
        Self::WrongDevice,
        Self::DeviceForked,
        Self::ServerBehind,
        Self::RateLimited,
        Self::Unavailable,
        Self::Internal,
    ];

    /// The word, the HTTP status, the title and the class.
    fn row(self) -> (&'static str, u16, &'static str, ProblemClass) {
        use ProblemClass::{Auth, Permanent, Procedure, TooLarge, Transient};
        match self {
            Self::InvalidRequest => ("invalid_request", 400, "The request is not valid", Permanent),
            Self::TooDeep => ("too_deep", 400, "The body is nested too deep", Permanent),
            Self::BodyTooLarge => ("body_too_large", 413, "The body is too large", TooLarge),
            Self::TooManyOperations => ("too_many_operations", 413, "The push has too many operations", TooLarge),
            Self::UnsupportedMedia => {
                ("unsupported_media", 415, "The body's type or encoding is not supported", Permanent)
            }
            Self::UnknownPath => ("unknown_path", 404, "There is no such path", Permanent),
            Self::MethodNotAllowed => ("method_not_allowed", 405, "The path takes another method", Permanent),
            Self::UnsupportedProtocol => {
                ("unsupported_protocol", 400, "The protocol version is not supported", Procedure)
            }
            Self::Unauthorized => ("unauthorized", 401, "The token is missing or not valid", Auth),
            Self::Forbidden => ("forbidden", 403, "The token does not allow this", Auth),
            Self::WrongUser => ("wrong_user", 403, "The file belongs to another user than the token", Auth),
            Self::WrongScope => ("wrong_scope", 403, "The token does not allow this scope", Auth),
            Self::WrongDevice => ("wrong_device", 403, "The device id belongs to another user", Auth),
            Self::DeviceForked => ("device_forked", 409, "Another copy of this device has written", Procedure),
            Self::ServerBehind => ("server_behind", 409, "The server's history is another one", Procedure),
            Self::RateLimited => ("rate_limited", 429, "Too many requests", Transient),
            Self::Unavailable => ("unavailable", 503, "The endpoint cannot answer for now", Transient),
            // A 5xx without a cause named: spec §2 makes it blame, and blame is checked before anything is charged.
            Self::Internal => ("internal", 500, "The endpoint failed", Permanent),
        }
    }

    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        self.row().0
    }

    /// The HTTP status it is answered with.
    pub fn status(self) -> u16 {
        self.row().1
    }

    /// What a client does about it.
    pub fn class(self) -> ProblemClass {
        self.row().3
    }

    /// The code for a word of the wire.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|code| code.as_str() == word)
    }
}

impl Problem {
    /// A problem with this code and nothing more.
    pub fn new(code: ProblemCode) -> Self {
        let (word, status, title, _) = code.row();
        Self {
            code: word.to_owned(),
            status,
            title: title.to_owned(),
            detail: None,
            field: None,
            epoch: None,
            mark: None,
            supported: Vec::new(),
            limits: None,
        }
    }

    /// With a sentence about this request.
    #[must_use]
    pub fn detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    /// With the member of the request that is wrong.
    #[must_use]
    pub fn field(mut self, field: impl Into<String>) -> Self {
        self.field = Some(field.into());
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_a_word_of_its_own() {
        for code in ProblemCode::ALL {
            assert_eq!(ProblemCode::parse(code.as_str()), Some(code));
            assert!((400..600).contains(&code.status()));
        }
        assert_eq!(ProblemCode::parse("teapot"), None);
    }

    #[test]
    fn members_at_their_default_are_left_out() {
        let text = serde_json::to_string(&Problem::new(ProblemCode::Internal)).unwrap();
        assert_eq!(text, r#"{"code":"internal","status":500,"title":"The endpoint failed"}"#);
    }
}
