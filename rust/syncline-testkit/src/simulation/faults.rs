//! What the simulator's words for trouble mean to the network.

use std::time::{Duration, SystemTime};

use syncline_core::environment::Clock;
use syncline_protocol::ProblemCode;

use super::plan::{Hostile, Mishap, Wall};
use crate::network::{Fault, Network};
use crate::steps::ManualClock;

/// What happens to a request, and what it is called in the table of coverage. `clock` is the server's, for dates.
pub(super) fn fault_of(mishap: Mishap, clock: &ManualClock) -> (Fault, &'static str) {
    match mishap {
        Mishap::Unreachable => (Fault::Unreachable, "no way to the endpoint"),
        Mishap::LostBefore => (Fault::DropBefore, "request lost"),
        // Its length is known, so that the endpoint's carrier never hands on a part of it.
        Mishap::CutRequest => (Fault::DropBefore, "request cut off"),
        Mishap::LostAfter => (Fault::DropAfter, "answer lost after the commit"),
        Mishap::HeldRequest => (Fault::HoldRequest, "request delayed"),
        Mishap::HeldAnswer => (Fault::HoldAnswer, "answer delayed"),
        Mishap::Twice => (Fault::Duplicate, "request duplicated"),
        Mishap::CutAnswer => {
            (Fault::ours(200, r#"{"applied":1,"results":[{"id"#).after_commit(), "answer cut off after the commit")
        }
        Mishap::Portal => (Fault::proxy(200, "<html>Welcome to the hotel</html>"), "proxy page 200"),
        Mishap::ProxyNotFound => (Fault::proxy(404, "<html>404</html>"), "proxy page 404"),
        Mishap::ProxyBadGateway => (Fault::proxy(502, "<html>502</html>"), "proxy page 502"),
        Mishap::ProxyUnknown => (Fault::proxy(520, "<html>520</html>"), "proxy page 520"),
        Mishap::ProxyAfter => (Fault::proxy(502, "<html>502</html>").after_commit(), "proxy page after the commit"),
        Mishap::Unauthorized => (Fault::problem(ProblemCode::Unauthorized), "401"),
        Mishap::Forbidden => (Fault::problem(ProblemCode::Forbidden), "403"),
        Mishap::TooLarge => (Fault::problem(ProblemCode::BodyTooLarge), "413 of the endpoint"),
        Mishap::ProxyTooLarge => (Fault::proxy(413, ""), "413 of a proxy"),
        Mishap::TooMany => {
            (Fault::problem(ProblemCode::RateLimited).retry_after("20"), "429 with Retry-After in seconds")
        }
        Mishap::Unavailable => {
            let date = in_two_minutes(clock);
            (Fault::problem(ProblemCode::Unavailable).retry_after(&date), "503 with Retry-After as a date")
        }
        Mishap::Internal => (Fault::problem(ProblemCode::Internal), "500"),
        Mishap::Hostile(how) => (Fault::Tampered(how), hostile_name(how)),
    }
}

fn hostile_name(how: Hostile) -> &'static str {
    match how {
        Hostile::WrongId => "hostile: wrong id",
        Hostile::NeverSent => "hostile: verdict for one never sent",
        Hostile::TwiceTold => "hostile: told twice",
        Hostile::UnknownVerdict => "hostile: unknown verdict",
        Hostile::HugeNumber => "hostile: huge number",
        Hostile::MissingField => "hostile: missing member",
        Hostile::WrongType => "hostile: wrong type",
        Hostile::WrongCount => "hostile: wrong count",
    }
}

fn in_two_minutes(clock: &ManualClock) -> String {
    let millis = u64::try_from(clock.now().millis()).unwrap_or(0) + 120_000;
    httpdate::fmt_http_date(SystemTime::UNIX_EPOCH + Duration::from_millis(millis))
}

/// Something dislikes every request that carries the poison.
pub(super) fn poison(network: &Network, wall: Wall) {
    let name = match wall {
        Wall::Endpoint => "the endpoint fails on one payload",
        Wall::Firewall => "a firewall refuses one payload",
    };
    network.script_counted(name, move |request| {
        let poisoned = request.body.windows(b"\"poison\"".len()).any(|part| part == b"\"poison\"");
        poisoned.then(|| match wall {
            Wall::Endpoint => Fault::problem(ProblemCode::Internal),
            Wall::Firewall => Fault::proxy(403, "<html>Blocked</html>"),
        })
    });
}
