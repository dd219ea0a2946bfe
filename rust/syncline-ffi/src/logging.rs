//! What Syncline logs, for the platform's log. Never a payload or a token (spec §9.9).

use std::sync::{Arc, OnceLock, mpsc};

use log::{LevelFilter, Metadata, Record};
use parking_lot::Mutex;

use crate::SynclineError;
use crate::contained::{Result, contained};
use crate::error::CallbackError;

/// How much a line matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, uniffi::Enum)]
pub enum LogLevel {
    /// Something is wrong that will not mend itself.
    Error,
    /// Something went wrong, and is tried again.
    Warn,
    /// What was done.
    Info,
    /// Why.
    Debug,
}

/// Takes lines of the log, on a thread of their own, one at a time.
#[uniffi::export(foreign)]
pub trait Logger: Send + Sync {
    /// One line.
    ///
    /// # Errors
    /// What it threw; the line is lost.
    fn log(&self, level: LogLevel, target: String, text: String) -> std::result::Result<(), CallbackError>;
}

struct Line {
    level: LogLevel,
    target: String,
    text: String,
}

/// One for the process, as `log` wants it.
struct Forward {
    lines: mpsc::Sender<Line>,
    logger: Arc<Mutex<Option<Arc<dyn Logger>>>>,
}

static FORWARD: OnceLock<Option<Forward>> = OnceLock::new();

/// Has lines of the process's log up to `level` told to `logger`, in place of the one before; or to nobody.
///
/// # Errors
/// `NotPossible` if the program around has a logger of its own already: that one gets the lines.
#[uniffi::export]
pub fn set_logger(logger: Option<Arc<dyn Logger>>, level: LogLevel) -> Result<()> {
    contained(|| {
        let forward = FORWARD.get_or_init(Forward::start).as_ref();
        let forward = forward
            .ok_or_else(|| SynclineError::NotPossible { text: "the program has a logger of its own".to_owned() })?;
        log::set_max_level(match (&logger, level) {
            (None, _) => LevelFilter::Off,
            (_, LogLevel::Error) => LevelFilter::Error,
            (_, LogLevel::Warn) => LevelFilter::Warn,
            (_, LogLevel::Info) => LevelFilter::Info,
            (_, LogLevel::Debug) => LevelFilter::Debug,
        });
        let before = std::mem::replace(&mut *forward.logger.lock(), logger);
        // Foreign code may run when the last reference goes: not under the lock.
        drop(before);
        Ok::<_, SynclineError>(())
    })
}

impl Forward {
    /// A line may be logged under any lock; whoever takes it may call anything. So a thread stands between.
    fn start() -> Option<Self> {
        let (lines, told) = mpsc::channel::<Line>();
        let logger: Arc<Mutex<Option<Arc<dyn Logger>>>> = Arc::default();
        let taker = Arc::clone(&logger);
        std::thread::Builder::new()
            .name("syncline-log".to_owned())
            .spawn(move || {
                for line in told {
                    let logger = taker.lock().clone();
                    if let Some(logger) = logger {
                        let _ = logger.log(line.level, line.target, line.text);
                    }
                }
            })
            .ok()?;
        log::set_boxed_logger(Box::new(Self { lines: lines.clone(), logger: Arc::clone(&logger) })).ok()?;
        Some(Self { lines, logger })
    }
}

impl log::Log for Forward {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("syncline")
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let level = match record.level() {
            log::Level::Error => LogLevel::Error,
            log::Level::Warn => LogLevel::Warn,
            log::Level::Info => LogLevel::Info,
            log::Level::Debug | log::Level::Trace => LogLevel::Debug,
        };
        let line = Line { level, target: record.target().to_owned(), text: record.args().to_string() };
        let _ = self.lines.send(line);
    }

    fn flush(&self) {}
}
