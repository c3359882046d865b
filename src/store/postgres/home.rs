//! Which node this daemon is: an id in a file beside its data, locked while it runs.
//!
//! Invariant: whoever holds the lock is the only process with that id, so what the id left running is nobody's: a restarted
//! daemon takes its work back at once. Several daemons in one folder take a file each.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, TryLockError},
    io::{self, Read, Seek, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::Path,
};

use crate::ids::NodeId;

/// Daemons that share one folder, at most.
const PLACES: u32 = 64;

/// A node id that is ours while this lives.
#[derive(Debug)]
pub struct Home {
    /// The id.
    pub node: NodeId,
    _lock: Option<File>,
}

impl Home {
    /// Takes the first free id of the folder, or makes one. Without a folder to write to, an id for this life alone.
    pub fn take(folder: Option<&Path>) -> Self {
        let found = folder.map(take_in);
        if let (Some(folder), Some(Err(error))) = (folder, &found) {
            tracing::warn!(
                folder = %folder.display(), %error,
                "the node's id cannot be kept there: after a crash its jobs are only taken up when its lease has run out"
            );
        }
        match found {
            Some(Ok(home)) => home,
            _ => Self { node: NodeId::generate(), _lock: None },
        }
    }
}

fn take_in(folder: &Path) -> io::Result<Home> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    for place in 1..=PLACES {
        let name = if place == 1 { "node".to_owned() } else { format!("node-{place}") };
        let path = folder.join(name);
        let mut file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => continue,
            Err(TryLockError::Error(error)) => return Err(error),
        }
        let mut text = String::new();
        (&file).take(100).read_to_string(&mut text)?;
        let node = if let Ok(node) = text.trim().parse() {
            node
        } else {
            let node = NodeId::generate();
            file.rewind()?;
            file.set_len(0)?;
            writeln!(file, "{node}")?;
            file.sync_all()?;
            fs::File::open(folder)?.sync_all()?;
            node
        };
        return Ok(Home { node, _lock: Some(file) });
    }
    Err(io::Error::other(format!("{PLACES} daemons run in it already")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_restart_keeps_its_id_and_a_second_daemon_gets_another() {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("data");
        let first = Home::take(Some(&inner));
        let second = Home::take(Some(&inner));
        assert_ne!(first.node, second.node);
        let (one, two) = (first.node, second.node);
        drop(first);
        assert_eq!(Home::take(Some(&inner)).node, one);
        drop(second);
        let again = [Home::take(Some(&inner)), Home::take(Some(&inner))];
        assert_eq!(again.each_ref().map(|home| home.node), [one, two]);
        fs::write(inner.join("node-3"), "half an i").unwrap();
        let third = Home::take(Some(&inner)).node;
        assert_eq!(Home::take(Some(&inner)).node, third, "what was torn is written anew");
        let nowhere = Home::take(Some(&inner.join("node")));
        assert_ne!(nowhere.node, one);
    }
}
