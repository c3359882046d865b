//! Single looks: what cannot be read, and what is too much.

use super::*;

#[test]
fn what_cannot_be_read_is_named_with_why() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path();
    put(&at.join("pipelines/good.yaml"), "good");
    put(&at.join("pipelines/large.yaml"), &"x".repeat(usize::try_from(MAX_FILE_BYTES).unwrap() + 1));
    symlink("nowhere", at.join("pipelines/dangling.yaml")).unwrap();
    symlink("nowhere", at.join("pipelines/folder")).unwrap();
    symlink(".", at.join("pipelines/loop")).unwrap();
    put(&at.join("pipelines").join("d/".repeat(MAX_DEPTH)).join("deep.yaml"), "too deep");
    fs::create_dir_all(at.join("config/flags.yaml")).unwrap();
    put(&at.join("config/models"), "a file");
    let scan = scan(&folders(at));
    let found: Vec<String> = scan
        .sources
        .unreadable
        .iter()
        .map(|(file, fault)| format!("{file}: {} {}", fault.code, fault.message.replace(at.to_str().unwrap(), "")))
        .collect();
    let deep = "d/".repeat(MAX_DEPTH).trim_end_matches('/').to_owned();
    assert_eq!(
        found,
        [
            "spec dangling.yaml: unreadable /pipelines/dangling.yaml cannot be read: it is a link that leads nowhere"
                .to_owned(),
            "spec large.yaml: unreadable /pipelines/large.yaml cannot be read: it is larger than 1048576 bytes"
                .to_owned(),
            format!("spec folder {deep}: too-deep not read: it is more than 16 folders below /pipelines"),
            "spec folder folder: unreadable /pipelines/folder cannot be read: it is a link that leads nowhere"
                .to_owned(),
            "spec folder loop: unreadable /pipelines/loop cannot be read: it is a link back to /pipelines".to_owned(),
            "the models folder: unreadable /config/models cannot be read: it is a file, where a folder is expected"
                .to_owned(),
            "the flags file: unreadable /config/flags.yaml cannot be read: it is not a file".to_owned(),
        ]
    );
    assert_eq!(listed(&scan), ["good.yaml=good"]);
}

#[test]
fn a_look_is_bounded_and_says_what_it_left_out() {
    let dir = tempfile::tempdir().unwrap();
    for number in 0..10 {
        put(&dir.path().join(format!("pipelines/{number}.yaml")), "12345");
    }
    put(&dir.path().join("config/flags.yaml"), "f");
    let roomy = scan::Bounds { file_bytes: 5, total_bytes: 51, files: 10, entries: 11 };
    // (bounds, specs read, the folder's fault, a left-out spec's fault)
    for (bounds, read, folder_fault, left_out) in [
        (roomy, 10, None, None),
        (scan::Bounds { files: 9, ..roomy }, 9, Some("too-many-files"), Some("too-many-files")),
        (scan::Bounds { entries: 5, ..roomy }, 4, Some("too-many-files"), Some("too-many-files")),
        (scan::Bounds { total_bytes: 50, ..roomy }, 9, None, Some("too-large")),
        (scan::Bounds { file_bytes: 4, ..roomy }, 0, None, Some("unreadable")),
    ] {
        let scan = scan::assemble(scan::look_within(bounds, &folders(dir.path())).parts);
        let code = |fault: Option<&crate::diagnostic::Diagnostic>| fault.map(|fault| fault.code.clone());
        assert_eq!(scan.sources.specs.len(), read, "{bounds:?}");
        assert_eq!(code(scan.folder_fault()).as_deref(), folder_fault, "{bounds:?}");
        assert_eq!(code(scan.sources.unreadable_spec("9.yaml")).as_deref(), left_out, "{bounds:?}");
        assert!(scan.sources.flags.is_some(), "flags come first: {bounds:?}");
    }
}
