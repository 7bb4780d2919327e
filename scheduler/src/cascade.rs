//! Two stages: a model that looks at the detections of another one.
//!
//! A child subscription has no gate on a camera of its own: when its parent's result arrives, each
//! detection becomes a crop of the same frame, still in its slot: the best ones, as many as the
//! subscription wants. Crops of many cameras join one batch. They are held by id like everything else;
//! a newer result takes the place of an older one, and a crop whose slot is about to be overwritten
//! has expired. Counts of a child are of crops.

use crate::machine::Scheduler;
use crate::subscription::{Subscription, SubscriptionState};
use crate::{FrameIndex, SubscriptionKey};
use base::{FrameDetections, Instant, Rect, Stamp};
use std::time::Duration;

/// Crops of one frame that any subscription may want.
const CROPS_MAX: usize = base::limits::MAX_REGIONS_RANGE.1 as usize;
/// Boxes with a side below this many pixels hold nothing to look at (chosen).
const SIDE_MIN: f32 = 8.0;

/// Crops of one frame that wait for a launch.
#[derive(Debug)]
pub(crate) struct Crops {
    pub stamp: Stamp,
    /// Sequence of the parent result.
    pub parent: u64,
    /// Best score first, at most as many as the subscription wants.
    regions: Vec<Rect>,
    /// Crops bound so far.
    next: usize,
}

impl Crops {
    /// Crops that are not bound yet.
    pub fn left(&self) -> u64 {
        (self.regions.len() - self.next) as u64
    }

    /// Gives up what is not bound yet.
    fn end(&mut self) {
        self.next = self.regions.len();
    }

    /// The next crop to bind.
    pub fn take(&mut self) -> Option<Rect> {
        let region = *self.regions.get(self.next)?;
        self.next += 1;
        Some(region)
    }

    /// Whether none of its frame's crops is bound yet.
    pub fn untouched(&self) -> bool {
        self.next == 0
    }
}

impl Scheduler {
    /// A parent's result: what its children look at.
    pub(crate) fn offer_crops(
        &mut self,
        parent: SubscriptionKey,
        stamp: &Stamp,
        sequence: u64,
        found: &FrameDetections,
    ) {
        let count = self.subscriptions.get(parent).map_or(0, |s| s.details.children.len());
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
        for i in 0..count {
            let Some(s) = self.subscriptions.get(parent) else { return };
            let child = s.details.children[i];
            self.drop_crops(child, stamp);
            let Some(s) = self.subscriptions.get_mut(child) else { continue };
            s.observed += fresh as u64;
            if s.state != SubscriptionState::Active || stamp.published < s.gate {
                s.refuse(fresh as u64);
                continue;
            }
            let most = s.details.spec.regions_max as usize;
            let held = &regions[..fresh.min(most).min(CROPS_MAX)];
            s.details.ledger.crowded += (fresh - held.len()) as u64;
            if held.is_empty() {
                continue;
            }
            let (stamp, parent, next) = (*stamp, sequence, 0);
            let crops = s.details.crops.get_or_insert_with(|| {
                Box::new(Crops { stamp, parent, regions: Vec::with_capacity(most), next })
            });
            (crops.stamp, crops.parent, crops.next) = (stamp, parent, next);
            crops.regions.clear();
            crops.regions.extend_from_slice(held);
            self.make_ready(child);
        }
    }

    /// Ends what a child has not looked at yet, for a newer frame is there.
    fn drop_crops(&mut self, child: SubscriptionKey, newer: &Stamp) {
        let Some(s) = self.subscriptions.get_mut(child) else { return };
        let Some(crops) = &mut s.details.crops else { return };
        let left = crops.left();
        if left > 0 {
            if alive(&crops.stamp, newer) {
                s.counts.superseded += left;
            } else {
                s.details.ledger.expired += left;
            }
            crops.end();
        }
        self.unready(child);
    }

    /// Brings a child in line with its state: crops that nobody looks at are not kept.
    pub(crate) fn examine_child(&mut self, key: SubscriptionKey) {
        let Some(s) = self.subscriptions.get_mut(key) else { return };
        if s.state == SubscriptionState::Active {
            return;
        }
        let left = s.pending();
        s.refuse(left);
        if let Some(crops) = &mut s.details.crops {
            crops.end();
        }
        self.unready(key);
    }

    /// Whether a child's frame is still there and can be answered; if not, its crops have expired.
    pub(crate) fn crops_in_time(
        &mut self,
        key: SubscriptionKey,
        limit: Duration,
        answered_at: Instant,
        index: &mut dyn FrameIndex,
    ) -> bool {
        let Some(s) = self.subscriptions.get(key) else { return false };
        let Some(crops) = &s.details.crops else { return false };
        let (camera, stamp) = (s.camera, crops.stamp);
        self.look(camera, index);
        let agent = &self.cameras[camera.0 as usize];
        let here = agent.current().is_some_and(|newest| alive(&stamp, newest));
        let in_time = stamp.info.capture + limit >= answered_at;
        if here && in_time {
            return true;
        }
        if let Some(s) = self.subscriptions.get_mut(key) {
            s.details.ledger.expired += s.pending();
            if let Some(crops) = &mut s.details.crops {
                crops.end();
            }
        }
        false
    }
}

/// Whether a frame's slot is not the next one to be overwritten, as of the newest frame.
fn alive(stamp: &Stamp, newest: &Stamp) -> bool {
    let behind = newest.frame_id.0.saturating_sub(stamp.frame_id.0);
    newest.generation == stamp.generation
        && newest.frame_id >= stamp.frame_id
        && behind + 1 < u64::from(stamp.slots.saturating_sub(1))
}

impl Subscription {
    /// Crops that are not looked at, by the reason.
    fn refuse(&mut self, count: u64) {
        let counter = match self.state {
            SubscriptionState::NoRunner => &mut self.details.ledger.unserved_no_runner,
            SubscriptionState::Parked => &mut self.details.ledger.unserved_parked,
            SubscriptionState::Paused => &mut self.details.ledger.unserved_paused,
            SubscriptionState::Active | SubscriptionState::NoFrames => &mut self.counts.gated,
        };
        *counter += count;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runner::{Phase, RunnerIx};
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
            id: format!("{camera}/{model}"),
            camera: camera.parse().unwrap(),
            model: model.parse().unwrap(),
            parent: parent.map(|p| p.parse().unwrap()),
            max_fps: None,
            weight: 1.0,
            deadline: None,
            parameters: 0,
            regions_max: 16,
            enabled: true,
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
                s.tag = 100 * s.step();
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
        let held = &core.runner(RunnerIx(0)).unwrap().batches;
        let phases: Vec<Phase> = held.iter().map(|b| b.phase).collect();
        assert_eq!(phases, [Phase::Executing, Phase::Prepared]);
        (core, children, batches[1])
    }

    #[test]
    fn regions_of_one_frame_that_are_taken_back_give_back_one_turn() {
        let (mut core, children, batch) = prepared(&["a", "b"], 5);
        let s = &core.subscriptions[children[1]];
        let (before, gate) = (s.tag, s.gate);
        assert_eq!((s.counts.in_flight, s.granted(core.now).0), (5, 1));
        core.take_back(RunnerIx(0), batch);
        let s = &core.subscriptions[children[1]];
        assert_eq!(before - s.tag, s.step(), "one turn, whatever the number of regions");
        assert_eq!(s.gate, gate, "a gate never moves back");
        assert_eq!(s.granted(core.now).0, 0, "it was given nothing");
        assert_eq!((s.details.ledger.revoked, s.counts.in_flight), (5, 0));
        core.audit(0..9);
    }

    #[test]
    fn the_rest_of_a_frame_has_no_turn_of_its_own_to_give_back() {
        // Three regions of the frame execute, its other two are prepared.
        let (mut core, children, batch) = prepared(&["a"], 3);
        let first = |core: &Scheduler| {
            let s = &core.subscriptions[children[0]];
            (s.tag, s.granted(core.now).0)
        };
        let before = first(&core);
        core.take_back(RunnerIx(0), batch);
        assert_eq!(first(&core), before);
        assert_eq!(core.subscriptions[children[0]].details.ledger.revoked, 2);
    }
}
