//! One file's bytes, never more than a bound, and never waiting on something that is not a file.

use std::{
    fs::{self, OpenOptions},
    io::{self, Read},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use rustix::fs::OFlags;

/// Why a file's bytes cannot be had.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReadFault {
    /// There is no such file (any more).
    #[error("it is gone")]
    Gone,
    /// A link that leads nowhere.
    #[error("it is a link that leads nowhere")]
    Dangling,
    /// A folder, pipe, socket or device.
    #[error("it is not a file")]
    NotAFile,
    /// Above the bound.
    #[error("it is larger than {0} bytes")]
    TooLarge(u64),
    /// The system refuses.
    #[error("the system says: {0}")]
    Refused(#[from] io::Error),
}

/// Reads all of a file of at most `most` bytes.
pub(super) fn read_bounded(path: &Path, most: u64) -> Result<Vec<u8>, ReadFault> {
    // Without NONBLOCK, opening a pipe that is named like a spec would wait for its writer.
    let flags = i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or(0);
    let file = match OpenOptions::new().read(true).custom_flags(flags).open(path) {
        Ok(file) => file,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            let dangling = fs::symlink_metadata(path).is_ok_and(|found| found.is_symlink());
            return Err(if dangling { ReadFault::Dangling } else { ReadFault::Gone });
        }
        Err(error) => return Err(ReadFault::Refused(error)),
    };
    let found = file.metadata()?;
    if !found.is_file() {
        return Err(ReadFault::NotAFile);
    }
    let mut bytes = Vec::with_capacity(usize::try_from(found.len().min(most)).unwrap_or(0));
    file.take(most + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > most { Err(ReadFault::TooLarge(most)) } else { Ok(bytes) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_files_within_the_bound_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::write(at("fits"), "12345").unwrap();
        fs::write(at("large"), "123456").unwrap();
        std::os::unix::fs::symlink(at("nowhere"), at("dangling")).unwrap();
        let made = std::process::Command::new("mkfifo").arg(at("pipe")).status().unwrap();
        assert!(made.success());

        assert_eq!(read_bounded(&at("fits"), 5).unwrap(), b"12345");
        assert!(matches!(read_bounded(&at("large"), 5), Err(ReadFault::TooLarge(5))));
        assert!(matches!(read_bounded(&at("nowhere"), 5), Err(ReadFault::Gone)));
        assert!(matches!(read_bounded(&at("fits/below"), 5), Err(ReadFault::Gone)));
        assert!(matches!(read_bounded(&at("dangling"), 5), Err(ReadFault::Dangling)));
        assert!(matches!(read_bounded(&at("pipe"), 5), Err(ReadFault::NotAFile)));
        assert!(matches!(read_bounded(dir.path(), 5), Err(ReadFault::NotAFile)));
    }
}
