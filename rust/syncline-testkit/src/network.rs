//! The way between a device and the endpoint, with faults on demand.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;

use parking_lot::Mutex;
use serde_json::Value;
use syncline_core::transport::{
    BoxFuture, CredentialProvider, CredentialReason, Dialect, Request, Response, Route, Token, Transport,
    TransportError,
};
use syncline_protocol::{PROTOCOL, Problem, ProblemCode};
use tokio::sync::oneshot;

use crate::oracle::wire::Wire;
use crate::server::TestServer;
use crate::simulation::coverage::Coverage;
use crate::simulation::hostile::tamper;
use crate::simulation::plan::Hostile;

/// What happens to one request.
#[derive(Debug, Clone)]
pub enum Fault {
    /// There is no way to the endpoint.
    Unreachable,
    /// It is lost before it arrives.
    DropBefore,
    /// It arrives and is decided; the answer is lost.
    DropAfter,
    /// It waits on the way until [`Network::release`]; it arrives then, even if the device has given it up long ago.
    HoldRequest,
    /// It arrives and is decided; the answer waits until [`Network::release`].
    HoldAnswer,
    /// It arrives twice; the device gets the second answer.
    Duplicate,
    /// It does not arrive; this is answered instead.
    Instead(Response),
    /// It arrives and is decided; this is answered instead.
    Replaced(Response),
    /// It arrives and is decided; the answer is tampered with.
    Tampered(Hostile),
}

impl Fault {
    /// Our endpoint answers with a problem and decides nothing.
    pub fn problem(code: ProblemCode) -> Self {
        let problem = Problem::new(code);
        let body = serde_json::to_vec(&problem).expect("a problem is JSON");
        Self::Instead(answer(problem.status, ours(), body))
    }

    /// Our endpoint answers with this status and body, and decides nothing.
    pub fn ours(status: u16, body: &str) -> Self {
        Self::Instead(answer(status, ours(), body.as_bytes().to_vec()))
    }

    /// A proxy or captive portal answers instead of our endpoint.
    pub fn proxy(status: u16, body: &str) -> Self {
        Self::Instead(answer(status, None, body.as_bytes().to_vec()))
    }

    /// The same, with `Retry-After`.
    #[must_use]
    pub fn retry_after(mut self, value: &str) -> Self {
        if let Self::Instead(response) | Self::Replaced(response) = &mut self {
            response.retry_after = Some(value.to_owned());
        }
        self
    }

    /// The same, but the endpoint has decided before.
    #[must_use]
    pub fn after_commit(self) -> Self {
        match self {
            Self::Instead(response) => Self::Replaced(response),
            other => other,
        }
    }
}

fn ours() -> Option<String> {
    Some(PROTOCOL.to_string())
}

fn answer(status: u16, protocol: Option<String>, body: Vec<u8>) -> Response {
    Response { status, protocol, retry_after: None, body, dialect: Dialect::Syncline }
}

type Script = Box<dyn FnMut(&Request) -> Option<Fault> + Send>;

/// What happens to the next request that it is for.
struct Scripted {
    route: Option<Route>,
    fault: Fault,
    /// What it is counted as when it happens.
    name: Option<&'static str>,
}

/// The network of one device. Handles are clones.
#[derive(Clone)]
pub struct Network {
    device: String,
    server: TestServer,
    coverage: Coverage,
    state: Arc<Mutex<State>>,
    /// Two processes on one file have one.
    tap: Arc<Mutex<Tapped>>,
}

/// What all processes of one file send and hear, if somebody wants to know.
#[derive(Default)]
struct Tapped {
    wanted: bool,
    requests: u64,
    wire: Vec<Wire>,
}

#[derive(Default)]
struct State {
    next: VecDeque<Scripted>,
    script: Option<(Script, Option<&'static str>)>,
    held: VecDeque<Held>,
    sent: u64,
    pull_limit: Option<u64>,
}

/// Something that waits on the way.
pub(crate) struct OnTheWay {
    pub(crate) route: Route,
    pub(crate) request: Value,
    /// If it was decided already.
    pub(crate) answer: Option<Value>,
    /// The device has not given it up.
    pub(crate) is_awaited: bool,
}

struct Held {
    request: Request,
    token: Token,
    /// The answer, if it was decided already.
    decided: Option<Response>,
    reply: oneshot::Sender<Response>,
}

impl Network {
    pub(crate) fn new(device: &str, server: &TestServer, coverage: Coverage) -> Self {
        Self { device: device.to_owned(), server: server.clone(), coverage, state: Arc::default(), tap: Arc::default() }
    }

    /// Notes what is sent and heard from now on.
    pub(crate) fn listen(&self) {
        self.tap.lock().wanted = true;
    }

    /// What is sent and heard here is noted where `of` notes it.
    pub(crate) fn listen_like(&mut self, of: &Self) {
        self.tap = Arc::clone(&of.tap);
    }

    /// What was sent and heard since the last time.
    pub(crate) fn take_wire(&self) -> Vec<Wire> {
        std::mem::take(&mut self.tap.lock().wire)
    }

    fn note_sent(&self, request: &Request) -> u64 {
        let mut tap = self.tap.lock();
        tap.requests += 1;
        let (number, at_ms) = (tap.requests, self.server.clock.elapsed_ms());
        if tap.wanted {
            tap.wire.push(Wire::Sent { number, at_ms, request: request.clone() });
        }
        number
    }

    fn note_heard(&self, number: u64, response: &Response) {
        let (at_ms, mut tap) = (self.server.clock.elapsed_ms(), self.tap.lock());
        if tap.wanted {
            tap.wire.push(Wire::Heard { number, at_ms, response: response.clone() });
        }
    }

    /// What happens to the next request. Several are taken in turn.
    pub fn next(&self, fault: Fault) {
        self.push_next(None, fault, None);
    }

    /// What happens to the next push.
    pub fn next_push(&self, fault: Fault) {
        self.push_next(Some(Route::Push), fault, None);
    }

    /// What happens to the next pull.
    pub fn next_pull(&self, fault: Fault) {
        self.push_next(Some(Route::Pull), fault, None);
    }

    /// As [`Network::next`], counted under `name` when it happens.
    pub(crate) fn next_counted(&self, fault: Fault, name: &'static str) {
        self.push_next(None, fault, Some(name));
    }

    fn push_next(&self, route: Option<Route>, fault: Fault, name: Option<&'static str>) {
        self.state.lock().next.push_back(Scripted { route, fault, name });
    }

    /// Decides about every request that none of the above is for, until [`Network::heal`].
    pub fn script(&self, script: impl FnMut(&Request) -> Option<Fault> + Send + 'static) {
        self.state.lock().script = Some((Box::new(script), None));
    }

    /// As [`Network::script`], counted under `name` whenever it bites.
    pub(crate) fn script_counted(
        &self,
        name: &'static str,
        script: impl FnMut(&Request) -> Option<Fault> + Send + 'static,
    ) {
        self.state.lock().script = Some((Box::new(script), Some(name)));
    }

    /// Nothing gets through, until [`Network::heal`].
    pub fn cut(&self) {
        self.script(|_| Some(Fault::Unreachable));
    }

    /// No more faults. What is held stays held.
    pub fn heal(&self) {
        let mut state = self.state.lock();
        state.next.clear();
        state.script = None;
    }

    /// From now on the device's pulls ask for so many changes at the most, as those of one with little memory would.
    pub(crate) fn shorten_pulls(&self, limit: u64) {
        self.state.lock().pull_limit = Some(limit);
    }

    /// What waits on the way, the oldest first.
    pub(crate) fn on_the_way(&self) -> Vec<OnTheWay> {
        let json = |body: &[u8]| serde_json::from_slice(body).unwrap_or_default();
        let state = self.state.lock();
        let held = state.held.iter().map(|held| OnTheWay {
            route: held.request.route,
            request: json(&held.request.body),
            answer: held.decided.as_ref().map(|answer| json(&answer.body)),
            is_awaited: !held.reply.is_closed(),
        });
        held.collect()
    }

    /// Nothing happens to single requests any more; what is decided about every request still is.
    pub(crate) fn heal_single(&self) {
        self.state.lock().next.clear();
    }

    /// Whether something decides about every request.
    pub(crate) fn is_scripted(&self) -> bool {
        self.state.lock().script.is_some()
    }

    /// Requests and answers that wait on the way.
    pub fn held(&self) -> usize {
        self.state.lock().held.len()
    }

    /// Lets the one that waits longest go on. The device hears of it at its next step.
    ///
    /// # Panics
    /// If nothing is held.
    pub fn release(&self) {
        self.let_go(VecDeque::pop_front);
    }

    /// Lets the one that was held last go on: it overtakes the others.
    ///
    /// # Panics
    /// If nothing is held.
    pub fn release_last(&self) {
        self.let_go(VecDeque::pop_back);
    }

    fn let_go(&self, which: fn(&mut VecDeque<Held>) -> Option<Held>) {
        let held = which(&mut self.state.lock().held).expect("something is held");
        let response = match held.decided {
            Some(response) => Some(response),
            None => self.server.handle(&self.device, &held.request, &held.token.0),
        };
        // The endpoint died of it: nobody answers.
        let Some(response) = response else { return };
        // The device may have given up waiting.
        if held.reply.send(response).is_err() {
            self.coverage.note("fault", "answer after the time-out");
        }
    }

    /// Lets everything go on, the oldest first.
    pub fn release_all(&self) {
        while self.held() > 0 {
            self.release();
        }
    }

    /// Requests that the device has sent, whether they arrived or not.
    pub fn sent(&self) -> u64 {
        self.state.lock().sent
    }

    fn fault(&self, request: &Request) -> Option<Fault> {
        let mut state = self.state.lock();
        state.sent += 1;
        let for_it = |scripted: &Scripted| scripted.route.is_none_or(|route| route == request.route);
        let (fault, name) = match state.next.iter().position(for_it) {
            Some(at) => state.next.remove(at).map(|scripted| (scripted.fault, scripted.name))?,
            None => {
                let (script, name) = state.script.as_mut()?;
                (script(request)?, *name)
            }
        };
        if let Some(name) = name {
            self.coverage.note("fault", name);
        }
        Some(fault)
    }

    fn shortened(&self, request: Request) -> Request {
        let limit = self.state.lock().pull_limit.filter(|_| request.route == Route::Pull);
        let body = limit.zip(serde_json::from_slice::<Value>(&request.body).ok());
        let Some((limit, mut body)) = body else { return request };
        body["limit"] = limit.into();
        Request { body: body.to_string().into_bytes(), ..request }
    }

    async fn hold(
        &self,
        request: Request,
        token: Token,
        decided: Option<Response>,
    ) -> Result<Response, TransportError> {
        let (reply, answer) = oneshot::channel();
        self.state.lock().held.push_back(Held { request, token, decided, reply });
        answer.await.map_err(|_| TransportError::Broken("the world ended".to_owned()))
    }

    async fn exchange(&self, request: Request, token: Token) -> Result<Response, TransportError> {
        let lost = || Err(TransportError::Broken("lost on the way".to_owned()));
        let deliver = || self.server.handle(&self.device, &request, &token.0);
        let answered = || deliver().map_or_else(lost, Ok);
        match self.fault(&request) {
            None => answered(),
            Some(Fault::Unreachable) => Err(TransportError::Unreachable("no way".to_owned())),
            Some(Fault::DropBefore) => lost(),
            Some(Fault::DropAfter) => {
                deliver();
                lost()
            }
            Some(Fault::Duplicate) => {
                deliver();
                answered()
            }
            Some(Fault::Instead(response)) => Ok(response),
            Some(Fault::Replaced(response)) => {
                deliver();
                Ok(response)
            }
            Some(Fault::Tampered(how)) => {
                answered().map(|answer| Response { body: tamper(how, &answer.body), ..answer })
            }
            Some(Fault::HoldAnswer) => match deliver() {
                Some(decided) => self.hold(request, token, Some(decided)).await,
                None => lost(),
            },
            Some(Fault::HoldRequest) => self.hold(request, token, None).await,
        }
    }
}

impl Transport for Network {
    fn send(&self, request: Request, token: Token) -> BoxFuture<'_, Result<Response, TransportError>> {
        Box::pin(async move {
            let number = self.note_sent(&request);
            // On the way there and on the way back: other things happen meanwhile, a death perhaps.
            other_steps().await;
            let answer = self.exchange(self.shortened(request), token).await;
            other_steps().await;
            answer.inspect(|response| self.note_heard(number, response))
        })
    }
}

async fn other_steps() {
    let mut waited = false;
    poll_fn(|context| {
        if std::mem::replace(&mut waited, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// The app's credentials. Handles are clones.
#[derive(Clone)]
pub struct Credentials {
    state: Arc<Mutex<Wallet>>,
}

struct Wallet {
    at_hand: Result<Option<String>, String>,
    fresh: Option<String>,
    asked: Vec<CredentialReason>,
}

impl Credentials {
    pub(crate) fn new(token: &str) -> Self {
        let wallet = Wallet { at_hand: Ok(Some(token.to_owned())), fresh: None, asked: Vec::new() };
        Self { state: Arc::new(Mutex::new(wallet)) }
    }

    /// The token at hand; none when the user must sign in.
    pub fn set(&self, token: Option<&str>) {
        self.state.lock().at_hand = Ok(token.map(str::to_owned));
    }

    /// The token that takes its place when a fresh one is asked for.
    pub fn set_fresh(&self, token: &str) {
        self.state.lock().fresh = Some(token.to_owned());
    }

    /// The provider fails from now on.
    pub fn fail(&self, message: &str) {
        self.state.lock().at_hand = Err(message.to_owned());
    }

    /// Why the provider was asked, each time.
    pub fn asked(&self) -> Vec<CredentialReason> {
        self.state.lock().asked.clone()
    }
}

impl CredentialProvider for Credentials {
    fn token(&self, reason: CredentialReason) -> BoxFuture<'_, Result<Option<Token>, String>> {
        let mut wallet = self.state.lock();
        wallet.asked.push(reason);
        if reason == CredentialReason::Refresh
            && let Some(fresh) = wallet.fresh.take()
        {
            wallet.at_hand = Ok(Some(fresh));
        }
        let token = wallet.at_hand.clone().map(|token| token.map(Token));
        Box::pin(std::future::ready(token))
    }
}
