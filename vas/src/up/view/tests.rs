use super::*;
use serde_json::json;

fn status() -> Status {
    let stages = json!({
        "transport_ms": 0.5, "decode_ms": 6.0, "wait_ms": 2.0, "copy_ms": 0.25, "grant_ms": 0.0,
        "preprocess_ms": 1.0, "execute_ms": 20.5, "postprocess_ms": 0.75, "reply_ms": 0.125
    });
    let answer = json!({
        "scheduler": {"status": "healthy", "reason": null},
        "cameras": [
            {"id": "door", "state": "frames", "fps": 10.0, "newest_frame_id": "201"},
            {"id": "yard", "state": "unknown", "decode_reason": "no enabled assignment"}
        ],
        "subscriptions": [{
            "id": "door:m", "camera_id": "door", "model_id": "m", "state": "active",
            "reason": null, "max_fps": 5.0, "granted_fps": 4.98, "results": 100,
            "ledger": {
                "observed": 201, "gated": 98, "superseded": 1, "bound": 102, "sampled": 100,
                "torn": 1, "in_flight": 1, "balanced": true
            },
            "classes": [
                {"class_id": 0, "class_name": "person", "count": 650},
                {"class_id": 2, "class_name": "car", "count": 7}
            ],
            "age": {"p50_ms": 31.25, "p99_ms": 44.0}, "stages": stages
        }],
        "runners": [{
            "model_id": "m", "device": "cpu", "state": "ready", "batches": 100, "members": 101,
            "mean_batch": 1.01, "stages": stages
        }],
        "store": {"stored": 99, "dropped": 0, "failed": 0, "rejected": 0, "failing": false}
    });
    Status::parse(answer).unwrap()
}

#[test]
fn the_table_has_a_line_per_assignment_idle_camera_and_runner() {
    let table = table(&status(), Duration::from_secs(21), &["ingest"]);
    let expected = "\
camera         model               fps granted   max  results  persons   age p50   age p99  state
door           m                  10.0     5.0     5      100     6.50   31.2 ms   44.0 ms  active
yard           no assignment    no enabled assignment
runner m on cpu: ready, 100 batches, 1.01 frames per batch, execute 20.5 ms
ended: ingest
21 s, 99 events stored, 0 dropped, 0 lost
";
    assert_eq!(table, expected);
}

#[test]
fn the_summary_accounts_for_every_frame() {
    let stages = "  ms per stage: transport 0.50, decode 6.00, wait 2.00, copy 0.25, grant 0.00, preprocess \
                  1.00, execute 20.50, postprocess 0.75, reply 0.12";
    let expected = format!(
        "
summary after 20.0 s (ledgers are up to 1 s older)
camera door: 201 frames seen at 10.00 fps, model m active
  ledger: bound 102, gated 98, superseded 1; of these sampled 100, torn 1, in_flight 1; the sums agree
  100 results, 6.50 persons per frame, age p50 31.2 ms p99 44.0 ms, granted 4.98 of 5 fps
{stages}
runner m on cpu (ready): 100 batches, 101 frames, mean size 1.01
{stages}
store: 99 events, 0 dropped, 0 lost
"
    );
    assert_eq!(summary(&status(), Duration::from_secs(20)), expected);
}

#[test]
fn a_second_stage_is_summed_up_by_what_it_looked_at() {
    let mut status = status();
    status.subscriptions[0].parent_model_id = Some("people".into());
    let summary = summary(&status, Duration::from_secs(20));
    assert!(
        summary.contains("camera door: 201 detections of people, model m active\n"),
        "{summary}"
    );
    assert!(summary.contains("  100 results, 6.50 persons per detection, age"), "{summary}");
}

#[test]
fn a_node_that_just_started_is_shown_too() {
    let answer = json!({
        "scheduler": {"reason": "no scheduler has connected yet"},
        "cameras": [],
        "subscriptions": [{
            "id": "a", "camera_id": null, "model_id": null, "state": "rejected",
            "reason": "unknown camera", "max_fps": null, "granted_fps": null, "ledger": null,
            "results": 0, "stages": null
        }],
        "runners": [],
        "store": {"stored": 0, "dropped": 0, "failed": 0, "rejected": 0, "failing": false}
    });
    let status = Status::parse(answer).unwrap();
    let table = table(&status, Duration::ZERO, &[]);
    assert!(table.contains("rejected: unknown camera"), "{table}");
    assert!(table.contains("scheduler: no scheduler has connected yet"), "{table}");
    let summary = summary(&status, Duration::ZERO);
    assert!(summary.contains("no ledger"), "{summary}");
    assert_eq!((status.persons(), status.results()), (0, 0));
}

#[test]
fn lost_events_are_shown_and_make_a_run_fail() {
    let mut status = status();
    assert_eq!(status.failure(), None);
    status.store.failed = 5;
    status.store.rejected = 2;
    assert!(table(&status, Duration::ZERO, &[]).contains("99 events stored, 0 dropped, 7 lost\n"));
    assert_eq!(status.failure(), None, "some are stored");
    status.store.failing = true;
    assert!(
        summary(&status, Duration::ZERO)
            .contains("99 events, 0 dropped, 7 lost, THE STORE FAILS\n")
    );
    assert!(status.failure().unwrap().contains("the store fails"));
    status.store.failing = false;
    status.store.stored = 0;
    assert!(status.failure().unwrap().contains("none of them is stored"));
    status.subscriptions[0].classes.clear();
    assert_eq!(status.failure(), Some("nobody was found"));
}
