//! A verifier with known keys, and tokens whose signature is good whatever they say.

use std::future::{Future, ready};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, crypto};
use syncline_protocol::Timestamp;
use syncline_server::Claims;
use syncline_server::auth::{AuthConfig, AuthError, FetchError, JwksLocation, JwksSource, Keys, Secret, Verifier};

const SECRET: &str = "a secret that only the fuzzing uses";
/// The audience that tokens are for.
pub const AUDIENCE: &str = "syncline";
/// When tokens are verified, in seconds.
pub const NOW: i64 = 1_777_636_800;

/// Verifies an `Authorization` header with the shared secret.
pub fn verify(header: &[u8]) -> Result<Claims, AuthError> {
    let verifier = Verifier::new(&config(Keys::Hs256 { secret: Secret::new(SECRET) })).expect("a good configuration");
    finish(verifier.verify_header(Some(header), Timestamp::from_millis(NOW * 1000)))
}

/// Verifies an ES256 token, which nobody has signed, with this key set.
pub fn verify_with_keys(key_set: &str) -> Result<Claims, AuthError> {
    struct Given(String);
    impl JwksSource for Given {
        fn fetch(&self) -> Pin<Box<dyn Future<Output = Result<String, FetchError>> + Send + '_>> {
            Box::pin(ready(Ok(self.0.clone())))
        }
    }
    let token = [br#"{"alg":"ES256","kid":"k1"}"#.as_slice(), b"{}", &[1; 64]]
        .map(|part| URL_SAFE_NO_PAD.encode(part))
        .join(".");
    let jwks = JwksLocation::File("keys.json".into());
    let verifier = Verifier::with_source(&config(Keys::Es256 { jwks }), Box::new(Given(key_set.to_owned())))
        .expect("a good configuration");
    finish(verifier.verify(&token, Timestamp::from_millis(NOW * 1000)))
}

/// A token of this header and these claims, whatever they are, signed with the shared secret.
pub fn signed(header: &[u8], claims: &[u8]) -> String {
    let message = [header, claims].map(|part| URL_SAFE_NO_PAD.encode(part)).join(".");
    let key = EncodingKey::from_secret(SECRET.as_bytes());
    let signature = crypto::sign(message.as_bytes(), &key, Algorithm::HS256).expect("HMAC signs anything");
    format!("{message}.{signature}")
}

fn config(keys: Keys) -> AuthConfig {
    AuthConfig { keys, audience: vec![AUDIENCE.to_owned()], issuer: None, scope_claim: "/app/teams".to_owned() }
}

/// Nothing here waits: no key is fetched from afar.
fn finish<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => panic!("nothing here waits"),
    }
}
