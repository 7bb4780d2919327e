//! Draws a world from a seed.

use super::plan::{
    CameraPlan, Change, Fault, NextIds, Offence, RunnerPlan, Spell, SpellKind, WorldPlan,
};
use crate::random::Random;
use base::{DeviceId, Instant, ModelId};
use scheduler::{Config, Steering, SubscriptionSpec};
use std::time::Duration;

/// What happens in a world, drawn first: some worlds are calm, some have everything.
struct Weather {
    /// Far more is wanted than there is, of small batches: who gets what is decided all the time.
    heavy: bool,
    cameras: bool,
    runners: bool,
    churn: bool,
    stalls: bool,
    noise: bool,
    measuring: bool,
}

/// A random world of that length. The same seed and length give the same world.
pub fn random_world(seed: u64, length: Duration) -> WorldPlan {
    let mut draw = Draw { random: Random::new(seed, 5_000_000), length: length.as_secs_f64() };
    let calm = draw.chance(0.15);
    let heavy = draw.chance(0.35);
    let mut some = |share| !calm && draw.chance(share);
    let weather = Weather {
        heavy,
        cameras: some(0.6),
        runners: some(0.7),
        churn: some(0.5),
        stalls: some(0.3),
        noise: some(0.6),
        measuring: some(0.4),
    };
    let cameras = draw.cameras(&weather);
    let (config, runners) = draw.runners(&weather);
    let mut models: Vec<ModelId> = runners.iter().map(|r| r.model.clone()).collect();
    models.dedup();
    let mut subscriptions = draw.subscriptions(&weather, &cameras, &models);
    if draw.chance(0.45) {
        draw.children(&mut subscriptions, &models);
    }
    let changes = if weather.churn { draw.changes(&cameras, &models) } else { Vec::new() };
    let mut stalls = Vec::new();
    if weather.stalls {
        for _ in 0..1 + draw.random.below(4) {
            let lasts = draw.log(0.001, 4.0);
            stalls.push((draw.at(), Duration::from_secs_f64(lasts)));
        }
    }
    let steps = draw.random.below(4);
    let utc_steps = (0..steps).map(|_| (draw.at(), draw.random.range(-4e12, 4e12) as i64));
    let utc_steps = utc_steps.collect();
    WorldPlan {
        seed,
        length,
        config,
        cameras,
        runners,
        subscriptions,
        changes,
        stalls,
        utc_steps,
        calm,
    }
}

struct Draw {
    random: Random,
    /// Seconds.
    length: f64,
}

fn seconds(value: f64) -> Duration {
    Duration::from_secs_f64(value)
}

fn millis(value: f64) -> Duration {
    Duration::from_secs_f64(value / 1e3)
}

impl Draw {
    fn chance(&mut self, share: f64) -> bool {
        self.random.unit() < share
    }

    /// Between the two, each order of magnitude as likely as another.
    fn log(&mut self, low: f64, high: f64) -> f64 {
        self.random.range(low.ln(), high.ln()).exp()
    }

    fn at(&mut self) -> Instant {
        let at = self.random.range(0.0, self.length);
        Instant::ZERO + seconds(at)
    }

    fn one<T: Clone>(&mut self, of: &[T]) -> T {
        of[self.random.below(of.len() as u64) as usize].clone()
    }

    fn cameras(&mut self, weather: &Weather) -> Vec<CameraPlan> {
        let count = self.log(if weather.heavy { 25.0 } else { 5.0 }, 60.0) as u64;
        let usual =
            if weather.heavy { 25.0 } else { self.one(&[5.0, 10.0, 12.5, 25.0, 30.0, 60.0]) };
        let mixed = self.chance(0.5);
        let jittery = self.chance(0.5);
        // Cameras that start together: boot after a power cut.
        let aligned = self.chance(0.2);
        let ahead = if self.chance(0.3) { 0.02 } else { 0.0 };
        let cameras = (0..count).map(|i| {
            let slowest = if weather.heavy { 10.0 } else { 1.0 };
            let fps = if mixed { self.log(slowest, 60.0) } else { usual };
            let jitter = if jittery { self.random.range(0.0, 15.0) } else { 0.0 };
            let phase = if aligned { 0.0 } else { self.random.range(0.0, 1000.0 / fps) };
            CameraPlan {
                id: format!("c{i}").parse().expect("a valid id"),
                fps,
                phase: millis(phase),
                delay: millis(self.random.range(1.0, 40.0)),
                jitter: millis(jitter),
                drift_ppm: self.random.range(-200.0, 200.0),
                slots: self.log(8.0, 64.0) as u32,
                ahead,
                spells: if weather.cameras { self.spells() } else { Vec::new() },
            }
        });
        cameras.collect()
    }

    fn spells(&mut self) -> Vec<Spell> {
        let mut spells = Vec::new();
        if self.chance(0.4) {
            return spells;
        }
        let mut at = self.random.range(0.0, self.length);
        while at < self.length && spells.len() < 6 {
            let kind = match self.random.below(8) {
                0 | 1 => SpellKind::Silent,
                2 | 3 => SpellKind::Stale,
                4 => SpellKind::Invalid,
                5 => SpellKind::Damaged,
                6 => SpellKind::Reconnect(self.next_ids()),
                _ => SpellKind::Vanish(self.next_ids()),
            };
            // Some never come back.
            let lasts = if self.chance(0.05) { self.length } else { self.log(0.02, 12.0) };
            let from = Instant::ZERO + seconds(at);
            spells.push(Spell { from, to: from + seconds(lasts), kind });
            at += lasts + self.log(0.05, 30.0);
        }
        spells
    }

    fn next_ids(&mut self) -> NextIds {
        match self.random.below(4) {
            0 => NextIds::Anew,
            1 => NextIds::FallBack(1 + self.random.below(200)),
            2 => NextIds::Continue(0),
            _ => NextIds::Continue(self.random.below(1000)),
        }
    }

    fn runners(&mut self, weather: &Weather) -> (Config, Vec<RunnerPlan>) {
        let device = |text: String| -> DeviceId { text.parse().expect("a valid id") };
        let count = 1 + self.random.below(4);
        let steering = self.one(&[Steering::Off, Steering::Auto, Steering::Auto, Steering::On]);
        let mut config = Config { steering, ..Config::default() };
        if self.chance(0.3) {
            config.usable_share = self.random.range(0.8, 0.99);
        }
        let mut devices = Vec::new();
        for i in 0..count {
            let gpu = self.chance(0.65);
            let id = device(if gpu { format!("gpu{i}") } else { format!("cpu{i}") });
            let capacity = if gpu { 1 } else { 1 + self.random.below(4) as u32 };
            config.capacities.push((id.clone(), capacity));
            devices.push((id, gpu));
        }
        let models = 1 + self.random.below(5);
        let mut runners = Vec::new();
        for m in 0..models {
            let model = ModelId::new(&format!("m{m}")).expect("a valid id");
            let (first, gpu) = self.one(&devices);
            let runner = self.runner(model.clone(), first.clone(), gpu, weather);
            runners.push(runner.clone());
            if self.chance(0.25) {
                let (second, gpu) = self.one(&devices);
                if second != first {
                    let other = self.runner(model, second, gpu, weather);
                    // Both say the same deadline: it is the model's.
                    runners.push(RunnerPlan { deadline: runner.deadline, ..other });
                }
            }
        }
        (config, runners)
    }

    fn runner(
        &mut self,
        model: ModelId,
        device: DeviceId,
        gpu: bool,
        weather: &Weather,
    ) -> RunnerPlan {
        let (alpha, beta, largest) = if gpu {
            (self.log(0.3, 15.0), self.log(0.1, 10.0), 6)
        } else {
            (self.log(0.01, 5.0), self.log(3.0, 40.0), 4)
        };
        let largest = if weather.heavy { 2 } else { largest };
        let batch_max = 1 << self.random.below(largest + 1);
        let noisy = weather.noise && self.chance(0.7);
        let connect =
            if self.chance(0.8) { 0.0 } else { self.random.range(0.0, self.length / 3.0) };
        let single = alpha + beta;
        RunnerPlan {
            model,
            device,
            gpu,
            alpha: millis(alpha),
            beta: millis(beta),
            batch_max,
            // What can't be served within its deadline at all is a mistake of the configuration.
            deadline: millis(self.log(100.0, 1000.0).max(60.0 + 4.0 * single)),
            copy: millis(self.random.range(0.05, 0.8)),
            postprocess: millis(self.random.range(0.05, 0.8)),
            noise: if noisy { self.random.range(0.0, 0.1) } else { 0.0 },
            spikes: if noisy { self.random.range(0.0, 0.02) } else { 0.0 },
            measured: !(weather.measuring && self.chance(0.6)),
            light: if gpu { self.chance(0.1) } else { self.chance(0.9) },
            detections: self.random.below(6) as u32,
            connect: Instant::ZERO + seconds(connect),
            faults: if weather.runners { self.faults() } else { Vec::new() },
        }
    }

    fn faults(&mut self) -> Vec<Fault> {
        let mut faults = Vec::new();
        if self.chance(0.35) {
            return faults;
        }
        for _ in 0..2 + self.random.below(8) {
            let at = self.at();
            match self.random.below(14) {
                0 | 1 => {
                    let lasts = self.log(0.001, 10.0);
                    let back = self.chance(0.85).then(|| seconds(lasts));
                    faults.push(Fault::Crash(at, back));
                }
                2 => {
                    // A crash loop.
                    let every = self.log(0.05, 2.0);
                    let times = 3 + self.random.below(20);
                    for n in 0..times {
                        let at = at + seconds(every * n as f64);
                        faults.push(Fault::Crash(at, Some(seconds(every * 0.4))));
                    }
                }
                3 | 4 => {
                    let freed = self.log(0.05, 10.0);
                    faults.push(Fault::Hang(at, seconds(freed)));
                }
                5 | 6 => {
                    let lasts = self.log(0.005, 3.0);
                    faults.push(Fault::Stop(at, seconds(lasts)));
                }
                7 | 8 => {
                    let lasts = self.log(0.2, 20.0);
                    let times = self.one(&[3, 3, 3, 10, 40]);
                    faults.push(Fault::Slow(at, at + seconds(lasts), times));
                }
                9 => {
                    let (lasts, share) = (self.log(0.2, 20.0), self.random.unit());
                    faults.push(Fault::Errors(at, at + seconds(lasts), share));
                }
                10 => faults.push(Fault::Reconnect(at)),
                11 => {
                    let offences = [
                        Offence::ReplyUnknown,
                        Offence::ExecutedUnknown,
                        Offence::PreparedUnknown,
                        Offence::WrongCount,
                        Offence::ExecutedTwice,
                    ];
                    let offence = self.one(&offences);
                    faults.push(Fault::Offend(at, offence));
                }
                12 => {
                    let scale = self.log(0.3, 3.0);
                    faults.push(Fault::Table(at, scale));
                }
                _ => faults.push(Fault::Measure(at)),
            }
        }
        faults
    }

    fn ceiling(&mut self) -> Option<f64> {
        (!self.chance(0.12)).then(|| (self.log(0.1, 30.0) * 10.0).round().max(1.0) / 10.0)
    }

    fn specification(
        &mut self,
        id: String,
        camera: &CameraPlan,
        model: &ModelId,
    ) -> SubscriptionSpec {
        let deadline = self.log(60.0, 1500.0);
        let mut spec = SubscriptionSpec {
            id,
            camera: camera.id.clone(),
            model: model.clone(),
            parent: None,
            max_fps: self.ceiling(),
            weight: if self.chance(0.3) { self.one(&[0.25, 0.5, 2.0, 4.0]) } else { 1.0 },
            deadline: self.chance(0.15).then(|| millis(deadline)),
            parameters: self.random.below(4) as u32,
            regions_max: 0,
            enabled: !self.chance(0.03),
        };
        // Without a draw of its own: worlds of old seeds stay what they were.
        spec.regions_max = [16, 3, 1, 64][spec.parameters as usize];
        spec
    }

    fn subscriptions(
        &mut self,
        weather: &Weather,
        cameras: &[CameraPlan],
        models: &[ModelId],
    ) -> Vec<SubscriptionSpec> {
        let share = self.random.range(0.3, 1.0);
        let same = if weather.heavy {
            Some(self.chance(0.8).then(|| self.random.range(4.0, 30.0)))
        } else {
            self.chance(0.4).then(|| self.ceiling())
        };
        let mut subscriptions = Vec::new();
        for camera in cameras {
            for model in models {
                if self.chance(share) {
                    let id = format!("s{}", subscriptions.len());
                    let mut spec = self.specification(id, camera, model);
                    if let Some(max_fps) = same.filter(|_| !self.chance(0.1)) {
                        spec.max_fps = max_fps;
                    }
                    subscriptions.push(spec);
                }
            }
        }
        // Models that nobody runs.
        if self.chance(0.2) {
            let camera = self.one(cameras);
            let model = ModelId::new("nobody").expect("a valid id");
            subscriptions.push(self.specification("orphan".into(), &camera, &model));
        }
        subscriptions
    }

    /// Some look at the detections of another model on the same camera instead of whole frames.
    fn children(&mut self, subscriptions: &mut [SubscriptionSpec], models: &[ModelId]) {
        let parent = self.one(models);
        let child = self.one(models);
        if parent == child {
            return;
        }
        let wanted: Vec<_> =
            subscriptions.iter().filter(|s| s.model == parent).map(|s| s.camera.clone()).collect();
        for s in subscriptions.iter_mut().filter(|s| s.model == child) {
            if wanted.contains(&s.camera) {
                s.parent = Some(parent.clone());
            }
        }
    }

    fn changes(&mut self, cameras: &[CameraPlan], models: &[ModelId]) -> Vec<(Instant, Change)> {
        let mut changes = Vec::new();
        let mut number = 0;
        for _ in 0..1 + self.random.below(3) {
            // A burst of up to 100 changes per second, or some over the time.
            let (from, rate, lasts) =
                (self.random.range(0.0, self.length), self.log(0.2, 100.0), self.log(1.0, 10.0));
            let kinds = self.one(&[8u64, 8, 3, 1]);
            let mut at = from;
            while at < (from + lasts).min(self.length) {
                let pick = self.random.next_u64();
                number += 1;
                let id = format!("n{number}");
                let (camera, model) = (self.one(cameras), self.one(models));
                let change = match self.random.below(kinds) {
                    0 => Change::Ceiling(pick, self.ceiling()),
                    1 => Change::Add(self.specification(id, &camera, &model)),
                    2 => Change::Remove(pick),
                    3 => Change::Reassign(pick, model, id),
                    4 => Change::Enable(pick, self.chance(0.7)),
                    5 => Change::Weight(pick, self.one(&[0.25, 1.0, 4.0])),
                    6 => {
                        let deadline = millis(self.log(60.0, 1500.0));
                        Change::Deadline(pick, self.chance(0.5).then_some(deadline))
                    }
                    _ => Change::Same,
                };
                changes.push((Instant::ZERO + seconds(at), change));
                at += self.random.range(0.0, 2.0 / rate);
            }
        }
        changes.sort_by_key(|(at, _)| *at);
        changes
    }
}
