//! What can stand in the middle of a world: the production core, or a rival it is compared with.

use base::{CameraId, Instant};
use scheduler::{CameraKey, Config, FrameIndex, Input, Output, Report, Scheduler, SubscriptionKey};

/// The frames of a world, and what no real scheduler can know of them.
pub trait Frames: FrameIndex {
    /// When this camera publishes its next frame, [`Instant::FAR`] = never. An oracle: the
    /// production core never asks, it predicts.
    fn next_publication(&mut self, camera: CameraKey) -> Instant;
}

/// What a world gives to a policy beyond what production has. All of it favours the policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Privileges {
    /// There is no token: what is prepared executes at once, and the batches that execute at one
    /// time share their device evenly, at no cost (ideal processor sharing).
    pub sharing: bool,
    /// Hello always carries the exact L(b), also where the runner would have to measure it first.
    pub exact_tables: bool,
    /// The copy of a batch before its execution takes no time.
    pub free_copies: bool,
}

/// Decides which frames go to which runner, when. The contract is that of
/// [`scheduler::Scheduler`]: every input, then polls until [`Output::Wait`].
pub trait Policy {
    /// Is told once, before all else.
    fn start(&mut self, config: &Config) {
        let _ = config;
    }

    /// What the world has to do differently.
    fn privileges(&self) -> Privileges {
        Privileges::default()
    }

    /// Takes in what happened.
    fn handle(&mut self, now: Instant, input: Input);

    /// What to do next.
    fn poll(&mut self, now: Instant, frames: &mut dyn Frames) -> Output<'_>;

    /// Cameras that have keys. Keys are given while [`Input::Desired`] is handled.
    fn cameras(&self) -> Box<dyn Iterator<Item = (CameraKey, &CameraId)> + '_>;

    /// The camera behind a key.
    fn camera_id(&self, key: CameraKey) -> &CameraId;

    /// The assignment id behind a key; `None` once the subscription is gone.
    fn subscription_id(&self, key: SubscriptionKey) -> Option<&str>;

    /// The state of everything, from a policy that keeps ledgers.
    fn report(&self, now: Instant) -> Option<Report> {
        let _ = now;
        None
    }
}

impl Policy for Scheduler {
    fn handle(&mut self, now: Instant, input: Input) {
        Scheduler::handle(self, now, input);
    }

    fn poll(&mut self, now: Instant, frames: &mut dyn Frames) -> Output<'_> {
        Scheduler::poll(self, now, frames)
    }

    fn cameras(&self) -> Box<dyn Iterator<Item = (CameraKey, &CameraId)> + '_> {
        Box::new(Scheduler::cameras(self))
    }

    fn camera_id(&self, key: CameraKey) -> &CameraId {
        Scheduler::camera_id(self, key)
    }

    fn subscription_id(&self, key: SubscriptionKey) -> Option<&str> {
        Scheduler::subscription_id(self, key)
    }

    fn report(&self, now: Instant) -> Option<Report> {
        Some(Scheduler::report(self, now))
    }
}

impl<P: Policy + ?Sized> Policy for Box<P> {
    fn start(&mut self, config: &Config) {
        (**self).start(config);
    }

    fn privileges(&self) -> Privileges {
        (**self).privileges()
    }

    fn handle(&mut self, now: Instant, input: Input) {
        (**self).handle(now, input);
    }

    fn poll(&mut self, now: Instant, frames: &mut dyn Frames) -> Output<'_> {
        (**self).poll(now, frames)
    }

    fn cameras(&self) -> Box<dyn Iterator<Item = (CameraKey, &CameraId)> + '_> {
        (**self).cameras()
    }

    fn camera_id(&self, key: CameraKey) -> &CameraId {
        (**self).camera_id(key)
    }

    fn subscription_id(&self, key: SubscriptionKey) -> Option<&str> {
        (**self).subscription_id(key)
    }

    fn report(&self, now: Instant) -> Option<Report> {
        (**self).report(now)
    }
}
