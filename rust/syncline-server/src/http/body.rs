use std::io::{self, Read};

use axum::body::Body;
use axum::http::{HeaderMap, header};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use syncline_protocol::{Problem, ProblemCode};

use crate::config::LimitsConfig;
use crate::endpoint::too_large;

/// How a body is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Encoding {
    Identity,
    Gzip,
    Zstd,
}

/// A zstd frame may ask for a window of 2²³ bytes: as much as a whole inflated body.
const ZSTD_WINDOW_LOG: u32 = 23;

impl Encoding {
    /// Reads `content-type` and `content-encoding`.
    pub(super) fn of(headers: &HeaderMap) -> Result<Self, Box<Problem>> {
        let text = |name| headers.get(name).map(|value| value.to_str().unwrap_or("?").trim().to_ascii_lowercase());
        let media_type = text(header::CONTENT_TYPE).unwrap_or_else(|| "application/json".into());
        if media_type.split(';').next().map(str::trim_end) != Some("application/json") {
            return Err(Problem::new(ProblemCode::UnsupportedMedia).field("content-type").into());
        }
        match text(header::CONTENT_ENCODING).as_deref() {
            None | Some("" | "identity") => Ok(Self::Identity),
            Some("gzip" | "x-gzip") => Ok(Self::Gzip),
            Some("zstd") => Ok(Self::Zstd),
            Some(_) => Err(Problem::new(ProblemCode::UnsupportedMedia).field("content-encoding").into()),
        }
    }

    fn limit(self, limits: &LimitsConfig) -> u64 {
        match self {
            Self::Identity => limits.request.max_bytes,
            Self::Gzip | Self::Zstd => limits.max_compressed_bytes,
        }
    }

    /// Reads a body as it arrives, up to the limit for this encoding.
    pub(super) async fn read(self, body: Body, limits: &LimitsConfig) -> Result<Vec<u8>, Box<Problem>> {
        let limit = usize::try_from(self.limit(limits)).unwrap_or(usize::MAX);
        match Limited::new(body, limit).collect().await {
            Ok(collected) => Ok(collected.to_bytes().into()),
            Err(error) if error.is::<LengthLimitError>() => Err(too_large(ProblemCode::BodyTooLarge, &limits.request)),
            Err(_) => Err(Problem::new(ProblemCode::Unavailable).detail("the body broke off").into()),
        }
    }

    /// Unpacks a body, and stops as soon as it is over the limit: a bomb costs no more than the limit.
    pub(super) fn inflate(self, body: Vec<u8>, limits: &LimitsConfig) -> Result<Vec<u8>, Box<Problem>> {
        let max = limits.request.max_bytes;
        let read = |reader: &mut dyn Read| {
            let mut inflated = Vec::new();
            reader.take(max.saturating_add(1)).read_to_end(&mut inflated).map(|_| inflated)
        };
        let inflated: io::Result<Vec<u8>> = match self {
            Self::Identity => Ok(body),
            Self::Gzip => read(&mut flate2::read::MultiGzDecoder::new(body.as_slice())),
            Self::Zstd => zstd::stream::read::Decoder::with_buffer(body.as_slice()).and_then(|mut decoder| {
                decoder.window_log_max(ZSTD_WINDOW_LOG)?;
                read(&mut decoder)
            }),
        };
        match inflated {
            Ok(inflated) if inflated.len() as u64 > max => Err(too_large(ProblemCode::BodyTooLarge, &limits.request)),
            Ok(inflated) => Ok(inflated),
            Err(_) => Err(Problem::new(ProblemCode::InvalidRequest)
                .detail("the body is not what its content-encoding says")
                .into()),
        }
    }
}
