//! Which folders must be listened to so that no change of a path goes unheard: every symbolic link on the way to it can
//! be turned elsewhere in the folder that holds the link, and the last step replaced in its own.
//!
//! Invariant: a trail ends; links that go in circles end it early.

use std::{
    collections::VecDeque,
    ffi::OsString,
    fs,
    path::{Component, Path, PathBuf},
};

/// As many links as the kernel follows.
const MAX_LINKS: usize = 40;

/// The steps to a path.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Trail {
    /// The links on the way, and the last step: real paths but for the last name. Their parents are to be listened to.
    pub(super) steps: Vec<PathBuf>,
    /// Where the path leads in the end; `None` when it leads nowhere.
    pub(super) end: Option<PathBuf>,
}

/// Follows `path` from the root of the file system.
pub(super) fn follow(path: &Path) -> Trail {
    let mut trail = Trail::default();
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let mut here = PathBuf::new();
    let mut ahead: VecDeque<OsString> = parts(&absolute);
    let mut links = 0;
    while let Some(part) = ahead.pop_front() {
        match Path::new(&part).components().next() {
            None | Some(Component::CurDir) => {}
            Some(Component::ParentDir) => {
                here.pop();
            }
            Some(Component::RootDir | Component::Prefix(_)) => here = PathBuf::from(part),
            Some(Component::Normal(name)) => {
                let step = here.join(name);
                match fs::symlink_metadata(&step) {
                    Err(_) => {
                        trail.steps.push(step);
                        return trail;
                    }
                    Ok(found) if found.is_symlink() => {
                        links += 1;
                        let target = fs::read_link(&step).ok().filter(|_| links <= MAX_LINKS);
                        trail.steps.push(step);
                        let Some(target) = target else { return trail };
                        for part in parts(&target).into_iter().rev() {
                            ahead.push_front(part);
                        }
                    }
                    Ok(_) => here = step,
                }
            }
        }
    }
    if trail.steps.last() != Some(&here) {
        trail.steps.push(here.clone());
    }
    trail.end = Some(here);
    trail
}

fn parts(path: &Path) -> VecDeque<OsString> {
    path.components().map(|part| part.as_os_str().to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn check(at: &Path, path: &str, steps: &[&str], end: Option<&str>) {
        let trail = follow(&at.join(path));
        let steps: Vec<PathBuf> = steps.iter().map(|step| at.join(step)).collect();
        assert_eq!(trail.steps, steps, "{path}");
        assert_eq!(trail.end, end.map(|end| at.join(end)), "{path}");
    }

    #[test]
    fn every_link_on_the_way_is_a_step() {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path().canonicalize().unwrap();
        for folder in ["specs", "releases/v1", "mount/..one"] {
            fs::create_dir_all(at.join(folder)).unwrap();
        }
        fs::write(at.join("mount/..one/flags.yaml"), "").unwrap();
        symlink("releases/v1", at.join("direct")).unwrap();
        symlink(at.join("direct"), at.join("chained")).unwrap();
        symlink("../specs", at.join("releases/up")).unwrap();
        symlink("..one", at.join("mount/..data")).unwrap();
        symlink("..data/flags.yaml", at.join("mount/flags.yaml")).unwrap();
        symlink("circle", at.join("circle")).unwrap();

        check(&at, "specs", &["specs"], Some("specs"));
        check(&at, "direct", &["direct", "releases/v1"], Some("releases/v1"));
        check(&at, "chained", &["chained", "direct", "releases/v1"], Some("releases/v1"));
        check(&at, "releases/up", &["releases/up", "specs"], Some("specs"));
        check(
            &at,
            "mount/flags.yaml",
            &["mount/flags.yaml", "mount/..data", "mount/..one/flags.yaml"],
            Some("mount/..one/flags.yaml"),
        );
        check(&at, "absent/below", &["absent"], None);
        check(&at, "direct/absent", &["direct", "releases/v1/absent"], None);
        let circle = follow(&at.join("circle"));
        assert_eq!((circle.end, circle.steps.len()), (None, MAX_LINKS + 1));
    }
}
