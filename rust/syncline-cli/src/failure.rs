//! Why the command ends with something other than success, and with which exit code.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// The text that `--help` ends with.
pub(crate) const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  the work failed; for `demo`: a promise was broken, or a scripted event did not happen; for `torture`: a guarantee is broken
  2  the command line is not valid; for `torture`: it cannot run, for example because nobody answers or the token is refused
  3  a file is missing, or cannot be read or written
  4  the file is not a Syncline database, or is damaged
  5  the file was written by a newer version
  6  the address cannot be listened on, for example because the port is in use
  7  there is nothing by that id
  130  stopped by Ctrl-C";

/// An end that is not success.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// Anything that has no code of its own.
    #[error("{0}")]
    Failed(String),
    /// A promise of the demo was broken; the report says which.
    #[error("the demo's promises do not hold")]
    Broken,
    /// A rule was broken in chaos; the report says which.
    #[cfg(feature = "chaos")]
    #[error("the rules do not hold")]
    Chaos,
    /// A guarantee is broken; the report says which.
    #[error("the endpoint does not keep every guarantee")]
    Tortured,
    /// `torture` cannot begin.
    #[error("cannot run: {0}")]
    CannotRun(String),
    #[error("{}: {reason}", path.display())]
    File { path: PathBuf, reason: String },
    #[error("{}: {reason}", path.display())]
    NotOurs { path: PathBuf, reason: String },
    #[error("{}: written by a newer version (schema {found}; this command reads up to {supported})", path.display())]
    Newer { path: PathBuf, found: u32, supported: u32 },
    #[error("cannot listen on {address}: {reason}")]
    Address { address: String, reason: String },
    #[error("{0}")]
    NotFound(String),
    #[error("stopped")]
    Interrupted,
}

impl Failure {
    pub(crate) fn file(path: &Path, error: &std::io::Error) -> Self {
        let reason = match error.kind() {
            std::io::ErrorKind::NotFound => "there is no such file or folder".to_owned(),
            std::io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
            _ => error.to_string(),
        };
        Self::File { path: path.to_owned(), reason }
    }

    pub(crate) fn code(&self) -> ExitCode {
        ExitCode::from(match self {
            Self::Failed(_) | Self::Broken | Self::Tortured => 1,
            #[cfg(feature = "chaos")]
            Self::Chaos => 1,
            Self::CannotRun(_) => 2,
            Self::File { .. } => 3,
            Self::NotOurs { .. } => 4,
            Self::Newer { .. } => 5,
            Self::Address { .. } => 6,
            Self::NotFound(_) => 7,
            Self::Interrupted => 130,
        })
    }
}

/// Standard output went away, most likely a pipe that was closed.
impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::Failed(error.to_string())
    }
}
