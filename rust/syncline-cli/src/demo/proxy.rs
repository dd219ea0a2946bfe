//! A network that misbehaves: each device reaches the endpoint through a TCP port of its own, and faults happen to the
//! exchanges on the way. Every exchange has a connection of its own.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::JoinSet;

use super::faults::{Counts, Fault, Luck, Weather};

/// No message of the demo comes near it.
const MAX_MESSAGE: u64 = 64 << 20;

/// The way of one device to the endpoint. It ends when this is dropped.
pub(crate) struct Line {
    address: SocketAddr,
    shared: Arc<Shared>,
    _accepting: JoinSet<()>,
}

struct Shared {
    endpoint: Mutex<SocketAddr>,
    state: Mutex<(Luck, Counts)>,
    release: Notify,
}

impl Line {
    /// Opens a line to `endpoint` on a loopback port of its own.
    pub(crate) async fn open(endpoint: SocketAddr, seed: u64) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let state = Mutex::new((Luck::new(seed), Counts::default()));
        let shared = Arc::new(Shared { endpoint: Mutex::new(endpoint), state, release: Notify::new() });
        let mut accepting = JoinSet::new();
        accepting.spawn(accept(listener, shared.clone()));
        Ok(Self { address, shared, _accepting: accepting })
    }

    /// Where the device connects to.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The endpoint was started again, somewhere else.
    #[cfg(feature = "chaos")]
    pub(crate) fn set_endpoint(&self, endpoint: SocketAddr) {
        *self.shared.endpoint.lock().unwrap_or_else(PoisonError::into_inner) = endpoint;
    }

    /// From now on so many of a hundred pushes that pass arrive twice, side by side.
    #[cfg(feature = "chaos")]
    pub(crate) fn set_duplicates(&self, percent: u32) {
        self.shared.with(|luck, _| luck.duplicates = percent);
    }

    pub(crate) fn set_weather(&self, weather: Weather) {
        self.shared.with(|luck, _| luck.weather = weather);
    }

    /// Holds the answer of every push once so many have got through.
    pub(crate) fn hold_after(&self, pushes: usize) {
        self.shared.with(|luck, _| luck.hold_after(pushes));
    }

    /// Lets the connections go whose answers are held; the answers never arrive.
    pub(crate) fn release(&self) {
        self.shared.release.notify_waiters();
    }

    /// Orders each kind of fault once.
    pub(crate) fn order_one_of_each(&self) {
        self.shared.with(|luck, _| luck.order_one_of_each());
    }

    /// Faults that were ordered and have not happened yet.
    pub(crate) fn outstanding(&self) -> usize {
        self.shared.with(|luck, _| luck.outstanding())
    }

    pub(crate) fn counts(&self) -> Counts {
        self.shared.with(|_, counts| *counts)
    }
}

impl Shared {
    fn with<T>(&self, work: impl FnOnce(&mut Luck, &mut Counts) -> T) -> T {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let (luck, counts) = &mut *state;
        work(luck, counts)
    }

    fn count(&self, work: impl FnOnce(&mut Counts)) {
        self.with(|_, counts| work(counts));
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut exchanges = JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        while exchanges.try_join_next().is_some() {}
        let refused = shared.with(|luck, counts| {
            let offline = luck.weather == Weather::Offline;
            counts.refused += u64::from(offline);
            offline
        });
        if !refused {
            let shared = shared.clone();
            // A connection that breaks is what this network is for.
            exchanges.spawn(async move { exchange(client, &shared).await.unwrap_or_default() });
        }
    }
}

async fn exchange(mut client: TcpStream, shared: &Shared) -> io::Result<()> {
    let Some(request) = read_request(&mut client).await? else { return Ok(()) };
    let is_push = request.head.starts_with("POST /v1/push");
    let fault = shared.with(|luck, counts| {
        counts.requests += 1;
        luck.draw(is_push)
    });
    let endpoint = *shared.endpoint.lock().unwrap_or_else(PoisonError::into_inner);
    match fault {
        Fault::DropBefore => {
            shared.count(|counts| counts.dropped_before += 1);
            return Ok(());
        }
        Fault::Unavailable { ours } => {
            shared.count(|counts| counts.unavailable += 1);
            return client.write_all(unavailable(ours).as_bytes()).await;
        }
        Fault::Delay(wait) => {
            shared.count(|counts| counts.delayed += 1);
            pause(wait).await;
        }
        Fault::CutRequest => {
            shared.count(|counts| counts.cut_requests += 1);
            return send(endpoint, &request, request.body.len() / 2).await.map(drop);
        }
        Fault::Page(status) => {
            shared.count(|counts| counts.pages += 1);
            return client.write_all(page(status).as_bytes()).await;
        }
        Fault::None | Fault::DropAfter | Fault::Truncate | Fault::Reset | Fault::Hold => {}
    }
    let answer = if is_push && shared.with(|luck, _| luck.draw_duplicate()) {
        shared.count(|counts| counts.duplicated += 1);
        let (first, second) = tokio::join!(forward(endpoint, &request), forward(endpoint, &request));
        // Whichever the device hears; the other one has had its effect as well, or none.
        first.or(second)?
    } else {
        forward(endpoint, &request).await?
    };
    shared.count(|counts| match status(&answer) {
        Some(401) => counts.unauthorized += 1,
        Some(413) => counts.too_large += 1,
        _ => {}
    });
    deliver(&mut client, &answer, fault, shared).await?;
    if is_push && status(&answer) == Some(200) && matches!(fault, Fault::None | Fault::Delay(_)) {
        shared.with(|luck, _| luck.push_passed());
    }
    Ok(())
}

async fn deliver(client: &mut TcpStream, answer: &[u8], fault: Fault, shared: &Shared) -> io::Result<()> {
    match fault {
        Fault::DropAfter => shared.count(|counts| counts.dropped_after += u64::from(status(answer) == Some(200))),
        Fault::Reset => {
            shared.count(|counts| counts.resets += 1);
            client.set_zero_linger()?;
        }
        // An endpoint that was killed may have said nothing at all.
        Fault::Truncate if !answer.is_empty() => {
            shared.count(|counts| counts.truncated += 1);
            client.write_all(&answer[..answer.len() - body_of(answer).len() / 2 - 1]).await?;
        }
        Fault::Hold if status(answer) == Some(200) => {
            shared.count(|counts| counts.held += 1);
            let gone = async { client.read(&mut [0; 1]).await.unwrap_or_default() };
            tokio::select! {
                _ = gone => {}
                () = shared.release.notified() => {}
            }
        }
        _ => client.write_all(answer).await?,
    }
    Ok(())
}

struct Message {
    head: String,
    body: Vec<u8>,
}

/// Reads one request; none if the connection ends before.
async fn read_request(client: &mut TcpStream) -> io::Result<Option<Message>> {
    let mut bytes = Vec::new();
    let head_ends = loop {
        if let Some(at) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            break at + 4;
        }
        if client.read_buf(&mut bytes).await? == 0 {
            return Ok(None);
        }
    };
    let mut body = bytes.split_off(head_ends);
    let head = String::from_utf8_lossy(&bytes).into_owned();
    let length = header(&head, "content-length").and_then(|length| length.parse::<u64>().ok()).unwrap_or(0);
    let missing = length.min(MAX_MESSAGE).saturating_sub(body.len() as u64);
    if client.take(missing).read_to_end(&mut body).await? as u64 != missing {
        return Ok(None);
    }
    Ok(Some(Message { head, body }))
}

/// Sends a request on a connection of its own and reads the whole answer.
async fn forward(endpoint: SocketAddr, request: &Message) -> io::Result<Vec<u8>> {
    let server = send(endpoint, request, request.body.len()).await?;
    let mut answer = Vec::new();
    server.take(MAX_MESSAGE).read_to_end(&mut answer).await?;
    Ok(answer)
}

/// Sends a request up to so many bytes of its body.
async fn send(endpoint: SocketAddr, request: &Message, bytes: usize) -> io::Result<TcpStream> {
    let mut server = TcpStream::connect(endpoint).await?;
    let lines = request.head.lines().filter(|line| !line.is_empty() && !is_header(line, "connection"));
    let head: String = lines.flat_map(|line| [line, "\r\n"]).chain(["Connection: close\r\n\r\n"]).collect();
    server.write_all(head.as_bytes()).await?;
    server.write_all(&request.body[..bytes]).await?;
    Ok(server)
}

/// Posts a body past every line, and gives the status and what is said.
#[cfg(feature = "chaos")]
pub(crate) async fn post(endpoint: SocketAddr, path: &str, token: &str, body: String) -> io::Result<(u16, Vec<u8>)> {
    let length = body.len();
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: {endpoint}\r\nAuthorization: Bearer {token}\r\nContent-Type: application/json\r\n\
         Content-Length: {length}\r\n\r\n"
    );
    let answer = forward(endpoint, &Message { head, body: body.into_bytes() }).await?;
    let status = status(&answer).ok_or(io::ErrorKind::UnexpectedEof)?;
    Ok((status, body_of(&answer).to_vec()))
}

fn is_header(line: &str, name: &str) -> bool {
    line.split_once(':').is_some_and(|(key, _)| key.trim().eq_ignore_ascii_case(name))
}

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let line = head.lines().find(|line| is_header(line, name))?;
    line.split_once(':').map(|(_, value)| value.trim())
}

fn status(answer: &[u8]) -> Option<u16> {
    std::str::from_utf8(answer.get(9..12)?).ok()?.parse().ok()
}

fn body_of(answer: &[u8]) -> &[u8] {
    let head_ends = answer.windows(4).position(|four| four == b"\r\n\r\n").map_or(answer.len(), |at| at + 4);
    &answer[head_ends..]
}

fn unavailable(ours: bool) -> String {
    let (headers, body) = if ours {
        let body = r#"{"code":"unavailable","status":503,"title":"The endpoint is not available for now"}"#;
        ("syncline-protocol: 1\r\nContent-Type: application/problem+json\r\n", body)
    } else {
        ("Content-Type: text/html\r\n", "<html><body>Service Unavailable</body></html>")
    };
    let length = body.len();
    format!(
        "HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\n{headers}Content-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    )
}

/// What a proxy or a captive portal says.
fn page(status: u16) -> String {
    let body = "<html><body>This is not the page you are looking for</body></html>";
    let length = body.len();
    format!(
        "HTTP/1.1 {status} Page\r\nContent-Type: text/html\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    )
}

#[expect(clippy::disallowed_methods, reason = "the demo's network runs in real time")]
async fn pause(wait: std::time::Duration) {
    tokio::time::sleep(wait).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANSWER: &str = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\nConnection: close\r\n\r\n0123456789";

    /// An endpoint that gives the same answer to everyone.
    async fn endpoint() -> (SocketAddr, JoinSet<()>) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                // One that was cut short gets no answer.
                let Some(request) = read_request(&mut stream).await.unwrap() else { continue };
                assert_eq!(header(&request.head, "connection"), Some("close"));
                assert_eq!(request.body, b"{}");
                stream.write_all(ANSWER.as_bytes()).await.unwrap();
            }
        });
        (address, tasks)
    }

    async fn ask(line: &Line) -> String {
        let mut stream = TcpStream::connect(line.address).await.unwrap();
        let request = "POST /v1/push HTTP/1.1\r\nHost: x\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\n{}";
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        // A connection that was cut may end in a reset.
        let _ = stream.read_to_string(&mut answer).await;
        answer
    }

    #[tokio::test]
    async fn each_fault_does_what_its_name_says_and_is_counted() {
        let (address, _tasks) = endpoint().await;
        let line = Line::open(address, 7).await.unwrap();
        assert_eq!(ask(&line).await, ANSWER);

        line.shared.with(|luck, _| {
            luck.order(Fault::DropBefore);
            luck.order(Fault::DropAfter);
            luck.order(Fault::Truncate);
            luck.order(Fault::Unavailable { ours: true });
            luck.order(Fault::Unavailable { ours: false });
            luck.order(Fault::CutRequest);
            luck.order(Fault::Reset);
            luck.order(Fault::Page(520));
        });
        assert_eq!(ask(&line).await, "");
        assert_eq!(ask(&line).await, "");
        let cut = ask(&line).await;
        assert!(ANSWER.starts_with(&cut) && cut.ends_with("0123"), "{cut}");
        let ours = ask(&line).await;
        assert!(
            ours.starts_with("HTTP/1.1 503") && ours.contains("Retry-After: 1") && ours.contains("syncline-protocol")
        );
        assert!(!ask(&line).await.contains("syncline-protocol"));
        assert_eq!(ask(&line).await, "");
        assert_eq!(ask(&line).await, "");
        let page = ask(&line).await;
        assert!(page.starts_with("HTTP/1.1 520") && page.contains("<html>"), "{page}");
        assert_eq!(line.outstanding(), 0);

        line.set_weather(Weather::Offline);
        assert_eq!(ask(&line).await, "");
        let expected = Counts {
            requests: 9,
            cut_requests: 1,
            resets: 1,
            pages: 1,
            dropped_before: 1,
            dropped_after: 1,
            truncated: 1,
            unavailable: 2,
            refused: 1,
            ..Counts::default()
        };
        assert_eq!(line.counts(), expected);
    }

    #[tokio::test]
    async fn a_held_answer_never_arrives() {
        let (address, _tasks) = endpoint().await;
        let line = Line::open(address, 7).await.unwrap();
        line.hold_after(0);
        assert_eq!(ask(&line).await, ANSWER);
        let release = async {
            while line.counts().held == 0 {
                tokio::task::yield_now().await;
            }
            line.set_weather(Weather::Clear);
            line.release();
        };
        assert_eq!(tokio::join!(ask(&line), release).0, "");
        assert_eq!(ask(&line).await, ANSWER);
    }
}
