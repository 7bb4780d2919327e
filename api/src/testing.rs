//! Values for tests.

#![allow(
    clippy::unwrap_used,
    dead_code,
    missing_docs,
    reason = "each test binary uses its own part"
)]

use base::{Detection, FrameDetections, FrameFlags, FrameId, Generation, InstanceId, Instant};
use base::{LatencyTable, MediaTime, Rect, Size, Stages, TrackId, UtcNanos};
use ipc::events_message::{
    CameraStatus, DeviceStatus, Ledger, ModelInfo, ResultItem, Results, RunnerState, RunnerStatus,
    Status, SubscriptionState, SubscriptionStatus,
};
use std::time::Duration;

pub const CAMERA: &str = "front";
pub const MODEL: &str = "nano";
pub const SUBSCRIPTION: &str = "front.nano";
/// A model that looks at the detections of [`MODEL`].
pub const CHILD: &str = "faces";
pub const CHILD_SUBSCRIPTION: &str = "front.faces";

/// So many seconds after a moment two hours ago: neither in the future nor past retention.
pub fn utc(seconds: u64) -> UtcNanos {
    static START: std::sync::OnceLock<u64> = std::sync::OnceLock::new();
    let second = base::time::NANOS_PER_SEC;
    let start = START.get_or_init(|| ipc::clock::utc().0 / second * second - 7200 * second);
    UtcNanos(start + seconds * second)
}

pub fn detection(class_id: u16) -> Detection {
    let bbox = Rect { x1: 0.25, y1: 0.125, x2: 0.5, y2: 0.875 };
    Detection { bbox, score: 0.75, class_id, track: TrackId(0) }
}

pub fn found(classes: &[u16]) -> FrameDetections {
    FrameDetections {
        detections: classes.iter().map(|c| detection(*c)).collect(),
        ..FrameDetections::default()
    }
}

/// Frame `n` of [`CAMERA`], captured `n` seconds after the moment of [`utc`].
pub fn item(n: u64, classes: &[u16]) -> ResultItem {
    let stages = Stages::from_array([1, 2, 3, 4, 5, 6, 7, 8, 9].map(Duration::from_millis));
    let capture = Instant(n * 1_000_000_000);
    ResultItem {
        camera: CAMERA.parse().unwrap(),
        subscription: SUBSCRIPTION.into(),
        sequence: n,
        parent: 0,
        region: Rect::WHOLE,
        generation: Generation(7),
        frame_id: FrameId(n),
        slot: 3,
        size: Size { width: 768, height: 576 },
        media: MediaTime(u64::MAX - n),
        flags: FrameFlags::default(),
        capture,
        capture_utc: utc(n),
        received: capture + stages.age(),
        stages,
        outcome: Ok(found(classes)),
    }
}

/// What a second stage says of the upper left quarter, of the upper right one, and so on, of frame
/// `n`, looking at detections of result `parent`. `classes` = what it finds in each.
pub fn crops(n: u64, parent: u64, classes: &[&[u16]]) -> Vec<ResultItem> {
    let quarter = |i: usize| {
        let (x1, y1) = ((i % 2) as f32 / 2.0, (i / 2) as f32 / 2.0);
        Rect { x1, y1, x2: x1 + 0.5, y2: y1 + 0.5 }
    };
    let one = |(i, classes): (usize, &&[u16])| ResultItem {
        subscription: CHILD_SUBSCRIPTION.into(),
        sequence: parent + 1 + i as u64,
        parent,
        region: quarter(i),
        ..item(n, classes)
    };
    classes.iter().enumerate().map(one).collect()
}

pub fn results(items: &[ResultItem]) -> Results {
    Results {
        instance: InstanceId(1),
        model_id: MODEL.parse().unwrap(),
        model_version: "1".into(),
        device: "cpu".parse().unwrap(),
        batch: 1,
        results: items.to_vec(),
    }
}

pub fn event(n: u64) -> store::NewEvent {
    let item = item(n, &[0]);
    store::NewEvent {
        camera: item.camera,
        model: MODEL.parse().unwrap(),
        model_version: "1".into(),
        device: "cpu".parse().unwrap(),
        capture_utc: item.capture_utc,
        generation: item.generation,
        frame_id: item.frame_id,
        media: item.media,
        frame: item.size,
        detections: found(&[0]),
        stages: item.stages,
        metadata: None,
    }
}

pub fn status() -> Status {
    let ledger = Ledger { observed: 10, gated: 4, bound: 6, sampled: 6, ..Ledger::default() };
    Status {
        instance: InstanceId(1),
        now: Instant(5),
        desired_revision: 1,
        subscriptions: vec![SubscriptionStatus {
            id: SUBSCRIPTION.into(),
            camera: CAMERA.parse().unwrap(),
            model_id: MODEL.parse().unwrap(),
            state: SubscriptionState::Active,
            max_fps: Some(5.0),
            granted_fps: 4.5,
            reason: "overload".into(),
            ledger,
        }],
        cameras: vec![CameraStatus {
            id: CAMERA.parse().unwrap(),
            absent: String::new(),
            generation: Generation(7),
            newest: FrameId(100),
            fps: 25.0,
        }],
        runners: vec![RunnerStatus {
            model_id: MODEL.parse().unwrap(),
            device: "cpu".parse().unwrap(),
            instance: InstanceId(3),
            state: RunnerState::Ready,
            batches: 4,
            members: 6,
            busy: Duration::from_secs(2),
            stage_sums: [Duration::from_millis(60); 9],
            latency: LatencyTable::default(),
            batch_size: 1,
            batch_planned: 1.5,
            interval: Duration::from_millis(40),
            steered: false,
        }],
        devices: vec![DeviceStatus {
            id: "cpu".parse().unwrap(),
            suspect: false,
            busy: Duration::from_secs(2),
            load: 0.5,
            overloaded: false,
        }],
        results_dropped: 0,
        page: 0,
        more: false,
        broken: [0; 5],
        desired_epoch: base::Epoch(1),
    }
}

pub fn model_info() -> ModelInfo {
    ModelInfo {
        model_id: MODEL.parse().unwrap(),
        model_version: "1".into(),
        device: "cpu".parse().unwrap(),
        labels: vec!["person".into(), "bicycle".into(), "car".into()],
        input: Size { width: 416, height: 416 },
        batch_max: 1,
        deadline: Duration::from_millis(500),
        state: RunnerState::Ready,
        runtime: "test runtime".into(),
    }
}

/// A clip that was asked for.
pub fn bookmark() -> store::control::Bookmark {
    store::control::Bookmark {
        id: store::control::MediaId::random(),
        camera: CAMERA.parse().unwrap(),
        center: UtcNanos(2),
        start: UtcNanos(1),
        end: UtcNanos(3),
        label: None,
        source: store::control::Moment::Historical,
        state: store::control::JobState::Pending,
        file_size: 0,
        gaps_ms: 0,
        thumbnail: false,
        protected: false,
        created_at: UtcNanos(0),
        updated_at: None,
    }
}

/// A picture that was taken.
pub fn snapshot() -> store::control::Snapshot {
    store::control::Snapshot {
        id: store::control::MediaId::random(),
        camera: CAMERA.parse().unwrap(),
        timestamp: UtcNanos(1),
        source: store::control::Moment::Live,
        width: 1,
        height: 1,
        file_size: 1,
        protected: false,
        created_at: UtcNanos(0),
        updated_at: None,
    }
}
