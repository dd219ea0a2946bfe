//! Who is told what, in which order. Events wait in an outbox in the order of their commits; one callback job empties it, on
//! the runtime's callback thread. No lock is held while a listener runs, so it may call anything, closing included.

use std::collections::{BTreeMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::primitives::{Arc, Mutex};
use crate::event::{Changes, EntityChange, Notice, OperationEvent};
use crate::metrics::QueueMetrics;

/// Names a listener, for [`crate::SyncManager::remove_listener`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ListenerId(pub u64);

pub(super) type Callback<T> = Arc<dyn Fn(T) + Send + Sync>;

#[derive(Clone)]
pub(super) enum Listener {
    Operations(Callback<OperationEvent>),
    Entities(Callback<EntityChange>),
    Metrics(Callback<QueueMetrics>),
    Auth(Callback<String>),
    Notices(Callback<Notice>),
}

/// Something to tell.
pub(super) enum News {
    Changes(Changes),
    /// The endpoint wants another credential, and why, as a word.
    AuthRequired(String),
    /// The figures may have changed. They are read when told, after all else, so many of these are one.
    Metrics,
}

#[derive(Default)]
pub(super) struct Listeners {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    next_id: u64,
    listeners: BTreeMap<ListenerId, Listener>,
    outbox: VecDeque<News>,
    metrics_due: bool,
    /// A callback job is on its way that will empty the outbox.
    scheduled: bool,
    closed: bool,
}

impl Listeners {
    /// None once closed.
    pub(super) fn add(&self, listener: Listener) -> Option<ListenerId> {
        let mut state = self.state.lock();
        if state.closed {
            return None;
        }
        state.next_id += 1;
        let id = ListenerId(state.next_id);
        state.listeners.insert(id, listener);
        Some(id)
    }

    pub(super) fn remove(&self, id: ListenerId) {
        let removed = self.state.lock().listeners.remove(&id);
        // Foreign code may run when the last reference to a callback goes: not under the lock.
        drop(removed);
    }

    /// Puts news in the outbox. Called under the store's lock, so that the order is that of the commits.
    pub(super) fn post(&self, news: News) {
        let mut state = self.state.lock();
        match news {
            _ if state.listeners.is_empty() => {}
            News::Metrics => state.metrics_due = true,
            news => state.outbox.push_back(news),
        }
    }

    /// Whether the caller must dispatch a job that calls [`Listeners::tell`].
    pub(super) fn must_dispatch(&self) -> bool {
        let mut state = self.state.lock();
        let due = (state.metrics_due || !state.outbox.is_empty()) && !state.scheduled;
        state.scheduled |= due;
        due
    }

    /// Tells what is in the outbox until it is empty. Runs as a callback job.
    pub(super) fn tell(&self, metrics: impl Fn() -> Option<QueueMetrics>) {
        loop {
            let (news, listeners) = {
                let mut state = self.state.lock();
                let news = match state.outbox.pop_front() {
                    Some(news) => news,
                    None if std::mem::take(&mut state.metrics_due) => News::Metrics,
                    None => {
                        state.scheduled = false;
                        return;
                    }
                };
                (news, state.listeners.clone())
            };
            match news {
                News::Changes(changes) => {
                    for event in changes.operations {
                        self.call(&listeners, &event, |listener| match listener {
                            Listener::Operations(callback) => Some(callback),
                            _ => None,
                        });
                    }
                    for change in changes.entities {
                        self.call(&listeners, &change, |listener| match listener {
                            Listener::Entities(callback) => Some(callback),
                            _ => None,
                        });
                    }
                    for notice in changes.notices {
                        self.call(&listeners, &notice, |listener| match listener {
                            Listener::Notices(callback) => Some(callback),
                            _ => None,
                        });
                    }
                }
                News::AuthRequired(reason) => self.call(&listeners, &reason, |listener| match listener {
                    Listener::Auth(callback) => Some(callback),
                    _ => None,
                }),
                News::Metrics => {
                    if listeners.values().any(|listener| matches!(listener, Listener::Metrics(_)))
                        && let Some(metrics) = metrics()
                    {
                        self.call(&listeners, &metrics, |listener| match listener {
                            Listener::Metrics(callback) => Some(callback),
                            _ => None,
                        });
                    }
                }
            }
        }
    }

    /// Calls those of one kind that have not been removed meanwhile.
    fn call<T: Clone>(
        &self,
        listeners: &BTreeMap<ListenerId, Listener>,
        news: &T,
        of_kind: impl Fn(&Listener) -> Option<&Callback<T>>,
    ) {
        for (id, listener) in listeners {
            let Some(callback) = of_kind(listener) else { continue };
            if !self.state.lock().listeners.contains_key(id) {
                continue;
            }
            if catch_unwind(AssertUnwindSafe(|| callback(news.clone()))).is_err() {
                log::warn!("a listener panicked; it stays registered");
            }
        }
    }

    /// Nobody is told anything any more.
    pub(super) fn close(&self) {
        let gone = {
            let mut state = self.state.lock();
            state.closed = true;
            state.outbox.clear();
            state.metrics_due = false;
            std::mem::take(&mut state.listeners)
        };
        drop(gone);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn auth(listeners: &Listeners, words: &[&str]) {
        for word in words {
            listeners.post(News::AuthRequired((*word).to_owned()));
        }
    }

    fn collector(listeners: &Listeners) -> (ListenerId, Arc<Mutex<Vec<String>>>) {
        let heard = Arc::new(Mutex::new(Vec::new()));
        let inside = Arc::clone(&heard);
        (listeners.add(Listener::Auth(Arc::new(move |word| inside.lock().push(word)))).unwrap(), heard)
    }

    #[test]
    fn one_job_tells_all_in_order() {
        let listeners = Listeners::default();
        let (_, heard) = collector(&listeners);
        auth(&listeners, &["a", "b"]);
        assert!(listeners.must_dispatch());
        auth(&listeners, &["c"]);
        assert!(!listeners.must_dispatch(), "the job on its way tells that too");
        listeners.tell(|| None);
        assert_eq!(*heard.lock(), ["a", "b", "c"]);
        assert!(!listeners.must_dispatch());
    }

    #[test]
    fn a_removed_listener_hears_nothing_more_and_a_panic_stops_nobody() {
        let listeners = Arc::new(Listeners::default());
        listeners.add(Listener::Auth(Arc::new(|_| panic!("on purpose")))).unwrap();
        let second = Arc::new(Mutex::new(None));
        let (inside, remove) = (Arc::clone(&listeners), Arc::clone(&second));
        listeners
            .add(Listener::Auth(Arc::new(move |_| {
                if let Some(id) = remove.lock().take() {
                    inside.remove(id);
                }
            })))
            .unwrap();
        let (removed, heard) = collector(&listeners);
        *second.lock() = Some(removed);
        let (_, heard_too) = collector(&listeners);
        auth(&listeners, &["a", "b"]);
        listeners.tell(|| None);
        assert_eq!(*heard.lock(), Vec::<String>::new());
        assert_eq!(*heard_too.lock(), ["a", "b"]);
    }

    #[test]
    fn after_closing_there_is_nobody() {
        let listeners = Listeners::default();
        let (_, heard) = collector(&listeners);
        auth(&listeners, &["a"]);
        listeners.close();
        listeners.tell(|| None);
        assert!(heard.lock().is_empty());
        assert!(listeners.add(Listener::Auth(Arc::new(|_| {}))).is_none());
    }
}
