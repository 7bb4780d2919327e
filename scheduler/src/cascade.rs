//! Two stages: a model that looks at the detections of another one.
//!
//! A child subscription has no gate on a camera of its own: when its parent's result arrives, each
//! detection becomes a crop of the same frame, still in its slot: the best ones, as many as the
//! subscription wants. Crops of many cameras join one batch. They are held by id like everything else;
//! a newer result takes the place of an older one, and a crop whose slot is about to be overwritten
//! has expired. Counts of a child are of crops.

use crate::crops::alive;
use crate::output::Binding;
use crate::state::Scheduler;
use crate::{FrameIndex, SubscriptionKey};
use base::{FrameDetections, Instant, Rect, Stamp};
use std::time::Duration;

/// Crops of one frame that any subscription may want.
const CROPS_MAX: usize = base::limits::MAX_REGIONS_RANGE.1 as usize;
/// Boxes with a side below this many pixels hold nothing to look at (docs/operations.md
/// promises it).
const SIDE_MIN: f32 = 8.0;

impl Scheduler {
    /// A parent's result: what its children look at.
    pub(crate) fn offer_crops(
        &mut self,
        parent: SubscriptionKey,
        stamp: &Stamp,
        sequence: u64,
        found: &FrameDetections,
    ) {
        let count = self.subscriptions.get(parent).map_or(0, |s| s.children().len());
        if count == 0 {
            return;
        }
        let large = |r: &Rect| {
            (r.x2 - r.x1) * stamp.size.width as f32 >= SIDE_MIN
                && (r.y2 - r.y1) * stamp.size.height as f32 >= SIDE_MIN
        };
        let mut regions = [Rect::WHOLE; CROPS_MAX];
        let mut fresh = 0;
        let boxes = found.detections.iter().map(|d| d.bbox).filter(|r| r.valid() && large(r));
        for region in boxes {
            if let Some(place) = regions.get_mut(fresh) {
                *place = region;
            }
            fresh += 1;
        }
        let held = &regions[..fresh.min(CROPS_MAX)];
        for i in 0..count {
            let Some(s) = self.subscriptions.get(parent) else { return };
            let child = s.children()[i];
            let Some(s) = self.subscriptions.get_mut(child) else { continue };
            s.drop_crops(stamp);
            self.unready(child);
            let Some(s) = self.subscriptions.get_mut(child) else { continue };
            if s.offer(stamp, sequence, held, fresh) {
                self.make_ready(child);
            }
        }
    }

    /// Whether a child's frame is still there and can be answered; if not, its crops have expired.
    fn crops_in_time(
        &mut self,
        key: SubscriptionKey,
        limit: Duration,
        answered_at: Instant,
        index: &mut dyn FrameIndex,
    ) -> bool {
        let Some(s) = self.subscriptions.get(key) else { return false };
        let Some(&stamp) = s.crops_of() else { return false };
        let camera = s.camera;
        self.look(camera, index);
        let here = self.cameras[camera].current().is_some_and(|newest| alive(&stamp, newest));
        let in_time = stamp.info.capture + limit >= answered_at;
        if here && in_time {
            return true;
        }
        if let Some(s) = self.subscriptions.get_mut(key) {
            s.expire_crops();
        }
        false
    }

    /// Binds as many crops of one frame as there is room for; what does not fit stays ready.
    /// Returns the start tag when its first crop was bound.
    pub(crate) fn bind_crops(
        &mut self,
        key: SubscriptionKey,
        (limit, answered_at, virtual_now, size): (Duration, Instant, u64, u32),
        members: &mut Vec<Binding>,
        index: &mut dyn FrameIndex,
    ) -> Option<u64> {
        let mut first = None;
        if self.crops_in_time(key, limit, answered_at, index) {
            while (members.len() as u32) < size {
                let now = self.now();
                let Some(s) = self.subscriptions.get_mut(key) else { break };
                let Some((crop, start)) = s.bind_crop(now, virtual_now) else { break };
                let opens = start.is_some();
                first = first.or(start);
                members.push(Binding {
                    subscription: key,
                    camera: s.camera,
                    stamp: crop.stamp,
                    region: crop.region,
                    parent: crop.parent,
                    parameters: s.parameters(),
                    first: opens,
                });
            }
        }
        let s = self.subscriptions.get(key)?;
        let (left, tag, model) = (s.pending(), s.tag(), s.model);
        if left == 0 {
            self.unready(key);
        } else {
            self.models[model.0].ready.enqueue(tag, key);
        }
        first
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::place::RunnerIx;
    use crate::runner::Phase;
    use crate::{BatchId, CameraKey, Config, Desired, Input, Output, RunnerInfo, RunnerKey};
    use crate::{SubscriptionSpec, WaitReason};
    use base::{Detection, FrameFlags, FrameId, FrameInfo, Generation, InstanceId};
    use base::{LatencyEntry, LatencyTable, MediaTime, Newest, Size, TrackId, UtcNanos};

    const MS: u64 = 1_000_000;

    /// The newest frame of every camera.
    struct Index(Stamp);

    impl FrameIndex for Index {
        fn newest(&mut self, _: CameraKey) -> Newest {
            Newest::Frame(self.0)
        }
    }

    fn stamp(now: Instant) -> Stamp {
        Stamp {
            generation: Generation(1),
            frame_id: FrameId(1),
            slot: 0,
            slots: 30,
            size: Size { width: 640, height: 480 },
            published: now,
            info: FrameInfo {
                media: MediaTime(0),
                capture: now,
                capture_utc: UtcNanos(0),
                decode_start: now,
                flags: FrameFlags::default(),
            },
        }
    }

    /// Five regions of each camera for `faces`, whose runner takes `batch_max` at a time and 10 ms for
    /// each batch: the first batch executes, the second one was prepared meanwhile.
    fn prepared(cameras: &[&str], batch_max: u32) -> (Scheduler, Vec<SubscriptionKey>, BatchId) {
        let mut core = Scheduler::new(Config::default());
        let now = Instant(1_000 * MS);
        let spec = |camera: &str, model: &str, parent: Option<&str>| SubscriptionSpec {
            parent: parent.map(|p| p.parse().unwrap()),
            max_fps: None,
            ..SubscriptionSpec::plain(&format!("{camera}/{model}"), camera, model)
        };
        let of = |c: &&str| [spec(c, "people", None), spec(c, "faces", Some("people"))];
        let subscriptions = cameras.iter().flat_map(of).collect();
        core.handle(now, Input::Desired(Desired { revision: 1, subscriptions }));
        let ms = Duration::from_millis(10);
        let info = RunnerInfo {
            instance: InstanceId(1),
            model: "faces".parse().unwrap(),
            device: "gpu0".parse().unwrap(),
            gpu: true,
            batch_max,
            deadline: Duration::from_millis(500),
            latency: LatencyTable::new([1, batch_max].map(|batch| LatencyEntry {
                batch,
                p50: ms,
                p99: ms,
            })),
        };
        core.handle(now, Input::RunnerUp { runner: RunnerKey(1), info });
        let one = |i| Detection {
            bbox: Rect { x2: 1.0 - i as f32 / 100.0, ..Rect::WHOLE },
            score: 0.9,
            class_id: 0,
            track: TrackId(0),
        };
        let detections = (0..5).map(one).collect();
        let found = FrameDetections { detections, ..Default::default() };
        let stamp = stamp(now);
        let keys: Vec<_> = core.subscription_keys.values().copied().collect();
        let mut children = Vec::new();
        for key in keys {
            if !core.subscriptions[key].child {
                core.offer_crops(key, &stamp, 1, &found);
            } else if let Some(s) = core.subscriptions.get_mut(key) {
                s.advance_tag(99 * s.step());
                children.push(key);
            }
        }
        let mut batches = Vec::new();
        for at in 0..12 {
            let now = Instant(now.0 + at * MS);
            loop {
                match core.poll(now, &mut Index(stamp)) {
                    Output::Prepare { batch, .. } => batches.push(batch),
                    Output::Wait { reason: WaitReason::Idle, .. } => panic!("{batches:?}"),
                    Output::Wait { .. } => break,
                    other => panic!("{other:?}"),
                }
            }
            if batches.len() == 2 {
                break;
            }
        }
        let held = core.runners.get(RunnerIx(0)).unwrap().batches();
        let phases: Vec<Phase> = held.iter().map(|b| b.phase()).collect();
        assert_eq!(phases, [Phase::Executing, Phase::Prepared]);
        (core, children, batches[1])
    }

    #[test]
    fn regions_of_one_frame_that_are_taken_back_give_back_one_turn() {
        let (mut core, children, batch) = prepared(&["a", "b"], 5);
        let s = &core.subscriptions[children[1]];
        let (before, gate) = (s.tag(), s.gate());
        assert_eq!((s.in_flight(), s.granted(core.now()).0), (5, 1));
        core.take_back(RunnerIx(0), batch);
        let s = &core.subscriptions[children[1]];
        assert_eq!(before - s.tag(), s.step(), "one turn, whatever the number of regions");
        assert_eq!(s.gate(), gate, "a gate never moves back");
        assert_eq!(s.granted(core.now()).0, 0, "it was given nothing");
        assert_eq!((s.ledger().revoked, s.in_flight()), (5, 0));
        core.audit(0..9);
    }

    #[test]
    fn the_rest_of_a_frame_has_no_turn_of_its_own_to_give_back() {
        // Three regions of the frame execute, its other two are prepared.
        let (mut core, children, batch) = prepared(&["a"], 3);
        let first = |core: &Scheduler| {
            let s = &core.subscriptions[children[0]];
            (s.tag(), s.granted(core.now()).0)
        };
        let before = first(&core);
        core.take_back(RunnerIx(0), batch);
        assert_eq!(first(&core), before);
        assert_eq!(core.subscriptions[children[0]].ledger().revoked, 2);
    }
}
