use super::*;
use base::{Detection, FrameDetections, LatencyEntry, MemberError, TrackId};

fn round_trip(message: EventsMessage) {
    let mut encoder = Encoder::default();
    let bytes = message.encode(&mut encoder).to_vec();
    assert_eq!(EventsMessage::decode(&bytes).as_ref(), Ok(&message));
    for cut in 0..bytes.len() {
        let _ = EventsMessage::decode(&bytes[..cut]);
        let mut flipped = bytes.clone();
        flipped[cut] ^= 0xff;
        let _ = EventsMessage::decode(&flipped);
    }
}

fn item() -> ResultItem {
    ResultItem {
        camera: "front".parse().unwrap(),
        subscription: "s1".into(),
        sequence: 7,
        parent: 0,
        region: Rect::WHOLE,
        generation: Generation(11),
        frame_id: FrameId(12),
        slot: 3,
        size: Size { width: 768, height: 576 },
        media: MediaTime(90_000),
        flags: FrameFlags::KEY,
        capture: Instant(100),
        capture_utc: UtcNanos(1_700_000_000_000_000_000),
        received: Instant(145),
        stages: Stages::from_array([1, 2, 3, 4, 5, 6, 7, 8, 9].map(Duration::from_nanos)),
        outcome: Ok(FrameDetections {
            detections: vec![Detection {
                bbox: Rect::WHOLE,
                score: 1.0,
                class_id: 0,
                track: TrackId(0),
            }],
            ..Default::default()
        }),
    }
}

fn one_batch() -> Results {
    Results {
        instance: InstanceId(1),
        model_id: "m".parse().unwrap(),
        model_version: "1".into(),
        device: "cpu".parse().unwrap(),
        batch: 4,
        results: vec![item()],
    }
}

#[test]
fn every_message_round_trips() {
    let item = item();
    assert_eq!(item.stages.age(), item.received - item.capture);
    let torn = ResultItem { outcome: Err(MemberError::Torn), ..item.clone() };
    let region = Rect { x1: 0.25, y1: 0.0, x2: 0.5, y2: 1.0 };
    let crop = ResultItem { parent: 7, region, ..item.clone() };
    let (model_id, device): (ModelId, DeviceId) = ("m".parse().unwrap(), "cpu".parse().unwrap());
    round_trip(EventsMessage::Results(Results { results: vec![item, torn, crop], ..one_batch() }));
    let ledger = Ledger {
        observed: 5,
        bound: 2,
        sampled: 1,
        in_flight: 1,
        pending: 1,
        crowded: 2,
        ..Default::default()
    };
    assert!(ledger.balanced());
    assert!(!Ledger { observed: 6, ..ledger }.balanced());
    let entry =
        LatencyEntry { batch: 1, p50: Duration::from_millis(1), p99: Duration::from_millis(2) };
    round_trip(EventsMessage::Status(Status {
        instance: InstanceId(1),
        now: Instant(5),
        desired_revision: 2,
        subscriptions: vec![SubscriptionStatus {
            id: "s1".into(),
            camera: "front".parse().unwrap(),
            model_id: model_id.clone(),
            state: SubscriptionState::NoRunner,
            max_fps: Some(5.0),
            granted_fps: 4.5,
            reason: "no_runner".into(),
            ledger,
        }],
        cameras: vec![CameraStatus {
            id: "front".parse().unwrap(),
            absent: "stale".into(),
            generation: Generation(1),
            newest: FrameId(2),
            fps: 25.0,
        }],
        runners: vec![RunnerStatus {
            model_id: model_id.clone(),
            device: device.clone(),
            instance: InstanceId(3),
            state: RunnerState::Demoted,
            batches: 1,
            members: 2,
            busy: Duration::from_millis(3),
            stage_sums: [Duration::from_nanos(4); 9],
            latency: LatencyTable::new([entry]),
            batch_size: 1,
            batch_planned: 1.5,
            interval: Duration::from_millis(7),
            steered: true,
        }],
        devices: vec![DeviceStatus {
            id: device.clone(),
            suspect: true,
            busy: Duration::from_secs(1),
            load: 0.75,
            overloaded: true,
        }],
        results_dropped: 6,
        desired_epoch: Epoch(9),
        page: 3,
        more: true,
        broken: [1, 2, 3, 4, 5],
    }));
    round_trip(EventsMessage::Models {
        instance: InstanceId(1),
        models: vec![ModelInfo {
            model_id,
            model_version: "1".into(),
            device,
            labels: vec!["person".into()],
            input: Size { width: 416, height: 416 },
            batch_max: 16,
            deadline: Duration::from_millis(500),
            state: RunnerState::Hung,
            runtime: "onnxruntime".into(),
        }],
    });
}

/// What a runner may answer at most, with the longest names around it.
#[test]
fn the_results_of_the_largest_reply_can_be_sent() {
    use crate::framing::{OutBuffer, Pushed};
    use crate::runner_message::{Reply, RunnerMessage};
    use base::limits::{ASSIGNMENT_ID_CHARS_MAX, BATCH_MAX, ID_CHARS_MAX};
    use base::limits::{
        MODEL_VERSION_BYTES_MAX, REPLY_BYTES_MAX, RESULTS_BYTES_MAX, SERVE_OUT_BYTES_MAX,
    };
    let mask = |data: Vec<u8>| {
        let Ok(mut found) = item().outcome else { unreachable!("it has detections") };
        let width = u16::try_from(data.len()).unwrap();
        found.masks.push(base::Mask { detection: 0, width, height: 1, data });
        Ok(found)
    };
    let mut encoder = Encoder::default();
    let times = base::StageTimes::default();
    let mut reply = |side: usize| {
        let outcomes = vec![mask(vec![1; side]); BATCH_MAX as usize];
        let reply = Reply { batch: 1, times, outcomes };
        let bytes = RunnerMessage::Reply(reply.clone()).encode(&mut encoder).to_vec();
        (reply, bytes)
    };
    let spare = REPLY_BYTES_MAX - reply(0).1.len();
    let (largest, bytes) = reply(spare / BATCH_MAX as usize - 8);
    assert!(bytes.len() > REPLY_BYTES_MAX - 16 * BATCH_MAX as usize, "{}", bytes.len());
    assert_eq!(RunnerMessage::decode(&bytes), Ok(RunnerMessage::Reply(largest.clone())));
    let (_, larger) = reply(spare / BATCH_MAX as usize + 8);
    let error = RunnerMessage::decode(&larger).unwrap_err().to_string();
    assert!(error.contains("field reply") && error.contains("at most 8 MiB"), "{error}");

    let id = "i".repeat(ID_CHARS_MAX);
    let result = |outcome: Outcome| ResultItem {
        camera: id.parse().unwrap(),
        subscription: "s".repeat(ASSIGNMENT_ID_CHARS_MAX).into(),
        parent: 6,
        region: Rect { x1: 0.25, ..Rect::WHOLE },
        outcome,
        ..item()
    };
    let results = EventsMessage::Results(Results {
        model_id: id.parse().unwrap(),
        model_version: "v".repeat(MODEL_VERSION_BYTES_MAX),
        device: id.parse().unwrap(),
        results: largest.outcomes.into_iter().map(result).collect(),
        ..one_batch()
    });
    let bytes = results.encode(&mut encoder);
    assert!(bytes.len() <= RESULTS_BYTES_MAX, "{} of {RESULTS_BYTES_MAX}", bytes.len());
    assert_eq!(OutBuffer::new(SERVE_OUT_BYTES_MAX).push(bytes), Pushed::Queued);
}

/// A ledger without a zero, which would take no bytes.
fn everything() -> Ledger {
    let n = u64::MAX;
    Ledger {
        observed: n,
        gated: n,
        superseded: n,
        unserved_parked: n,
        unserved_no_runner: n,
        unserved_paused: n,
        unserved_gap: n,
        expired: n,
        bound: n,
        sampled: n,
        torn: n,
        errors: [n; 5],
        revoked: n,
        expired_late: n,
        lost_with_runner: n,
        in_flight: n,
        pending: n,
        crowded: n,
    }
}

#[test]
fn a_page_of_the_status_with_the_longest_names_stays_small() {
    use base::limits::{ASSIGNMENT_ID_CHARS_MAX, ID_CHARS_MAX};
    use base::limits::{STATUS_PAGE, STATUS_ROW_BYTES_MAX};
    let id = "i".repeat(ID_CHARS_MAX);
    let many = [u64::MAX; 5];
    let subscription = SubscriptionStatus {
        id: "s".repeat(ASSIGNMENT_ID_CHARS_MAX),
        camera: id.parse().unwrap(),
        model_id: id.parse().unwrap(),
        state: SubscriptionState::Paused,
        max_fps: Some(5.0),
        granted_fps: 4.5,
        reason: "source_fps".into(),
        ledger: everything(),
    };
    let camera = CameraStatus {
        id: id.parse().unwrap(),
        absent: "retired".into(),
        generation: Generation(u64::MAX),
        newest: FrameId(u64::MAX),
        fps: 25.0,
    };
    let page = EventsMessage::Status(Status {
        instance: InstanceId(1),
        now: Instant(1),
        desired_revision: 1,
        subscriptions: vec![subscription; STATUS_PAGE],
        cameras: vec![camera; STATUS_PAGE],
        runners: vec![],
        devices: vec![],
        results_dropped: 1,
        desired_epoch: Epoch(9),
        page: 1,
        more: true,
        broken: many,
    });
    let bytes = page.encode(&mut Encoder::default()).len();
    assert!(bytes <= 2 * STATUS_PAGE * STATUS_ROW_BYTES_MAX, "{bytes}");
}

#[test]
fn a_region_outside_the_frame_is_refused() {
    let mut encoder = Encoder::default();
    for region in [
        Rect { x2: 1.5, ..Rect::WHOLE },
        Rect { x1: f32::NAN, ..Rect::WHOLE },
        Rect { x1: 0.6, x2: 0.5, ..Rect::WHOLE },
    ] {
        let results = vec![ResultItem { parent: 6, region, ..item() }];
        let message = EventsMessage::Results(Results { results, ..one_batch() });
        let error = EventsMessage::decode(message.encode(&mut encoder)).unwrap_err();
        assert!(error.to_string().contains("result.region"), "{error}");
    }
}
