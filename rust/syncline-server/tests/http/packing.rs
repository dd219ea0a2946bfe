use std::io::{Read as _, Write as _};

use serde_json::json;
use syncline_server::LimitsConfig;

use crate::served::{Served, pull_body};

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::bulk::compress(bytes, 3).unwrap()
}

#[tokio::test]
async fn gzip_and_zstd_bodies_are_read() {
    let served = Served::start().await;
    let body = pull_body().to_string();
    for (encoding, bytes) in [
        ("gzip", gzip(body.as_bytes())),
        ("zstd", zstd(body.as_bytes())),
        ("ZSTD", zstd(body.as_bytes())),
        ("identity", body.clone().into_bytes()),
    ] {
        let request = served.post("/v1/pull").header("content-encoding", encoding).body(bytes);
        assert_eq!(served.read("/v1/pull", request).await.status, 200, "{encoding}");
    }
}

#[tokio::test]
async fn answers_are_packed_as_asked() {
    let served = Served::start().await;
    let plain = served.send("/v1/pull", &pull_body()).await.bytes;
    for encoding in ["gzip", "zstd"] {
        let request = served.post("/v1/pull").header("accept-encoding", encoding).body(pull_body().to_string());
        let answer = served.read("/v1/pull", request).await;
        assert_eq!(answer.header("content-encoding"), encoding);
        let inflated = match encoding {
            "gzip" => {
                let mut text = Vec::new();
                flate2::read::GzDecoder::new(answer.bytes.as_slice()).read_to_end(&mut text).unwrap();
                text
            }
            _ => zstd::stream::decode_all(answer.bytes.as_slice()).unwrap(),
        };
        assert_eq!(inflated, plain);
    }
}

#[tokio::test]
async fn what_is_not_json_or_packed_otherwise_is_refused() {
    let served = Served::start().await;
    let body = pull_body().to_string();
    for (header, value) in
        [("content-encoding", "br"), ("content-encoding", "gzip, gzip"), ("content-type", "text/plain")]
    {
        let mut request = served.post("/v1/pull").body(body.clone()).build().unwrap();
        request.headers_mut().insert(header, value.parse().unwrap());
        let request = reqwest::RequestBuilder::from_parts(served.client.clone(), request);
        let answer = served.read("/v1/pull", request).await;
        assert_eq!((answer.status, answer.code().as_str()), (415, "unsupported_media"), "{value}");
        assert_eq!(answer.json()["field"], header);
    }
}

#[tokio::test]
async fn a_body_that_does_not_unpack_is_invalid() {
    let served = Served::start().await;
    let body = pull_body().to_string();
    let whole = gzip(body.as_bytes());
    for (encoding, bytes) in [
        ("gzip", body.clone().into_bytes()),
        ("zstd", body.clone().into_bytes()),
        ("gzip", whole[..whole.len() - 9].to_vec()),
        ("zstd", gzip(body.as_bytes())),
        ("zstd", wide_window()),
    ] {
        let request = served.post("/v1/pull").header("content-encoding", encoding).body(bytes);
        let answer = served.read("/v1/pull", request).await;
        assert_eq!((answer.status, answer.code().as_str()), (400, "invalid_request"), "{encoding}");
    }
}

/// A small frame that asks its reader for a window of 128 MiB.
fn wide_window() -> Vec<u8> {
    let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
    encoder.window_log(27).unwrap();
    encoder.include_contentsize(false).unwrap();
    encoder.write_all(&vec![b' '; 1 << 20]).unwrap();
    encoder.finish().unwrap()
}

#[tokio::test]
async fn bombs_and_large_bodies_are_refused_with_the_limits() {
    let served = Served::start().await;
    let nine_mib = vec![b' '; 9 * 1024 * 1024];
    let mut noise = 1u64;
    let incompressible: Vec<u8> = std::iter::repeat_with(|| {
        noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (noise >> 56) as u8
    })
    .take(1024 * 1024 + 100)
    .collect();
    for (encoding, bytes) in [
        ("gzip", gzip(&nine_mib)),
        ("zstd", zstd(&nine_mib)),
        ("gzip", [gzip(&nine_mib[..5 << 20]), gzip(&nine_mib[..5 << 20])].concat()),
        ("gzip", incompressible.clone()),
        ("zstd", incompressible),
        ("identity", nine_mib),
    ] {
        let request = served.post("/v1/push").header("content-encoding", encoding).body(bytes);
        let answer = served.read("/v1/push", request).await;
        assert_eq!((answer.status, answer.code().as_str()), (413, "body_too_large"), "{encoding}");
        assert_eq!(answer.json()["limits"], json!({"max_operations": 500, "max_bytes": 8_388_608}));
    }
}

#[tokio::test]
async fn limits_are_the_operators() {
    let mut limits = LimitsConfig::default();
    limits.request.max_bytes = 300;
    limits.max_compressed_bytes = 50;
    let served = Served::with(limits).await;
    assert_eq!(served.send("/v1/pull", &pull_body()).await.status, 200);
    let long = json!({"protocol": 1, "padding": "x".repeat(300)});
    assert_eq!(served.send("/v1/pull", &long).await.code(), "body_too_large");
    let packed = gzip(pull_body().to_string().as_bytes());
    let request = served.post("/v1/pull").header("content-encoding", "gzip").body(packed);
    assert_eq!(served.read("/v1/pull", request).await.code(), "body_too_large");
}
