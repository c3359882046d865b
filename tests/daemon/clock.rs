//! A machine whose clock is set while the daemon works: an hour forward, two hours back.

use std::{fs, path::PathBuf};

use super::{
    flow::{configure, slow},
    site::{SPEC, Site, eventually, job},
};

/// The library that shows a process another time than the machine's.
fn faketime() -> PathBuf {
    let folders = ["/usr/lib", "/usr/lib64", "/usr/local/lib"].into_iter().flat_map(|lib| {
        let inner = fs::read_dir(lib).into_iter().flatten().flatten().map(|entry| entry.path());
        inner.chain([PathBuf::from(lib)])
    });
    folders
        .flat_map(|folder| [folder.join("faketime/libfaketimeMT.so.1"), folder.join("libfaketimeMT.so.1")])
        .find(|library| library.exists())
        .expect("libfaketime sets the clock of one process: apt-get install faketime (./scripts/test does it)")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_jumps_loses_nothing_and_stops_nothing() {
    let site = Site::new(SPEC).await;
    slow(&site, "uniform:20ms,120ms");
    // Some wait for another try: they must not wait for as long as the clock was set back.
    configure(&site, |config| {
        config.faults = vec!["all=server-error,probability=0.2".parse().unwrap()];
    });
    let time = site.path().join("time");
    fs::write(&time, "+0\n").unwrap();
    let preload = format!("LD_PRELOAD={}", faketime().display());
    let file = format!("FAKETIME_TIMESTAMP_FILE={}", time.display());
    let steady = ["FAKETIME_NO_CACHE=1", "DONT_FAKE_MONOTONIC=1", "FAKETIME_DONT_FAKE_MONOTONIC=1"];
    let daemon = site.start_wrapped(&[["env", &preload, &file].as_slice(), &steady].concat()).await;
    let mut ids = Vec::new();
    for (round, (offset, word)) in
        [("+3600", "was set forward"), ("-3600", "was set back"), ("+0", "is ready")].into_iter().enumerate()
    {
        let jobs: Vec<_> = (round * 60..round * 60 + 60).map(job).collect();
        ids.extend(daemon.submit_lines(&jobs).await.unwrap());
        site.simulation.until_in_flight(1).await;
        fs::write(&time, format!("{offset}\n")).unwrap();
        eventually(word, || async { daemon.log().contains(word) }).await;
    }
    for id in &ids {
        let job = daemon.ended_job(id).await;
        assert_eq!(job["state"], "succeeded", "{job}");
        let times: Vec<&str> = ["created_at", "finished_at"].iter().map(|at| job[*at].as_str().unwrap()).collect();
        assert!(times[0] <= times[1], "time went backwards: {job}");
    }
    assert!(daemon.get_any("/readyz").await.0 == 200);
    daemon.stop();
}
