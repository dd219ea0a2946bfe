//! SQLite's failures in the words of [`SynclineError`]. No statement text and no value ever gets into one.

use rusqlite::{Error, ErrorCode, ffi};

use crate::error::SynclineError;

impl From<Error> for SynclineError {
    fn from(error: Error) -> Self {
        let Error::SqliteFailure(cause, _) = &error else {
            return Self::Storage { detail: short(&error) };
        };
        match cause.code {
            ErrorCode::DiskFull => Self::StorageFull,
            // The WAL's index could not grow: SQLite's word for the same where it maps memory.
            _ if cause.extended_code == ffi::SQLITE_IOERR_SHMSIZE => Self::StorageFull,
            ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase => Self::Corrupt { set_aside: None },
            ErrorCode::ReadOnly => Self::Storage { detail: "the file is read-only".into() },
            ErrorCode::CannotOpen => Self::Storage { detail: "the file cannot be opened".into() },
            ErrorCode::PermissionDenied => Self::Storage { detail: "access to the file is denied".into() },
            ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked => {
                Self::Storage { detail: "another connection holds the file for too long".into() }
            }
            ErrorCode::SystemIoFailure => {
                Self::Storage { detail: format!("input/output error {}", cause.extended_code) }
            }
            _ => Self::Storage { detail: format!("SQLite error {}", cause.extended_code) },
        }
    }
}

fn short(error: &Error) -> String {
    match error {
        Error::QueryReturnedNoRows => "a row that must exist is missing".into(),
        Error::InvalidColumnType(_, column, _) => format!("column {column} has a value of another type"),
        Error::FromSqlConversionFailure(column, ..) => format!("column {column} holds a value that cannot be read"),
        Error::IntegralValueOutOfRange(column, _) => format!("column {column} holds a number out of range"),
        _ => "an unexpected failure".into(),
    }
}

/// A stored value that the core itself wrote and can no longer read.
pub(super) fn unreadable(what: &'static str) -> SynclineError {
    SynclineError::Storage { detail: format!("{what} cannot be read") }
}
