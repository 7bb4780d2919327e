//! What serve says of the node, as far as the table and the summary need it.

use serde::Deserialize;
use std::collections::BTreeMap;
use std::io;

/// GET /ai/observability/status
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Status {
    /// The scheduler as serve sees it.
    pub scheduler: Scheduler,
    /// Planned cameras.
    pub cameras: Vec<Camera>,
    /// Planned and rejected assignments.
    pub subscriptions: Vec<Subscription>,
    /// Runners that the scheduler has met.
    pub runners: Vec<Runner>,
    /// The event store.
    pub store: Store,
}

/// The scheduler as serve sees it.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Scheduler {
    /// Why it is not healthy.
    pub reason: Option<String>,
}

/// One camera.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Camera {
    /// Its id.
    pub id: String,
    /// `frames`, `no_frames` or `unknown`.
    pub state: String,
    /// Why nothing is decoded.
    pub decode_reason: Option<String>,
    /// Frames per second in the ring.
    pub fps: Option<f64>,
}

/// One model on one camera.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Subscription {
    /// Its camera.
    pub camera_id: Option<String>,
    /// Its model.
    pub model_id: Option<String>,
    /// The model whose detections it looks at; none = whole frames.
    #[serde(default)]
    pub parent_model_id: Option<String>,
    /// `active`, `no_runner`, `rejected`, ...
    pub state: String,
    /// Why it is not active or gets less than it asked for.
    pub reason: Option<String>,
    /// Ceiling; none = every frame.
    pub max_fps: Option<f64>,
    /// What the scheduler gives now.
    pub granted_fps: Option<f64>,
    /// Where every frame went, by the words of the ledger.
    pub ledger: Option<BTreeMap<String, serde_json::Value>>,
    /// Frames, or regions of them, looked at.
    #[serde(default)]
    pub results: u64,
    /// Detections by class.
    #[serde(default)]
    pub classes: Vec<Class>,
    /// Ages of the last results.
    #[serde(default)]
    pub age: Age,
    /// Mean per stage, milliseconds.
    pub stages: Option<BTreeMap<String, serde_json::Value>>,
}

/// Detections of one class.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Class {
    /// Its name, when the model's labels are known.
    pub class_name: Option<String>,
    /// How many.
    pub count: u64,
}

/// Ages of the last results.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Age {
    /// Median, milliseconds.
    pub p50_ms: Option<f64>,
    /// 99th percentile, milliseconds.
    pub p99_ms: Option<f64>,
}

/// One runner.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Runner {
    /// Its model.
    pub model_id: String,
    /// Its device.
    pub device: String,
    /// `ready`, `profiling`, `late`, ...
    pub state: String,
    /// Batches executed.
    pub batches: u64,
    /// Frames in them.
    pub members: u64,
    /// Frames per batch.
    pub mean_batch: Option<f64>,
    /// Mean per stage, milliseconds.
    pub stages: Option<BTreeMap<String, serde_json::Value>>,
}

/// The event store.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Store {
    /// Events written.
    pub stored: u64,
    /// Events lost because the store was slow.
    pub dropped: u64,
    /// Events lost because the store failed.
    pub failed: u64,
    /// Events that the store refused one by one.
    pub rejected: u64,
    /// The last attempt to store events failed.
    pub failing: bool,
}

impl Store {
    /// Events that were given to the store and are not in it.
    pub fn lost(&self) -> u64 {
        self.failed + self.rejected
    }
}

/// The class that a person is.
const PERSON: &str = "person";

impl Status {
    /// From the answer of serve.
    ///
    /// # Errors
    /// When it is not of this shape.
    pub fn parse(value: serde_json::Value) -> io::Result<Status> {
        serde_json::from_value(value).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))
    }

    /// Frames and regions looked at, over all subscriptions.
    pub fn results(&self) -> u64 {
        self.subscriptions.iter().map(|s| s.results).sum()
    }

    /// Persons found, over all subscriptions.
    pub fn persons(&self) -> u64 {
        self.subscriptions.iter().map(Subscription::persons).sum()
    }

    /// Why a run that ends now was not a good one.
    pub fn failure(&self) -> Option<&'static str> {
        let found = |s: &Subscription| s.classes.iter().any(|class| class.count > 0);
        if self.store.failing {
            Some("the store fails: events are lost, serve's log says why")
        } else if self.store.stored == 0 && self.subscriptions.iter().any(found) {
            Some("there were detections, and none of them is stored; serve's log says why")
        } else if self.persons() == 0 {
            Some("nobody was found")
        } else {
            None
        }
    }
}

impl Subscription {
    /// Persons found.
    pub fn persons(&self) -> u64 {
        let person = |class: &&Class| class.class_name.as_deref() == Some(PERSON);
        self.classes.iter().filter(person).map(|class| class.count).sum()
    }

    /// A count of the ledger; 0 where there is none.
    pub fn count(&self, word: &str) -> u64 {
        let ledger = self.ledger.as_ref();
        ledger.and_then(|l| l.get(word)).and_then(serde_json::Value::as_u64).unwrap_or_default()
    }
}
