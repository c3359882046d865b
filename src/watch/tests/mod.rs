//! Every way in which editors, deployments and mishaps change files, with real files. Where events are to be proved, the
//! rescan is an hour away; where it is to be proved, there are no events.

mod looks;

use std::{
    fs,
    io::Write,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use notify::{Event, EventKind, NullWatcher, event::Flag};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use super::{ears::Listener, *};
use crate::snapshot::SourceFile;

const EVENTS_ONLY: WatchSettings = WatchSettings {
    mode: WatchMode::Auto,
    quiet: Duration::from_millis(150),
    rescan: Duration::from_hours(1),
    apply: crate::settings::ApplyMode::PerFile,
    allow_empty: false,
};

fn no_events(_: Listener) -> notify::Result<Box<dyn notify::Watcher + Send>> {
    Ok(Box::new(NullWatcher))
}

fn no_watcher(_: Listener) -> notify::Result<Box<dyn notify::Watcher + Send>> {
    Err(notify::Error::new(notify::ErrorKind::MaxFilesWatch))
}

struct Site {
    dir: TempDir,
    watcher: Watcher,
}

impl Site {
    /// A site whose files `prepare` has made, its first contents taken in.
    async fn new(prepare: impl FnOnce(&Path)) -> (Self, Scan) {
        Self::with(ears::system, EVENTS_ONLY, prepare).await
    }

    async fn with(make: Maker, settings: WatchSettings, prepare: impl FnOnce(&Path)) -> (Self, Scan) {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("config")).unwrap();
        prepare(dir.path());
        let watcher = Watcher::start_with(make, folders(dir.path()), settings, CancellationToken::new());
        let mut site = Self { dir, watcher };
        let first = site.change().await;
        assert_eq!(first.trigger, Trigger::Startup);
        (site, first.scan)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    async fn change(&mut self) -> Change {
        let change = tokio::time::timeout(Duration::from_secs(30), self.watcher.next()).await;
        change.expect("the change was not noticed").expect("not cancelled")
    }

    /// The specs after the next change.
    async fn specs(&mut self) -> Vec<String> {
        listed(&self.change().await.scan)
    }

    /// Changes a spec and sees that it is noticed: the watcher is not deaf.
    async fn assert_hears(&mut self, spec: &str, before: &[&str]) {
        for text in ["one last", "word"] {
            put(&self.path("pipelines").join(spec), text);
            let mut expected: Vec<String> = before.iter().map(|spec| (*spec).to_owned()).collect();
            expected.push(format!("{spec}={text}"));
            expected.sort();
            assert_eq!(self.specs().await, expected);
        }
    }
}

fn folders(at: &Path) -> Folders {
    Folders {
        pipelines: at.join("pipelines"),
        models: at.join("config/models"),
        flags_file: at.join("config/flags.yaml"),
        catalog_file: at.join("config/catalog.yaml"),
        policy_file: at.join("config/policy.yaml"),
        settings_file: at.join("config/landbridge.yaml"),
    }
}

fn listed(scan: &Scan) -> Vec<String> {
    scan.sources.specs.iter().map(|(name, bytes)| format!("{name}={}", String::from_utf8_lossy(bytes))).collect()
}

/// Writes a file with all folders above it.
fn put(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

/// Turns a link, as deployments do: a new link is renamed over the old one.
fn turn(link: &Path, target: &str) {
    let fresh = link.parent().unwrap().join("..fresh");
    symlink(target, &fresh).unwrap();
    fs::rename(fresh, link).unwrap();
}

#[tokio::test]
async fn everything_watched_is_in_the_first_scan() {
    let (_site, scan) = Site::new(|at| {
        put(&at.join("pipelines/a.yaml"), "a");
        put(&at.join("pipelines/team/b.yml"), "b");
        for ignored in [".hidden.yaml", ".git/c.yaml", "..data/d.yaml", "notes.txt", "a.yaml~", "e.YAML", "4913"] {
            put(&at.join("pipelines").join(ignored), "no spec");
        }
        put(&at.join("config/models/haiku.json"), "m");
        put(&at.join("config/models/deeper/no.json"), "not looked at");
        put(&at.join("config/flags.yaml"), "f");
        put(&at.join("config/catalog.yaml"), "c");
        put(&at.join("config/landbridge.yaml"), "s");
    })
    .await;
    assert_eq!(listed(&scan), ["a.yaml=a", "team/b.yml=b"]);
    assert_eq!(scan.sources.models.into_iter().collect::<Vec<_>>(), [("haiku".to_owned(), b"m".to_vec())]);
    assert_eq!(scan.sources.flags.as_deref(), Some(&b"f"[..]));
    assert_eq!(scan.sources.catalog.as_deref(), Some(&b"c"[..]));
    assert_eq!(scan.settings.as_deref(), Some(&b"s"[..]));
    assert_eq!((scan.sources.unreadable.len(), scan.settings_fault), (0, None));
}

#[tokio::test]
async fn editors_that_rename_are_heard_every_time() {
    let (mut site, _) = Site::new(|at| {
        put(&at.join("pipelines/a.yaml"), "0");
        put(&at.join("config/flags.yaml"), "0");
    })
    .await;
    let spec = site.path("pipelines/a.yaml");
    for text in ["1", "2"] {
        // vim: probes the folder, moves the old file aside, writes a new one.
        put(&site.path("pipelines/4913"), "");
        fs::remove_file(site.path("pipelines/4913")).unwrap();
        fs::rename(&spec, site.path("pipelines/a.yaml~")).unwrap();
        put(&spec, text);
        fs::remove_file(site.path("pipelines/a.yaml~")).unwrap();
        assert_eq!(site.specs().await, [format!("a.yaml={text}")]);
    }
    for text in ["3", "4"] {
        // VS Code and careful scripts: a new file is renamed over the old one.
        put(&site.path("pipelines/.a.yaml.tmp"), text);
        fs::rename(site.path("pipelines/.a.yaml.tmp"), &spec).unwrap();
        assert_eq!(site.specs().await, [format!("a.yaml={text}")]);
    }
    for text in ["5", "6"] {
        put(&site.path("config/.flags.tmp"), text);
        fs::rename(site.path("config/.flags.tmp"), site.path("config/flags.yaml")).unwrap();
        let change = site.change().await;
        assert_eq!(change.scan.sources.flags.as_deref(), Some(text.as_bytes()));
        assert_eq!(change.trigger, Trigger::Watch);
    }
}

#[tokio::test]
async fn a_file_written_in_slow_chunks_is_taken_whole() {
    let quiet = Duration::from_millis(500);
    let (mut site, _) =
        Site::with(ears::system, WatchSettings { quiet, ..EVENTS_ONLY }, |at| put(&at.join("pipelines/a.yaml"), "old"))
            .await;
    let path = site.path("pipelines/a.yaml");
    let writer = std::thread::spawn(move || {
        let mut file = fs::File::create(path).unwrap();
        for chunk in 0..20 {
            writeln!(file, "line-{chunk}: text").unwrap();
            file.flush().unwrap();
            std::thread::sleep(quiet / 10);
        }
    });
    let change = site.change().await;
    let text = String::from_utf8(change.scan.sources.specs["a.yaml"].clone()).unwrap();
    assert_eq!(text.lines().count(), 20, "torn: {text}");
    assert!(change.scan.sources.unreadable.is_empty());
    writer.join().unwrap();
}

#[tokio::test]
async fn config_maps_are_followed_swap_after_swap() {
    let write_version = |at: &Path, version: u32| {
        for mount in ["pipelines", "config"] {
            put(&at.join(format!("{mount}/..v{version}/a.yaml")), &version.to_string());
            put(&at.join(format!("{mount}/..v{version}/flags.yaml")), &version.to_string());
        }
    };
    let (mut site, first) = Site::new(|at| {
        write_version(at, 0);
        symlink("..v0", at.join("pipelines/..data")).unwrap();
        symlink("..v0", at.join("config/..data")).unwrap();
        symlink("..data/a.yaml", at.join("pipelines/a.yaml")).unwrap();
        symlink("..data/flags.yaml", at.join("config/flags.yaml")).unwrap();
    })
    .await;
    assert_eq!(listed(&first), ["a.yaml=0"]);
    for version in [1, 2, 3] {
        write_version(site.dir.path(), version);
        for mount in ["pipelines", "config"] {
            turn(&site.path(mount).join("..data"), &format!("..v{version}"));
            fs::remove_dir_all(site.path(mount).join(format!("..v{}", version - 1))).unwrap();
            let change = site.change().await;
            assert_eq!(change.trigger, Trigger::Watch);
            if mount == "pipelines" {
                assert_eq!(listed(&change.scan), [format!("a.yaml={version}")]);
            } else {
                assert_eq!(change.scan.sources.flags, Some(version.to_string().into_bytes()));
            }
        }
    }
}

#[tokio::test]
async fn a_folder_that_is_deleted_is_reported_and_heard_again_when_made_anew() {
    let (mut site, _) = Site::new(|at| put(&at.join("pipelines/a.yaml"), "0")).await;
    for round in ["1", "2"] {
        fs::remove_dir_all(site.path("pipelines")).unwrap();
        let gone = site.change().await.scan;
        assert!(gone.folder_fault().unwrap().message.contains("does not exist"));
        assert!(gone.sources.unreadable_spec("a.yaml").is_some(), "gone with its folder, not removed");
        put(&site.path("pipelines/a.yaml"), round);
        let back = site.change().await.scan;
        assert_eq!((listed(&back), back.folder_fault()), (vec![format!("a.yaml={round}")], None));
    }
    // Made anew before anybody could look: it may even have the number on disk that the old one had.
    fs::remove_dir_all(site.path("pipelines")).unwrap();
    put(&site.path("pipelines/sub/a.yaml"), "3");
    assert_eq!(site.specs().await, ["sub/a.yaml=3"]);
    fs::remove_dir_all(site.path("pipelines/sub")).unwrap();
    put(&site.path("pipelines/sub/a.yaml"), "4");
    assert_eq!(site.specs().await, ["sub/a.yaml=4"]);
    site.assert_hears("sub/b.yaml", &["sub/a.yaml=4"]).await;
    site.assert_hears("b.yaml", &["sub/a.yaml=4", "sub/b.yaml=word"]).await;
}

#[tokio::test]
async fn a_folder_that_is_renamed_away_and_back_is_heard_throughout() {
    let (mut site, _) = Site::new(|at| put(&at.join("pipelines/a.yaml"), "0")).await;
    for _ in 0..2 {
        fs::rename(site.path("pipelines"), site.path("aside")).unwrap();
        assert!(site.change().await.scan.folder_fault().is_some());
        put(&site.path("aside/a.yaml"), "0");
        fs::rename(site.path("aside"), site.path("pipelines")).unwrap();
        let back = site.change().await.scan;
        assert_eq!((listed(&back), back.folder_fault()), (vec!["a.yaml=0".to_owned()], None));
    }
    site.assert_hears("b.yaml", &["a.yaml=0"]).await;
    // Another folder in its place, in one go.
    put(&site.path("other/c.yaml"), "c");
    fs::rename(site.path("pipelines"), site.path("aside")).unwrap();
    fs::rename(site.path("other"), site.path("pipelines")).unwrap();
    assert_eq!(site.specs().await, ["c.yaml=c"]);
    put(&site.path("aside/a.yaml"), "no longer ours");
    site.assert_hears("b.yaml", &["c.yaml=c"]).await;
}

#[tokio::test]
async fn a_root_link_may_be_turned_at_any_step() {
    let (mut site, first) = Site::new(|at| {
        for version in 0..4 {
            put(&at.join(format!("releases/v{version}/a.yaml")), &version.to_string());
        }
        symlink("v0", at.join("releases/current")).unwrap();
        symlink(at.join("releases/current"), at.join("pipelines")).unwrap();
    })
    .await;
    assert_eq!(listed(&first), ["a.yaml=0"]);
    // The second link of the chain lies elsewhere.
    for version in [1, 2] {
        turn(&site.path("releases/current"), &format!("v{version}"));
        assert_eq!(site.specs().await, [format!("a.yaml={version}")]);
    }
    turn(&site.path("pipelines"), "releases/v3");
    assert_eq!(site.specs().await, ["a.yaml=3"]);
    site.assert_hears("b.yaml", &["a.yaml=3"]).await;
}

#[tokio::test]
async fn the_rescan_finds_what_no_event_told() {
    let settings = WatchSettings { rescan: Duration::from_millis(100), ..EVENTS_ONLY };
    let (mut site, _) = Site::with(no_events, settings, |at| {
        put(&at.join("releases/v1/a.yaml"), "1");
        put(&at.join("releases/v2/a.yaml"), "2");
        symlink("releases/v1", at.join("pipelines")).unwrap();
    })
    .await;
    turn(&site.path("pipelines"), "releases/v2");
    let change = site.change().await;
    assert_eq!((listed(&change.scan), change.trigger), (vec!["a.yaml=2".to_owned()], Trigger::Rescan));
}

#[tokio::test]
async fn a_new_subfolder_with_a_file_at_once_is_seen() {
    let (mut site, _) = Site::new(|at| put(&at.join("pipelines/a.yaml"), "0")).await;
    put(&site.path("pipelines/new/deep/b.yaml"), "0");
    assert_eq!(site.specs().await, ["a.yaml=0", "new/deep/b.yaml=0"]);
    put(&site.path("moved/c.yaml"), "0");
    fs::rename(site.path("moved"), site.path("pipelines/moved")).unwrap();
    assert_eq!(site.specs().await, ["a.yaml=0", "moved/c.yaml=0", "new/deep/b.yaml=0"]);
    put(&site.path("pipelines/moved/c.yaml"), "1");
    assert_eq!(site.specs().await, ["a.yaml=0", "moved/c.yaml=1", "new/deep/b.yaml=0"]);
    site.assert_hears("new/deep/b.yaml", &["a.yaml=0", "moved/c.yaml=1"]).await;
}

#[tokio::test]
async fn a_linked_subfolder_may_be_turned_elsewhere() {
    let (mut site, _) = Site::new(|at| {
        put(&at.join("teams/v1/a.yaml"), "1");
        put(&at.join("teams/v2/a.yaml"), "2");
        fs::create_dir(at.join("pipelines")).unwrap();
        symlink("../teams/v1", at.join("pipelines/team")).unwrap();
    })
    .await;
    turn(&site.path("pipelines/team"), "../teams/v2");
    assert_eq!(site.specs().await, ["team/a.yaml=2"]);
    site.assert_hears("team/b.yaml", &["team/a.yaml=2"]).await;
}

#[tokio::test]
async fn an_overflow_of_the_event_queue_leads_to_a_look_with_new_ears() {
    static MADE: AtomicUsize = AtomicUsize::new(0);
    fn counted(_: Listener) -> notify::Result<Box<dyn notify::Watcher + Send>> {
        MADE.fetch_add(1, Ordering::AcqRel);
        Ok(Box::new(NullWatcher))
    }
    let (mut site, _) = Site::with(counted, EVENTS_ONLY, |at| put(&at.join("pipelines/a.yaml"), "0")).await;
    let made_at_first = MADE.load(Ordering::Acquire);
    put(&site.path("pipelines/a.yaml"), "1");
    site.watcher.inject(Ok(Event::new(EventKind::Other).set_flag(Flag::Rescan)));
    assert_eq!(site.specs().await, ["a.yaml=1"]);
    put(&site.path("pipelines/a.yaml"), "2");
    site.watcher.inject(Err(notify::Error::generic("lost")));
    assert_eq!(site.specs().await, ["a.yaml=2"]);
    let made = MADE.load(Ordering::Acquire) - made_at_first;
    assert_eq!(made, 2, "what was lost may have been a new folder: each time, everything is listened to anew");
}

#[tokio::test]
async fn without_events_looking_is_enough() {
    let by_choice = WatchSettings { mode: WatchMode::Poll, ..EVENTS_ONLY };
    for (make, settings) in [(no_events as Maker, by_choice), (no_watcher as Maker, EVENTS_ONLY)] {
        let (mut site, _) = Site::with(make, settings, |at| put(&at.join("pipelines/a.yaml"), "0")).await;
        assert!(site.watcher.is_polling());
        put(&site.path("pipelines/a.yaml"), "1");
        let change = site.change().await;
        assert_eq!((listed(&change.scan), change.trigger), (vec!["a.yaml=1".to_owned()], Trigger::Watch));
        fs::remove_dir_all(site.path("pipelines")).unwrap();
        assert!(site.change().await.scan.folder_fault().is_some());
        put(&site.path("pipelines/a.yaml"), "2");
        assert_eq!(site.specs().await, ["a.yaml=2"]);
    }
}

#[tokio::test]
async fn an_emptied_file_counts_only_when_it_stays_empty() {
    let (mut site, _) = Site::new(|at| put(&at.join("pipelines/a.yaml"), "0")).await;
    put(&site.path("pipelines/a.yaml"), "");
    put(&site.path("pipelines/a.yaml"), "1");
    assert_eq!(site.specs().await, ["a.yaml=1"], "emptied and filled at once");
    put(&site.path("pipelines/a.yaml"), "");
    assert_eq!(site.specs().await, ["a.yaml="], "emptied");
    put(&site.path("pipelines/a.yaml"), "2");
    assert_eq!(site.specs().await, ["a.yaml=2"], "filled");
}

#[tokio::test]
async fn no_specs_is_not_no_folder() {
    let (mut site, _) = Site::new(|at| put(&at.join("pipelines/a.yaml"), "0")).await;
    fs::remove_file(site.path("pipelines/a.yaml")).unwrap();
    let change = site.change().await;
    assert_eq!((listed(&change.scan), change.scan.folder_fault()), (vec![], None));
}

#[tokio::test]
async fn flags_get_through_whatever_else_is_wrong() {
    let (mut site, _) = Site::new(|at| put(&at.join("pipelines/a.yaml"), "0")).await;
    fs::remove_dir_all(site.path("pipelines")).unwrap();
    assert!(site.change().await.scan.folder_fault().is_some());
    put(&site.path("config/flags.yaml"), "FORCE_OPENAI_PROVIDER: true");
    let scan = site.change().await.scan;
    assert_eq!(scan.sources.flags.as_deref(), Some(&b"FORCE_OPENAI_PROVIDER: true"[..]));
    assert!(scan.folder_fault().is_some());
}

#[tokio::test]
async fn a_file_that_never_rests_is_reported_and_holds_up_no_other() {
    let (mut site, _) = Site::new(|at| {
        put(&at.join("pipelines/a.yaml"), "0");
        put(&at.join("pipelines/hot.yaml"), "0");
    })
    .await;
    let stop = Arc::new(AtomicBool::new(false));
    let writer = std::thread::spawn({
        let (stop, path) = (Arc::clone(&stop), site.path("pipelines/hot.yaml"));
        move || {
            let mut turn: u64 = 0;
            while !stop.load(Ordering::Acquire) {
                turn += 1;
                fs::write(&path, turn.to_string()).unwrap();
                std::thread::sleep(Duration::from_millis(5));
            }
            fs::write(&path, "rest").unwrap();
        }
    });
    put(&site.path("pipelines/a.yaml"), "1");
    let mut other_came = false;
    let fault = loop {
        let scan = site.change().await.scan;
        other_came |= listed(&scan).contains(&"a.yaml=1".to_owned());
        // A writer that a busy machine keeps waiting looks like a file at rest, for once.
        if let Some(fault) = scan.sources.unreadable.get(&SourceFile::Spec("hot.yaml".into())) {
            break fault.clone();
        }
    };
    assert!(other_came, "the file at rest was held up by the one in motion");
    assert_eq!(fault.code, "unsettled");
    stop.store(true, Ordering::Release);
    assert_eq!(site.specs().await, ["a.yaml=1", "hot.yaml=rest"]);
    writer.join().unwrap();
}

#[tokio::test]
async fn what_the_caller_has_seen_is_not_returned_again() {
    let (mut site, first) = Site::new(|at| put(&at.join("pipelines/a.yaml"), "0")).await;
    put(&site.path("pipelines/a.yaml"), "1");
    let own = settled_scan(&folders(site.dir.path()), EVENTS_ONLY.quiet).await;
    assert_eq!(listed(&own), ["a.yaml=1"]);
    assert_ne!(own.hash, first.hash);
    site.watcher.acknowledge(&own);
    site.watcher.poke();
    let returned = tokio::time::timeout(EVENTS_ONLY.quiet * 4, site.watcher.next()).await;
    assert!(returned.is_err(), "{returned:?}");
    put(&site.path("pipelines/a.yaml"), "2");
    assert_eq!(site.specs().await, ["a.yaml=2"]);
}

#[tokio::test]
async fn giving_up_on_a_wait_loses_nothing() {
    let (mut site, _) = Site::new(|at| put(&at.join("pipelines/a.yaml"), "0")).await;
    put(&site.path("pipelines/a.yaml"), "1");
    for _ in 0..2_000 {
        if let Ok(change) = tokio::time::timeout(Duration::from_millis(11), site.watcher.next()).await {
            assert_eq!(listed(&change.unwrap().scan), ["a.yaml=1"]);
            return;
        }
    }
    panic!("the change was lost");
}

#[tokio::test]
async fn cancelling_ends_the_wait() {
    let dir = tempfile::tempdir().unwrap();
    let cancel = CancellationToken::new();
    let mut watcher = Watcher::start(folders(dir.path()), EVENTS_ONLY, cancel.clone());
    assert!(watcher.next().await.unwrap().scan.folder_fault().is_some());
    let waiting = tokio::spawn(async move { watcher.next().await });
    cancel.cancel();
    assert_eq!(waiting.await.unwrap(), None);
}
