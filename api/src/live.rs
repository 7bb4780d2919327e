//! What is happening now: the last status of the scheduler and, per subscription, what its results
//! say. In memory only, filled by the intake thread, read by HTTP.

use crate::age_histogram::{AgeHistogram, percentile};
use crate::status_pages::StatusPages;
use base::Stages;
use base::limits::DETECTIONS_MAX;
use base::{CameraId, DeviceId, FrameDetections, Instant, Keypoint, MemberError, ModelId, Rect};
use ipc::events_message::{DeviceStatus, ModelInfo, ResultItem, Results, Status};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// A status older than this is shown as stale: five of the scheduler's beats (chosen).
pub const STALE: Duration = Duration::from_secs(5);
/// Percentiles and means cover the current and the previous half of a minute.
pub const HALF_WINDOW: Duration = Duration::from_secs(30);
/// Subscriptions that are counted at most (derived: all that run, and as many that ran of late).
const VIEWS_MAX: usize = 2 * base::limits::SUBSCRIPTIONS_MAX;
/// A subscription that the scheduler no longer names is forgotten when its last result is older.
const FORGOTTEN: Duration = Duration::from_secs(300);

/// The live view. One lock, held for the time of counting one batch or of copying the figures out.
#[derive(Debug, Default)]
pub struct Live(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    connected: bool,
    connections: u64,
    refused_messages: u64,
    pages: StatusPages,
    status: Option<(Instant, Arc<Status>)>,
    models: Option<(Instant, Arc<Vec<ModelInfo>>)>,
    device_use: DeviceUse,
    subscriptions: BTreeMap<Arc<str>, Subscription>,
}

/// Share of time that each device was busy, between the last two statuses.
pub type DeviceUse = BTreeMap<DeviceId, f64>;

/// The scheduler as serve sees it.
#[derive(Debug, Clone, Default)]
pub struct SchedulerView {
    /// A scheduler is connected.
    pub connected: bool,
    /// Connections since serve started.
    pub connections: u64,
    /// Connections closed because of a message that could not be read.
    pub refused_messages: u64,
    /// Arrival and content of the last status.
    pub status: Option<(Instant, Arc<Status>)>,
    /// Arrival and content of the last list of runners.
    pub models: Option<(Instant, Arc<Vec<ModelInfo>>)>,
}

impl SchedulerView {
    /// The last status, unless it is older than [`STALE`].
    pub fn fresh_status(&self, now: Instant) -> Option<&Status> {
        self.status.as_ref().filter(|(at, _)| now.since(*at) <= STALE).map(|(_, status)| &**status)
    }
}

/// The newest answered frame of a subscription.
#[derive(Debug, Clone)]
pub struct Latest {
    /// The result; of a second stage all that it found in the regions of the frame so far.
    pub item: ResultItem,
    /// Version of the model that found it.
    pub model_version: String,
}

/// What the results of one subscription say, counted since serve started.
#[derive(Debug, Clone)]
pub struct SubscriptionView {
    /// Id, as desired state names it.
    pub id: String,
    /// Camera.
    pub camera: CameraId,
    /// Model.
    pub model: ModelId,
    /// Device of the newest result.
    pub device: DeviceId,
    /// Frames, or regions of them, looked at: with and without detections.
    pub results: u64,
    /// Of these, those without a detection.
    pub empties: u64,
    /// Frames and regions that ended in an error, in the order of [`MemberError::ALL`].
    pub errors: [u64; 6],
    /// Detections per class id.
    pub classes: BTreeMap<u16, u64>,
    /// Results in the window that the next fields cover: the last 30 to 60 s.
    pub window_results: u64,
    /// Median age.
    pub age_p50: Option<Duration>,
    /// 99th percentile of the age.
    pub age_p99: Option<Duration>,
    /// Mean per stage.
    pub stage_means: Option<Stages>,
    /// Newest answered frame.
    pub latest: Option<Latest>,
}

#[derive(Debug)]
struct Subscription {
    camera: CameraId,
    model: ModelId,
    device: DeviceId,
    results: u64,
    empties: u64,
    errors: [u64; 6],
    classes: BTreeMap<u16, u64>,
    window: Window,
    latest: Option<Latest>,
    touched: Instant,
}

/// Ages and stage sums of the current and the previous half of a minute.
#[derive(Debug, Default)]
struct Window {
    began: Instant,
    halves: [Half; 2],
}

#[derive(Debug, Default)]
struct Half {
    ages: AgeHistogram,
    stages: [Duration; 9],
}

impl Window {
    fn advance(&mut self, now: Instant) {
        let halves = now.since(self.began).as_nanos() / HALF_WINDOW.as_nanos();
        if halves == 0 {
            return;
        }
        self.halves.swap(0, 1);
        self.halves[0].clear();
        if halves > 1 {
            self.halves[1].clear();
        }
        self.began = now;
    }

    fn add(&mut self, now: Instant, stages: &Stages) {
        self.advance(now);
        let half = &mut self.halves[0];
        half.ages.add(stages.age());
        for (sum, stage) in half.stages.iter_mut().zip(stages.as_array()) {
            *sum += stage;
        }
    }
}

impl Half {
    fn clear(&mut self) {
        self.ages.clear();
        self.stages = Default::default();
    }
}

impl Subscription {
    fn new(results: &Results, item: &ResultItem, now: Instant) -> Self {
        Subscription {
            camera: item.camera.clone(),
            model: results.model_id.clone(),
            device: results.device.clone(),
            results: 0,
            empties: 0,
            errors: [0; 6],
            classes: BTreeMap::new(),
            window: Window { began: now, ..Window::default() },
            latest: None,
            touched: now,
        }
    }

    fn count(&mut self, found: &FrameDetections) {
        self.results += 1;
        self.empties += u64::from(found.detections.is_empty());
        for detection in &found.detections {
            *self.classes.entry(detection.class_id).or_default() += 1;
        }
    }

    fn view(&mut self, id: &str, now: Instant) -> SubscriptionView {
        self.window.advance(now);
        let [current, previous] = &self.window.halves;
        let ages = [&current.ages, &previous.ages];
        let window_results = current.ages.total() + previous.ages.total();
        let stage_means = u32::try_from(window_results).ok().filter(|n| *n > 0).map(|n| {
            let mut means = current.stages;
            for (mean, more) in means.iter_mut().zip(previous.stages) {
                *mean = (*mean + more) / n;
            }
            Stages::from_array(means)
        });
        SubscriptionView {
            id: id.to_owned(),
            camera: self.camera.clone(),
            model: self.model.clone(),
            device: self.device.clone(),
            results: self.results,
            empties: self.empties,
            errors: self.errors,
            classes: self.classes.clone(),
            window_results,
            age_p50: percentile(&ages, 0.5),
            age_p99: percentile(&ages, 0.99),
            stage_means,
            latest: self.latest.clone(),
        }
    }
}

impl Live {
    /// A scheduler connected or went away.
    pub fn connected(&self, connected: bool) {
        let mut inner = self.lock();
        inner.connected = connected;
        inner.connections += u64::from(connected);
    }

    /// A message could not be read; its connection was closed.
    pub fn refused_message(&self) {
        self.lock().refused_messages += 1;
    }

    /// Counts the results of one batch.
    pub fn results(&self, now: Instant, results: &Results) {
        let mut inner = self.lock();
        for item in &results.results {
            let full = inner.subscriptions.len() >= VIEWS_MAX;
            if full && !inner.subscriptions.contains_key(&item.subscription) {
                continue;
            }
            let subscription = inner
                .subscriptions
                .entry(Arc::clone(&item.subscription))
                .or_insert_with(|| Subscription::new(results, item, now));
            subscription.touched = now;
            subscription.device = results.device.clone();
            match &item.outcome {
                Ok(found) => {
                    subscription.count(found);
                    subscription.window.add(now, &item.stages);
                    match &mut subscription.latest {
                        Some(kept) if is_beside(item, &kept.item) => add(&mut kept.item, item),
                        Some(kept) if !is_newer(item, &kept.item) => {}
                        latest => {
                            let model_version = results.model_version.clone();
                            *latest = Some(Latest { item: item.clone(), model_version });
                        }
                    }
                }
                Err(error) => {
                    let at = MemberError::ALL.iter().position(|e| e == error).unwrap_or(0);
                    subscription.errors[at] += 1;
                }
            }
        }
    }

    /// Takes a page of the scheduler's status. What is told is the last one that came whole.
    pub fn status(&self, now: Instant, page: Status) {
        let mut inner = self.lock();
        let Some(status) = inner.pages.add(page) else { return };
        let named: BTreeSet<&str> = status.subscriptions.iter().map(|s| s.id.as_str()).collect();
        inner.subscriptions.retain(|id, subscription| {
            now.since(subscription.touched) < FORGOTTEN || named.contains(&**id)
        });
        let before = inner.status.take().filter(|(_, old)| old.instance == status.instance);
        inner.device_use = before.map_or_else(DeviceUse::new, |(_, old)| device_use(&old, &status));
        inner.status = Some((now, Arc::new(status)));
    }

    /// Takes the scheduler's list of runners.
    pub fn models(&self, now: Instant, models: Vec<ModelInfo>) {
        self.lock().models = Some((now, Arc::new(models)));
    }

    /// The scheduler's side.
    pub fn scheduler(&self) -> SchedulerView {
        let inner = self.lock();
        SchedulerView {
            connected: inner.connected,
            connections: inner.connections,
            refused_messages: inner.refused_messages,
            status: inner.status.clone(),
            models: inner.models.clone(),
        }
    }

    /// How busy each device is.
    pub fn device_use(&self) -> DeviceUse {
        self.lock().device_use.clone()
    }

    /// Every subscription that had a result.
    pub fn subscriptions(&self, now: Instant) -> Vec<SubscriptionView> {
        self.lock().subscriptions.iter_mut().map(|(id, s)| s.view(id, now)).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Counters stay usable when a thread panicked between two of them.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Frame ids rise within a generation. Generations are made from the wall clock, which may be set
/// back between two lives of ingest: among them the scheduler's monotonic clock decides.
fn is_newer(item: &ResultItem, kept: &ResultItem) -> bool {
    if item.generation == kept.generation {
        item.frame_id > kept.frame_id
    } else {
        item.received > kept.received
    }
}

/// Whether both are regions of one frame that the same parent result gave.
fn is_beside(item: &ResultItem, kept: &ResultItem) -> bool {
    let of = |r: &ResultItem| (r.parent, r.generation, r.frame_id);
    item.parent != 0 && of(item) == of(kept)
}

/// Adds what was found in another region of the frame; at most [`DETECTIONS_MAX`] are kept.
fn add(kept: &mut ResultItem, item: &ResultItem) {
    kept.received = kept.received.max(item.received);
    kept.region = Rect::WHOLE;
    let (Ok(kept), Ok(found)) = (&mut kept.outcome, &item.outcome) else { return };
    let before = kept.detections.len();
    let room = DETECTIONS_MAX.saturating_sub(before);
    kept.detections.extend(found.detections.iter().take(room));
    let shifted = found.keypoints.iter().filter(|k| (k.detection as usize) < room);
    let shifted = shifted.map(|k| Keypoint { detection: k.detection + before as u32, ..*k });
    kept.keypoints.extend(shifted);
    // Masks are not shown.
    kept.masks.clear();
}

fn device_use(old: &Status, new: &Status) -> DeviceUse {
    let passed = new.now.since(old.now).as_secs_f64();
    let share = |new: &DeviceStatus| {
        let old = old.devices.iter().find(|old| old.id == new.id)?;
        let busy = new.busy.saturating_sub(old.busy).as_secs_f64();
        (passed > 0.0).then(|| (new.id.clone(), (busy / passed).min(1.0)))
    };
    new.devices.iter().filter_map(share).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    #[test]
    fn results_empties_errors_and_classes_are_counted() {
        let live = Live::default();
        let at = Instant(1_000_000_000);
        live.results(at, &testing::results(&[testing::item(1, &[0, 0, 2]), testing::item(2, &[])]));
        let torn = ResultItem { outcome: Err(MemberError::Torn), ..testing::item(3, &[]) };
        live.results(at, &testing::results(&[torn]));
        let view = live.subscriptions(at).pop().unwrap();
        assert_eq!((view.results, view.empties, view.errors), (2, 1, [1, 0, 0, 0, 0, 0]));
        assert_eq!(view.classes, BTreeMap::from([(0, 2), (2, 1)]));
        let latest = view.latest.unwrap().item;
        assert_eq!(latest.frame_id.0, 2, "an error is not the latest answer");
        assert_eq!(view.stage_means.unwrap().age(), latest.stages.age());
    }

    #[test]
    fn a_lower_generation_that_was_received_later_is_the_latest() {
        let live = Live::default();
        let latest = || {
            let view = live.subscriptions(Instant(0)).pop().unwrap();
            let item = view.latest.unwrap().item;
            (item.generation.0, item.frame_id.0)
        };
        let of = |generation, n, received| ResultItem {
            generation: base::Generation(generation),
            received: Instant(received),
            ..testing::item(n, &[0])
        };
        live.results(Instant(0), &testing::results(&[of(7, 50, 100), of(7, 49, 101)]));
        assert_eq!(latest(), (7, 50), "an older frame of the same generation came later");
        live.results(Instant(0), &testing::results(&[of(6, 1, 200)]));
        assert_eq!(latest(), (6, 1), "ingest began again with its clock set back");
        live.results(Instant(0), &testing::results(&[of(7, 51, 150)]));
        assert_eq!(latest(), (6, 1), "a straggler of the ingest that ended");
        live.results(Instant(0), &testing::results(&[of(8, 1, 201)]));
        assert_eq!(latest(), (8, 1));
    }

    #[test]
    fn the_regions_of_a_frame_are_shown_together() {
        let live = Live::default();
        let latest = || live.subscriptions(Instant(0)).pop().unwrap().latest.unwrap().item;
        let shown = || {
            let item = latest();
            let classes: Vec<u16> =
                item.outcome.unwrap().detections.iter().map(|d| d.class_id).collect();
            (item.frame_id.0, classes)
        };
        let mut crops = testing::crops(4, 40, &[&[0, 1], &[2], &[]]);
        let point = |detection| Keypoint { detection, kind: 0, x: 0.5, y: 0.5, score: 1.0 };
        crops[1].outcome.as_mut().unwrap().keypoints.push(point(0));
        live.results(Instant(0), &testing::results(&crops[..1]));
        assert_eq!(shown(), (4, vec![0, 1]));
        // Also when they come in several batches.
        live.results(Instant(0), &testing::results(&crops[1..]));
        assert_eq!(shown(), (4, vec![0, 1, 2]));
        assert_eq!(latest().outcome.unwrap().keypoints, [point(2)]);
        let view = live.subscriptions(Instant(0)).pop().unwrap();
        assert_eq!((view.results, view.empties), (3, 1), "every region counts");
        live.results(Instant(0), &testing::results(&testing::crops(5, 50, &[&[7]])));
        assert_eq!(shown(), (5, vec![7]));
        live.results(Instant(0), &testing::results(&crops[..1]));
        assert_eq!(shown(), (5, vec![7]), "an older frame came later");
        let most = vec![3; DETECTIONS_MAX];
        live.results(Instant(0), &testing::results(&testing::crops(6, 60, &[&[1], &most, &most])));
        assert_eq!(shown().1.len(), DETECTIONS_MAX);
    }

    #[test]
    fn the_window_forgets_and_the_counters_do_not() {
        let live = Live::default();
        let start = Instant(0);
        live.results(start, &testing::results(&[testing::item(1, &[0])]));
        let windowed = |at: Duration| live.subscriptions(start + at).pop().unwrap().window_results;
        assert_eq!(windowed(Duration::from_secs(29)), 1);
        assert_eq!(windowed(Duration::from_secs(31)), 1, "the previous half still counts");
        assert_eq!(windowed(Duration::from_secs(62)), 0);
        let view = live.subscriptions(start + Duration::from_secs(62)).pop().unwrap();
        assert_eq!((view.results, view.age_p99, view.stage_means), (1, None, None));
        live.results(start, &testing::results(&[testing::item(2, &[0])]));
        assert_eq!(windowed(Duration::from_secs(200)), 0, "two halves passed at once");
    }

    #[test]
    fn a_subscription_that_nobody_names_is_forgotten_after_five_minutes() {
        let live = Live::default();
        live.results(Instant(0), &testing::results(&[testing::item(1, &[0])]));
        let named = testing::status();
        let mut unnamed = named.clone();
        unnamed.subscriptions.clear();
        let later = Instant::ZERO + FORGOTTEN;
        live.status(later, named);
        assert_eq!(live.subscriptions(later).len(), 1);
        live.status(later.back(Duration::from_secs(1)), unnamed.clone());
        assert_eq!(live.subscriptions(later).len(), 1);
        live.status(later, unnamed);
        assert_eq!(live.subscriptions(later).len(), 0);
    }

    #[test]
    fn an_old_status_is_not_fresh() {
        let live = Live::default();
        assert!(live.scheduler().fresh_status(Instant(0)).is_none());
        live.status(Instant(0), testing::status());
        let view = live.scheduler();
        assert!(view.fresh_status(Instant::ZERO + STALE).is_some());
        assert!(view.fresh_status(Instant::ZERO + STALE + Duration::from_millis(1)).is_none());
    }
}
