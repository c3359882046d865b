//! Where the file lives: its folder, its lock, who may read it.
//!
//! Invariant: one process has the file at a time, and it holds the lock before it opens anything else. (Closing any handle
//! of a file drops all POSIX locks that the process has on it, so nobody but SQLite may open the file of a living store.)

use std::{
    fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError},
    io::{self, Read, Seek, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use crate::store::{Result, StoreError};

/// Nobody but the owner.
const PRIVATE_FILE: u32 = 0o600;
const PRIVATE_FOLDER: u32 = 0o700;

/// The rights of everybody else.
const OTHERS: u32 = 0o077;

/// A database file that is ours while this lives.
#[derive(Debug)]
pub struct Home {
    /// The file, with links resolved.
    pub path: PathBuf,
    _lock: File,
}

impl Home {
    /// Makes the folder and an empty file where there are none, and takes the lock.
    pub fn take(path: &Path) -> Result<Self> {
        let path = settle_path(path)?;
        let lock = lock(&beside(&path, ".lock"))?;
        create_private(&path)?;
        for file in [path.clone(), beside(&path, "-wal"), beside(&path, "-shm")] {
            make_private(&file)?;
        }
        Ok(Self { path, _lock: lock })
    }
}

/// The path of a file that belongs to the database: `queue.db` and `-wal` give `queue.db-wal`.
pub fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// Makes the folder, and finds the one name that all ways to the file share.
fn settle_path(path: &Path) -> Result<PathBuf> {
    let Some(name) = path.file_name() else {
        return Err(StoreError::Unusable(format!(
            "{} names no file; give the database file, such as data/landbridge.db",
            path.display()
        )));
    };
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let made = DirBuilder::new().recursive(true).mode(PRIVATE_FOLDER).create(folder);
    made.map_err(|error| unwritable(folder, "the folder cannot be created", &error))?;
    if let Ok(real) = fs::canonicalize(path) {
        return Ok(real);
    }
    let folder =
        fs::canonicalize(folder).map_err(|error| unwritable(folder, "the folder cannot be entered", &error))?;
    Ok(folder.join(name))
}

fn lock(path: &Path) -> Result<File> {
    let opened = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(PRIVATE_FILE).open(path);
    let mut file = opened.map_err(|error| unwritable(path, "the lock file cannot be opened", &error))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            let read = (&file).take(20).read_to_string(&mut holder);
            let holder = match holder.trim() {
                pid if read.is_ok() && !pid.is_empty() => format!("process {pid}"),
                _ => "another process".to_owned(),
            };
            return Err(StoreError::Held(format!(
                "{holder} has it ({} is locked); one daemon works on a SQLite file at a time: stop that one, or give this \
                 one a `store:` of its own",
                path.display()
            )));
        }
        Err(TryLockError::Error(error)) => return Err(unwritable(path, "the lock file cannot be locked", &error)),
    }
    let noted = file.rewind().and_then(|()| file.set_len(0)).and_then(|()| writeln!(file, "{}", std::process::id()));
    noted.map_err(|error| unwritable(path, "the lock file cannot be written", &error))?;
    make_private(path)?;
    Ok(file)
}

/// Creates an empty file that only its owner can read, durably.
fn create_private(path: &Path) -> Result<()> {
    let opened = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(PRIVATE_FILE).open(path);
    let file = opened.map_err(|error| unwritable(path, "the file cannot be opened for writing", &error))?;
    let kind = file.metadata().map_err(|error| unwritable(path, "the file cannot be examined", &error))?;
    if !kind.is_file() {
        return Err(StoreError::Unusable(format!("{} is not a regular file", path.display())));
    }
    if let Some(folder) = path.parent() {
        let synced = File::open(folder).and_then(|folder| folder.sync_all());
        synced.map_err(|error| unwritable(folder, "the folder cannot be synced to disk", &error))?;
    }
    Ok(())
}

/// Takes everybody else's rights to a file, if it is there.
fn make_private(path: &Path) -> Result<()> {
    match fs::metadata(path) {
        Ok(found) if found.permissions().mode() & OTHERS == 0 => Ok(()),
        Ok(_) => fs::set_permissions(path, Permissions::from_mode(PRIVATE_FILE))
            .map_err(|error| unwritable(path, "others may read the file, and that cannot be changed", &error)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(unwritable(path, "the file cannot be examined", &error)),
    }
}

fn unwritable(path: &Path, what: &str, error: &io::Error) -> StoreError {
    use io::ErrorKind as Kind;
    let advice = match error.kind() {
        Kind::PermissionDenied => "; give the user who runs the daemon the right to write there",
        Kind::ReadOnlyFilesystem => "; the file system is read-only: mount it writable, or choose another `store:`",
        Kind::StorageFull | Kind::QuotaExceeded => "; free some space on its disk",
        Kind::NotADirectory => "; part of that path is a file, not a folder: choose another `store:`",
        Kind::IsADirectory => "; that is a folder: `store:` names a file in it",
        _ => "",
    };
    StoreError::Unwritable(format!("{}: {what}: {error}{advice}", path.display()))
}
