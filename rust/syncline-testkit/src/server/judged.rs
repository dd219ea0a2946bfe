//! What the endpoint does, judged by the model; and what it did when it died, or its disk failed.

use std::sync::Arc;

use serde_json::Value;
use syncline_core::transport::{Request, Route};
use syncline_protocol::Timestamp;
use syncline_server::endpoint::types::Types;
use syncline_server::{Answer, Embedded, SqliteStore, contract};

use super::{Exchange, Inner, Place};
use crate::model::{ServerState, Token};
use crate::server_state::read_state;

impl Inner {
    pub(super) fn reopen(&mut self) {
        self.endpoint = self.place.open(&self.types, self.limits);
        self.file = self.place.look();
    }

    /// Raised by every write to the file, where that is known.
    pub(super) fn changes(&self) -> u64 {
        match &self.place {
            // A file of its own each time it was restored: their counts do not go on from each other.
            Place::Disk { disk, name, .. } => disk.changes(name) + (self.restores << 40) + (self.deaths << 32),
            Place::Folder(_) => 0,
        }
    }

    /// What the file holds; read only if it was written to since.
    pub(super) fn state(&mut self) -> rusqlite::Result<Arc<ServerState>> {
        let changes = self.changes();
        if let Some((_, state)) = self.read.as_ref().filter(|(seen, _)| *seen == changes && changes > 0) {
            return Ok(Arc::clone(state));
        }
        let state = Arc::new(read_state(&self.file)?);
        self.read = Some((changes, Arc::clone(&state)));
        Ok(state)
    }

    /// Calls of its disk that failed so far.
    pub(super) fn disk_failures(&self) -> u64 {
        match &self.place {
            Place::Disk { disk, .. } => disk.counts().failures.iter().sum::<u64>() + disk.counts().full,
            Place::Folder(_) => 0,
        }
    }

    /// The disk kept a request from being answered, and so nothing of it may have been decided.
    pub(super) fn refuse(&mut self, request: &Request, now: Timestamp) {
        let stored = match self.state() {
            Ok(stored) => stored,
            Err(error) => return self.violations.push(format!("storage: the server's file: {error}")),
        };
        if request.route == Route::Push {
            self.refused = Some((request.body.clone(), now));
        }
        // Its history may have been looked at, and a new one begun.
        if self.model.compare(&stored).is_err() {
            self.model.unheard(Route::Pull, &request.body, now, &stored);
        }
        if let Err(difference) = self.model.compare(&stored) {
            let request = String::from_utf8_lossy(&request.body);
            self.violations.push(format!("durability: the disk failed, and then {difference}\n  asked: {request}"));
        }
    }

    pub(super) fn has_died(&self) -> bool {
        matches!(&self.place, Place::Disk { process, .. } if process.is_dead())
    }

    /// The endpoint died while it answered `request`. It is started again, and has decided it or not.
    pub(super) fn revive(&mut self, request: &Request, now: Timestamp) {
        self.deaths += 1;
        // Nobody else had the file open: its log is recovered as after any death, not taken on from memory.
        self.file = rusqlite::Connection::open_in_memory().expect("memory");
        let nothing = SqliteStore::open_in_memory().expect("memory");
        self.endpoint =
            Embedded::new(nothing, Types::new(self.types.clone()).expect("the types are valid"), self.limits);
        if let Place::Disk { disk, process, loses_power, .. } = &mut self.place {
            if std::mem::take(loses_power) {
                disk.lose_power();
            }
            // Whoever starts it again has seen to its disk.
            disk.heal();
            *process = disk.process();
        }
        self.reopen();
        let stored = read_state(&self.file).expect("what was committed can be read");
        let refused = self.refused.take();
        if self.model.compare(&stored).is_ok() {
            return;
        }
        // A push that the disk refused may have reached its log all the same. It was the last to be written there.
        if let Some((body, then)) = refused {
            let mut model = self.model.clone();
            model.unheard(Route::Push, &body, then, &stored);
            if model.compare(&stored).is_ok() {
                self.model = model;
                return;
            }
        }
        self.model.unheard(request.route, &request.body, now, &stored);
        if let Err(difference) = self.model.compare(&stored) {
            let request = String::from_utf8_lossy(&request.body);
            self.violations.push(format!("durability: the endpoint died, and then {difference}\n  asked: {request}"));
        }
    }

    /// Notes the exchange. Gives the answer's body.
    pub(super) fn record(&mut self, device: &str, request: &Request, answer: &Answer, token: &str) -> Value {
        let path = match request.route {
            Route::Push => "/v1/push",
            Route::Pull => "/v1/pull",
        };
        let sent: Value = serde_json::from_slice(&request.body).unwrap_or(Value::Null);
        let said: Value = serde_json::from_str(&answer.body).unwrap_or(Value::Null);
        let checked = [contract::validate_request(path, &sent), contract::validate_answer(path, answer.status, &said)];
        for difference in checked.into_iter().filter_map(Result::err).flatten() {
            self.violations.push(format!("{path} of {device}: {difference}"));
        }
        self.exchanges.push(Exchange {
            device: device.to_owned(),
            route: request.route,
            request: sent,
            status: answer.status,
            answer: said.clone(),
            token: token.to_owned(),
        });
        said
    }

    /// Asks the model about an exchange, and after a push whether it finds in the file what it holds. Once they differ, all
    /// that follows is of that: only the first difference is told.
    pub(super) fn judge(&mut self, request: &Request, token: &str, now: Timestamp, status: u16, said: &Value) {
        let Some(claims) = self.tokens.get(token).filter(|_| self.violations.is_empty()).cloned() else { return };
        let token = Token { user_id: &claims.user_id, scopes: &claims.scopes };
        let judged = self.model.judge(request.route, &request.body, token, now, status, said).and_then(|()| {
            if request.route == Route::Pull {
                return Ok(());
            }
            self.refused = None;
            let stored = self.state().map_err(|error| error.to_string())?;
            self.model.compare(&stored).map_err(|difference| format!("stored: {difference}"))
        });
        if let Err(difference) = judged {
            let request = String::from_utf8_lossy(&request.body);
            self.violations.push(format!("model: {difference}\n  asked: {request}\n  said: {status} {said}"));
        }
    }
}
