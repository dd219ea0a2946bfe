//! An endpoint on Supabase as a host, over HTTP: the functions by way of the Data API, or the Edge Function in front of them.
//! What an operator does, and what only he sees, goes past it, straight to the database.

use std::collections::BTreeSet;

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use reqwest::{Client, Method, RequestBuilder};
use serde_json::{Value, json};
use syncline_core::transport::Route;
use syncline_protocol::Timestamp;
use tokio::runtime::Runtime;

use super::host::{Ability, Answered, Dialect, Host, HostError, Http, Sent};
use super::postgres::PostgresHost;

/// How long a token is good, in seconds.
const TOKEN_SECONDS: i64 = 600;

/// Where the endpoint is.
#[derive(Debug, Clone)]
pub enum Place {
    /// A project's Data API, by the project's URL and its publishable key.
    Rpc {
        /// `/rest/v1/rpc/…` is below it.
        url: String,
        /// What the gateway wants to see.
        publishable_key: String,
    },
    /// An Edge Function, by the URL that `/v1/push` is below.
    Edge {
        /// As `http://127.0.0.1:1/functions/v1/sync-operations`.
        url: String,
    },
}

/// An endpoint on Supabase.
pub struct HttpHost {
    place: Place,
    /// Signs tokens: the project's JWT secret.
    secret: EncodingKey,
    operator: PostgresHost,
    client: Client,
    runtime: Runtime,
    now: fn() -> Timestamp,
    /// When it began: a project sees a scope once.
    began: i64,
}

impl HttpHost {
    /// The endpoint at `place`, over the database that `operator` is connected to. `now` gives the time, for tokens.
    ///
    /// # Errors
    /// The system's, if it gives no thread.
    pub fn new(place: Place, secret: &str, operator: PostgresHost, now: fn() -> Timestamp) -> Result<Self, HostError> {
        // Another part of the program may have been first.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = Client::builder().no_proxy().build().map_err(HostError::new)?;
        let runtime = Runtime::new().map_err(HostError::new)?;
        Ok(Self {
            place,
            secret: EncodingKey::from_secret(secret.as_bytes()),
            operator,
            client,
            runtime,
            now,
            began: now().millis(),
        })
    }

    fn token(&self, sent: &Sent<'_>) -> Result<String, HostError> {
        let claims = json!({
            "sub": sent.claims.user_id, "scope": sent.claims.scopes, "role": "authenticated", "aud": "authenticated",
            "exp": (self.now)().millis() / 1000 + TOKEN_SECONDS,
        });
        jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &self.secret).map_err(HostError::new)
    }

    fn request(&self, sent: &Sent<'_>) -> Result<RequestBuilder, HostError> {
        let usual = Http::default();
        let how = sent.http.unwrap_or(&usual);
        let url = match (&self.place, sent.route) {
            (Place::Rpc { url, .. }, Route::Push) => format!("{url}/rest/v1/rpc/syncline_push"),
            (Place::Rpc { url, .. }, Route::Pull) => format!("{url}/rest/v1/rpc/syncline_pull"),
            (Place::Edge { url }, route) => {
                let path = if route == Route::Push { "/v1/push" } else { "/v1/pull" };
                format!("{url}{}", how.path.as_deref().unwrap_or(path))
            }
        };
        let method = how.method.as_deref().unwrap_or("POST").parse::<Method>().map_err(HostError::new)?;
        let mut headers = vec![
            ("content-type".to_owned(), "application/json".to_owned()),
            ("authorization".to_owned(), format!("Bearer {}", self.token(sent)?)),
        ];
        if let Place::Rpc { publishable_key, .. } = &self.place {
            headers.push(("apikey".to_owned(), publishable_key.clone()));
            headers.push(("content-profile".to_owned(), "public".to_owned()));
        }
        if let Some(encoding) = how.encoding() {
            headers.push(("content-encoding".to_owned(), encoding.to_owned()));
        }
        let body = how.packed(sent.body)?;
        headers.retain(|(name, _)| !how.headers.contains_key(name));
        let given = how.headers.iter().filter_map(|(name, value)| Some((name.clone(), value.clone()?)));
        let request = self.client.request(method, url);
        Ok(headers
            .into_iter()
            .chain(given)
            .fold(request, |request, (name, value)| request.header(name, value))
            .body(body))
    }
}

impl Host for HttpHost {
    fn name(&self) -> &str {
        match self.place {
            Place::Rpc { .. } => "rpc",
            Place::Edge { .. } => "edge",
        }
    }

    fn abilities(&self) -> BTreeSet<Ability> {
        use Ability::{Http, Ledger, RenewEpochs, Schemas, Types};
        let mut all = BTreeSet::from([Types, Schemas, Ledger, RenewEpochs]);
        // The Data API's own HTTP is not ours.
        if matches!(self.place, Place::Edge { .. }) {
            all.insert(Http);
        }
        all
    }

    fn dialect(&self) -> Dialect {
        match self.place {
            Place::Rpc { .. } => Dialect::Rpc,
            Place::Edge { .. } => Dialect::Syncline,
        }
    }

    fn scope(&self, number: u64) -> String {
        format!("vector-{}-{}-{number}", self.name(), self.began)
    }

    fn reset(&mut self, types: &Value) -> Result<(), HostError> {
        self.operator.reset(types)
    }

    fn set_clock(&mut self, _: Timestamp) -> Result<Timestamp, HostError> {
        Ok((self.now)())
    }

    fn handle(&mut self, sent: Sent<'_>) -> Result<Answered, HostError> {
        let request = self.request(&sent)?;
        self.runtime.block_on(async {
            let response = request.send().await.map_err(HostError::new)?;
            let headers = response.headers().iter();
            let headers =
                headers.filter_map(|(name, value)| Some((name.as_str().to_owned(), value.to_str().ok()?.to_owned())));
            let (status, headers) = (response.status().as_u16(), headers.collect());
            let body = response.bytes().await.map_err(HostError::new)?.to_vec();
            Ok(Answered { status, headers, body })
        })
    }

    fn maintain(&mut self, scope: &str) -> Result<(), HostError> {
        self.operator.maintain(scope)
    }

    fn renew_epochs(&mut self, scope: &str) -> Result<(), HostError> {
        self.operator.renew_epochs(scope)
    }

    fn ledger(&mut self, scope: &str) -> Result<Vec<Value>, HostError> {
        self.operator.ledger(scope)
    }
}
