//! The development secret: a file beside the endpoint's data, made on first start, readable by its owner only.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use rand::TryRng;
use rand::rngs::SysRng;
use syncline_protocol::Timestamp;
use syncline_server::auth::{MIN_SECRET_BYTES, Secret, mint};

use crate::output;

/// The `aud` of development tokens.
pub(crate) const AUDIENCE: &str = "syncline";

/// Where the secret of an endpoint with this data file lies.
pub(crate) fn path(data: &Path) -> PathBuf {
    let mut name = data.as_os_str().to_owned();
    name.push(".secret");
    name.into()
}

/// Reads the secret, making it first if there is none.
///
/// # Errors
/// The file cannot be read or made, or holds something else.
pub(crate) fn read_or_make(file: &Path) -> io::Result<Secret> {
    if !file.exists() {
        make(file)?;
    }
    read(file)
}

/// Reads the secret.
///
/// # Errors
/// The file cannot be read, or holds something shorter than a secret.
pub(crate) fn read(file: &Path) -> io::Result<Secret> {
    let text = std::fs::read_to_string(file)?;
    let text = text.trim();
    if text.len() < MIN_SECRET_BYTES {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("it holds fewer than {MIN_SECRET_BYTES} bytes"),
        ));
    }
    Ok(Secret::new(text))
}

fn make(file: &Path) -> io::Result<()> {
    let mut bytes = [0; MIN_SECRET_BYTES];
    SysRng.try_fill_bytes(&mut bytes).map_err(io::Error::other)?;
    let text: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(file)?.write_all(text.as_bytes())
}

/// A token for one user and scope that is good for so many seconds from now (ago, if negative).
pub(crate) fn token(secret: &Secret, user: &str, scope: &str, seconds: i64) -> String {
    let expires = Timestamp::from_millis(output::now()).plus_millis(seconds.saturating_mul(1000));
    mint(secret, user, &[scope], AUDIENCE, expires)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_made_once_and_is_its_owners_alone() {
        let folder = tempfile::tempdir().unwrap();
        let file = path(&folder.path().join("data.db"));
        read_or_make(&file).unwrap();
        let first = std::fs::read_to_string(&file).unwrap();
        read_or_make(&file).unwrap();
        assert_eq!(first, std::fs::read_to_string(&file).unwrap());
        assert_eq!(first.len(), 2 * MIN_SECRET_BYTES);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        }
        std::fs::write(&file, "short").unwrap();
        assert!(read(&file).is_err());
    }
}
