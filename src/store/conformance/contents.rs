//! Bytes too many for a row.

use bytes::Bytes;

use super::Bench;

pub async fn a_content_is_read_when_it_is_sealed(bench: &Bench) {
    let store = &bench.store;
    assert_eq!(store.read_content("file-1", 0, 9).await.unwrap(), None);
    store.write_content("file-1", 0, Bytes::from_static(b"hello ")).await.unwrap();
    store.write_content("file-1", 6, Bytes::from_static(b"world")).await.unwrap();
    assert_eq!(store.read_content("file-1", 0, 9).await.unwrap(), None);
    assert_eq!(store.contents().await.unwrap(), ["file-1"]);
    store.seal_content("file-1").await.unwrap();
    for (at, most, expected) in [(0, 5, "hello"), (6, 99, "world"), (11, 9, ""), (1_000, 9, "")] {
        assert_eq!(store.read_content("file-1", at, most).await.unwrap(), Some(Bytes::from(expected)), "{at}");
    }
    store.seal_content("file-2").await.unwrap();
    assert_eq!(store.read_content("file-2", 0, 9).await.unwrap(), Some(Bytes::new()));
    assert_eq!(store.contents().await.unwrap(), ["file-1", "file-2"]);
}

pub async fn pieces_come_one_after_another(bench: &Bench) {
    let store = &bench.store;
    store.write_content("file-1", 0, Bytes::from_static(b"abc")).await.unwrap();
    for at in [0, 2, 4] {
        assert!(store.write_content("file-1", at, Bytes::from_static(b"x")).await.is_err(), "{at}");
    }
    store.write_content("file-1", 3, Bytes::from_static(b"d")).await.unwrap();
    store.seal_content("file-1").await.unwrap();
    assert!(store.write_content("file-1", 4, Bytes::from_static(b"e")).await.is_err());
    assert_eq!(store.read_content("file-1", 0, 9).await.unwrap(), Some(Bytes::from_static(b"abcd")));
}

pub async fn a_deleted_content_is_gone(bench: &Bench) {
    let store = &bench.store;
    for id in ["file-1", "file-2"] {
        store.write_content(id, 0, Bytes::from_static(b"abc")).await.unwrap();
    }
    store.seal_content("file-1").await.unwrap();
    for id in ["file-1", "file-2", "file-3"] {
        store.delete_content(id).await.unwrap();
    }
    assert_eq!(store.read_content("file-1", 0, 9).await.unwrap(), None);
    assert!(store.contents().await.unwrap().is_empty());
}
