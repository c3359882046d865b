//! One look at everything that is watched: which files are there and what they hold, within bounds.
//!
//! Invariant: a look never fails as a whole. What cannot be read is named, with why, so that a fault in one place (even
//! a pipelines folder that is gone) keeps no other file, least of all the flags, from getting through.

use std::{
    collections::{BTreeMap, BTreeSet},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use sha2::{Digest as _, Sha256};
use walkdir::{DirEntry, WalkDir};

use super::{
    Folders,
    read::{ReadFault, read_bounded},
};
use crate::{
    diagnostic::Diagnostic,
    snapshot::{SourceFile, Sources},
};

/// Largest file that is read: specs are some kilobytes.
pub const MAX_FILE_BYTES: u64 = 1024 * 1024;
/// All files together: what a scan may hold in memory.
pub const MAX_TOTAL_BYTES: u64 = 64 * 1024 * 1024;
/// Most specs, and most model definitions.
pub const MAX_FILES: usize = 10_000;
/// Most names looked at in a folder, specs or not: guards against `pipelines: /`.
pub const MAX_ENTRIES: usize = 50_000;
/// Folders below the pipelines folder, one inside the other.
pub const MAX_DEPTH: usize = 16;

/// What a look reads at most.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    pub(super) file_bytes: u64,
    pub(super) total_bytes: u64,
    pub(super) files: usize,
    pub(super) entries: usize,
}

const BOUNDS: Bounds =
    Bounds { file_bytes: MAX_FILE_BYTES, total_bytes: MAX_TOTAL_BYTES, files: MAX_FILES, entries: MAX_ENTRIES };

/// What a look found, ready to be loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scan {
    /// What a snapshot is made from.
    pub sources: Sources,
    /// The settings file's bytes; `None` when it is gone or could not be read.
    pub settings: Option<Vec<u8>>,
    /// Why the settings file could not be read.
    pub settings_fault: Option<Diagnostic>,
    /// Equal for equal contents.
    pub hash: ScanHash,
}

/// SHA-256 over the names and contents of everything that a look found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ScanHash(pub [u8; 32]);

impl Scan {
    /// The pipelines folder is gone, unreadable or too full: which is not the same as holding no specs.
    pub fn folder_fault(&self) -> Option<&Diagnostic> {
        self.sources.unreadable.get(&SourceFile::SpecFolder(String::new()))
    }
}

/// Looks once, without waiting for files to come to rest.
pub fn scan(folders: &Folders) -> Scan {
    assemble(look(folders).parts)
}

/// Something watched, whose contents settle on their own.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Part {
    Source(SourceFile),
    Settings,
}

/// What a part holds: bytes, or why there are none.
#[derive(Debug, Clone)]
pub(super) struct Content {
    pub(super) digest: [u8; 32],
    pub(super) body: Result<Arc<[u8]>, Diagnostic>,
}

impl Content {
    pub(super) fn bytes(bytes: Vec<u8>) -> Self {
        Self { digest: Sha256::digest(&bytes).into(), body: Ok(bytes.into()) }
    }

    pub(super) fn fault(diagnostic: Diagnostic) -> Self {
        let mut hasher = Sha256::new_with_prefix(b"fault\0");
        hasher.update(&diagnostic.code);
        hasher.update(b"\0");
        hasher.update(&diagnostic.message);
        Self { digest: hasher.finalize().into(), body: Err(diagnostic) }
    }
}

/// The raw result of a look.
#[derive(Debug, Default)]
pub(super) struct Look {
    /// What was found; what is not there is not in it.
    pub(super) parts: BTreeMap<Part, Content>,
    /// Device and inode of every folder that was walked: a change of these means watching other folders.
    pub(super) walked: BTreeSet<(u64, u64)>,
    /// A folder held too much to be walked, and so too much to be watched by events.
    pub(super) crowded: bool,
    /// Bytes that may still be read.
    room: u64,
}

/// Reads everything.
pub(super) fn look(folders: &Folders) -> Look {
    look_within(BOUNDS, folders)
}

/// Reads everything within `bounds`.
pub(super) fn look_within(bounds: Bounds, folders: &Folders) -> Look {
    let mut look = Look { room: bounds.total_bytes, ..Look::default() };
    // The small, important ones first: a folder that uses up the bounds must not cost a kill switch.
    for (part, path) in [
        (Part::Settings, &folders.settings_file),
        (Part::Source(SourceFile::Flags), &folders.flags_file),
        (Part::Source(SourceFile::Catalog), &folders.catalog_file),
        (Part::Source(SourceFile::Policy), &folders.policy_file),
    ] {
        look.read(bounds, part, path);
    }
    look.walk(bounds, &folders.models, &Models);
    look.walk(bounds, &folders.pipelines, &Specs);
    look
}

/// How the files of a folder are named as parts.
trait Kind {
    /// Levels of folders.
    fn depth(&self) -> usize;
    /// The part that a file at `relative` is, when its name says that it is one.
    fn file(&self, relative: &str) -> Option<SourceFile>;
    /// The part that stands for a folder.
    fn folder(&self, relative: &str) -> SourceFile;
    /// Whether a missing folder is a fault.
    fn required(&self) -> bool;
}

struct Specs;

impl Kind for Specs {
    fn depth(&self) -> usize {
        MAX_DEPTH
    }

    fn file(&self, relative: &str) -> Option<SourceFile> {
        let extension = Path::new(relative).extension()?;
        (extension == "yaml" || extension == "yml").then(|| SourceFile::Spec(relative.to_owned()))
    }

    fn folder(&self, relative: &str) -> SourceFile {
        SourceFile::SpecFolder(relative.to_owned())
    }

    fn required(&self) -> bool {
        true
    }
}

struct Models;

impl Kind for Models {
    fn depth(&self) -> usize {
        1
    }

    fn file(&self, relative: &str) -> Option<SourceFile> {
        relative.strip_suffix(".json").map(|stem| SourceFile::Model(stem.to_owned()))
    }

    fn folder(&self, _relative: &str) -> SourceFile {
        SourceFile::ModelFolder
    }

    fn required(&self) -> bool {
        false
    }
}

impl Look {
    fn read(&mut self, bounds: Bounds, part: Part, path: &Path) {
        let content = match read_bounded(path, bounds.file_bytes.min(self.room)) {
            Ok(bytes) => {
                self.room -= bytes.len() as u64;
                Content::bytes(bytes)
            }
            Err(ReadFault::Gone) => return,
            Err(ReadFault::TooLarge(_)) if self.room < bounds.file_bytes => Content::fault(
                Diagnostic::error(
                    "too-large",
                    &shown(path),
                    format!("not read: with it the watched files would exceed {} bytes together", bounds.total_bytes),
                )
                .help("move files that are no specs out of the watched folders"),
            ),
            Err(fault) => Content::fault(unreadable(path, &fault)),
        };
        self.parts.insert(part, content);
    }

    fn walk(&mut self, bounds: Bounds, root: &Path, kind: &dyn Kind) {
        let walk = WalkDir::new(root)
            .follow_links(true)
            .max_depth(kind.depth())
            .sort_by_file_name()
            .into_iter()
            .filter_entry(|entry| entry.depth() == 0 || !is_hidden(entry));
        let mut files = 0;
        for (seen, entry) in walk.enumerate() {
            if seen >= bounds.entries || files >= bounds.files {
                self.crowd(bounds, root, kind);
                return;
            }
            match entry {
                Ok(entry) => files += usize::from(self.visit(bounds, root, &entry, kind)),
                Err(error) => self.stumble(root, &error, kind),
            }
        }
    }

    /// Takes in one name of a folder; whether it was a file of ours.
    fn visit(&mut self, bounds: Bounds, root: &Path, entry: &DirEntry, kind: &dyn Kind) -> bool {
        let relative = relative(root, entry.path());
        if entry.file_type().is_dir() {
            if let Ok(found) = entry.metadata() {
                self.walked.insert((found.dev(), found.ino()));
            }
            if entry.depth() == kind.depth() && kind.depth() > 1 {
                self.fault(
                    kind.folder(&relative),
                    Diagnostic::error(
                        "too-deep",
                        &shown(entry.path()),
                        format!("not read: it is more than {MAX_DEPTH} folders below {}", root.display()),
                    ),
                );
            }
            return false;
        }
        if entry.depth() == 0 {
            self.fault(kind.folder(""), unreadable(root, "it is a file, where a folder is expected"));
            return false;
        }
        let Some(file) = kind.file(&relative) else { return false };
        if entry.path().to_str().is_none() {
            self.fault(file, unreadable(entry.path(), "its name is not valid UTF-8"));
        } else {
            self.read(bounds, Part::Source(file), entry.path());
        }
        true
    }

    fn stumble(&mut self, root: &Path, error: &walkdir::Error, kind: &dyn Kind) {
        let path = error.path().unwrap_or(root);
        let relative = relative(root, path);
        let gone = error.io_error().is_some_and(|error| error.kind() == std::io::ErrorKind::NotFound);
        if path == root {
            if gone && !path.is_symlink() {
                if kind.required() {
                    let fault = unreadable(root, "the folder does not exist");
                    self.fault(kind.folder(""), fault.help("create it, or name another under `pipelines:`"));
                }
                return;
            }
            let words = if gone { "it is a link that leads nowhere".to_owned() } else { said(error) };
            self.fault(kind.folder(""), unreadable(root, words));
        } else if gone && !path.is_symlink() {
            // Removed between the listing and the look at it.
        } else {
            let part = kind.file(&relative).unwrap_or_else(|| kind.folder(&relative));
            let words = if gone { "it is a link that leads nowhere".to_owned() } else { said(error) };
            self.fault(part, unreadable(path, words));
        }
    }

    fn crowd(&mut self, bounds: Bounds, root: &Path, kind: &dyn Kind) {
        self.crowded = true;
        self.fault(
            kind.folder(""),
            Diagnostic::error(
                "too-many-files",
                &shown(root),
                format!("read in part: it holds more than {} files of ours or {} names", bounds.files, bounds.entries),
            )
            .help("name a folder that holds specs alone"),
        );
    }

    fn fault(&mut self, file: SourceFile, diagnostic: Diagnostic) {
        self.parts.insert(Part::Source(file), Content::fault(diagnostic));
    }
}

fn is_hidden(entry: &DirEntry) -> bool {
    entry.file_name().as_encoded_bytes().starts_with(b".")
}

fn relative(root: &Path, path: &Path) -> String {
    path.strip_prefix(root).unwrap_or(path).to_string_lossy().into_owned()
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

fn said(error: &walkdir::Error) -> String {
    match (error.loop_ancestor(), error.io_error()) {
        (Some(ancestor), _) => format!("it is a link back to {}", ancestor.display()),
        (None, Some(cause)) => format!("the system says: {cause}"),
        (None, None) => error.to_string(),
    }
}

fn unreadable(path: &Path, why: impl std::fmt::Display) -> Diagnostic {
    let code = "unreadable";
    Diagnostic::error(code, &shown(path), format!("{} cannot be read: {why}", path.display()))
}

/// Puts parts together as the loader wants them.
pub(super) fn assemble(parts: BTreeMap<Part, Content>) -> Scan {
    let mut hasher = Sha256::new();
    let mut sources = Sources::default();
    let mut settings = None;
    let mut settings_fault = None;
    for (part, content) in parts {
        let name = format!("{part:?}");
        hasher.update((name.len() as u64).to_be_bytes());
        hasher.update(name.as_bytes());
        hasher.update([u8::from(content.body.is_ok())]);
        hasher.update(content.digest);
        match (part, content.body) {
            (Part::Settings, Ok(bytes)) => settings = Some(bytes.to_vec()),
            (Part::Settings, Err(fault)) => settings_fault = Some(fault),
            (Part::Source(file), Err(fault)) => {
                sources.unreadable.insert(file, fault);
            }
            (Part::Source(SourceFile::Spec(name)), Ok(bytes)) => {
                sources.specs.insert(name, bytes.to_vec());
            }
            (Part::Source(SourceFile::Model(stem)), Ok(bytes)) => {
                sources.models.insert(stem, bytes.to_vec());
            }
            (Part::Source(SourceFile::Flags), Ok(bytes)) => sources.flags = Some(bytes.to_vec()),
            (Part::Source(SourceFile::Catalog), Ok(bytes)) => sources.catalog = Some(bytes.to_vec()),
            (Part::Source(SourceFile::Policy), Ok(bytes)) => sources.policy = Some(bytes.to_vec()),
            // Folders hold no bytes.
            (Part::Source(SourceFile::SpecFolder(_) | SourceFile::ModelFolder), Ok(_)) => {}
        }
    }
    Scan { sources, settings, settings_fault, hash: ScanHash(hasher.finalize().into()) }
}

/// The fault of a part that will not hold still.
pub(super) fn restless(part: &Part, folders: &Folders) -> Content {
    let path: PathBuf = match part {
        Part::Settings => folders.settings_file.clone(),
        Part::Source(SourceFile::Spec(name) | SourceFile::SpecFolder(name)) => folders.pipelines.join(name),
        Part::Source(SourceFile::Model(stem)) => folders.models.join(format!("{stem}.json")),
        Part::Source(SourceFile::ModelFolder) => folders.models.clone(),
        Part::Source(SourceFile::Flags) => folders.flags_file.clone(),
        Part::Source(SourceFile::Catalog) => folders.catalog_file.clone(),
        Part::Source(SourceFile::Policy) => folders.policy_file.clone(),
    };
    Content::fault(
        Diagnostic::error("unsettled", &shown(&path), format!("not loaded: {} is still being written", path.display()))
            .help("write to a temporary name whose first character is a dot, then rename it into place"),
    )
}
