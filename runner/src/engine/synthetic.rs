//! An engine that executes nothing: it waits as long as a batch is said to take, and fails as it is
//! asked to. For trying out and testing everything around an engine.
//!
//! With real slots. As on a GPU it is asynchronous: [`Engine::submit`] returns at once, batches follow each
//! other on a device of its own, and it can hold a prepared batch meanwhile. As on a CPU it is not: the
//! thread that submits waits.

use super::{Engine, EngineError, EngineInfo, Finished, Frame, OutputTensor, Ticket};
use base::Instant;
use base::model::{Finds, InputSpec, ModelSpec, Synthetic, SyntheticFaultKind};
use ipc::clock;
use kernels::{Fit, PreprocessError};
use std::time::Duration;

/// Batches held: one executing, one prepared.
const SLOTS: usize = 2;
/// How often somebody who waits for a batch that hangs looks again.
const HANGS: Duration = Duration::from_secs(1);
/// Positions of the box that moves, each way.
const STEPS: u64 = 64;

/// See the module.
pub struct SyntheticEngine {
    info: EngineInfo,
    synthetic: Synthetic,
    input: InputSpec,
    labels: usize,
    batch_max: usize,
    loaded: Instant,
    slots: [Option<Vec<Frame>>; SLOTS],
    running: Vec<Running>,
    /// When all that was submitted has ended.
    free_at: Instant,
    tickets: u64,
    frames: u64,
    random: u64,
}

struct Running {
    ticket: u64,
    frames: Vec<Frame>,
    begin: Instant,
    /// `None` = never.
    end: Option<Instant>,
    fails: bool,
}

struct Values(Vec<usize>, Vec<f32>);

impl OutputTensor for Values {
    fn shape(&self) -> &[usize] {
        &self.0
    }
    fn values(&self) -> &[f32] {
        &self.1
    }
}

impl SyntheticEngine {
    /// Takes what the model's `model.yaml` says of it.
    pub fn new(spec: &ModelSpec, synthetic: &Synthetic) -> SyntheticEngine {
        let device = if synthetic.gpu { "gpu" } else { "cpu" };
        let info = EngineInfo {
            runtime: "synthetic 1".into(),
            summary: format!("synthetic, as on a {device}: it waits and executes nothing"),
            gpu: synthetic.gpu,
        };
        let loaded = clock::monotonic();
        SyntheticEngine {
            info,
            synthetic: synthetic.clone(),
            input: spec.input.clone(),
            labels: spec.labels.len(),
            batch_max: spec.batch_max as usize,
            loaded,
            slots: [None, None],
            running: Vec::new(),
            free_at: loaded,
            tickets: 0,
            frames: 0,
            random: 0x9e37_79b9_7f4a_7c15,
        }
    }

    /// The next of a fixed sequence of numbers, uniform over 0..1 (xorshift64*, Vigna 2016).
    fn unit(&mut self) -> f64 {
        self.random ^= self.random >> 12;
        self.random ^= self.random << 25;
        self.random ^= self.random >> 27;
        let bits = self.random.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11;
        bits as f64 / (1_u64 << 53) as f64
    }

    /// Normal with mean 0 and deviation 1 (Box and Muller 1958).
    fn normal(&mut self) -> f64 {
        let (a, b) = (1.0 - self.unit(), self.unit());
        (-2.0 * a.ln()).sqrt() * (std::f64::consts::TAU * b).cos()
    }

    /// What a batch that begins at `begin` takes, `None` = for ever, and whether it fails.
    fn execution(&mut self, begin: Instant, members: usize) -> (Option<Duration>, bool) {
        let Synthetic { alpha, beta, noise, .. } = self.synthetic;
        // Never faster than a fifth: a normal distribution has no end.
        let spread = (1.0 + noise * self.normal()).max(0.2);
        let mut length = (alpha + beta * members as u32).mul_f64(spread);
        let (mut fails, mut hangs) = (false, false);
        for i in 0..self.synthetic.faults.len() {
            let fault = self.synthetic.faults[i];
            if !fault.holds(begin - self.loaded) {
                continue;
            }
            match fault.kind {
                SyntheticFaultKind::Slower(factor) => length = length.mul_f64(factor),
                SyntheticFaultKind::Errors(share) => fails |= self.unit() < share,
                SyntheticFaultKind::Hang => hangs = true,
                SyntheticFaultKind::Panic => panic!("the model is to panic now"),
            }
        }
        ((!hangs).then_some(length), fails)
    }

    /// Scores `[N, 1, C]` and boxes `[N, 1, 4]` of these frames.
    fn outputs(&mut self, frames: &[Frame]) -> Vec<Box<dyn OutputTensor>> {
        let (width, height) = (self.input.size.width as f32, self.input.size.height as f32);
        let mut scores = vec![0.0; frames.len() * self.labels];
        let mut boxes = Vec::with_capacity(frames.len() * 4);
        for (frame, scores) in frames.iter().zip(scores.chunks_exact_mut(self.labels)) {
            let step = self.frames % (STEPS * STEPS);
            self.frames += 1;
            scores[0] = match self.synthetic.finds {
                Finds::Nothing => 0.0,
                Finds::Moving => 0.9,
                Finds::Luma => f32::from(frame.pixels[0]) / 255.0,
            };
            let place = |step: u64, side: f32| 0.75 * side * (step % STEPS) as f32 / STEPS as f32;
            boxes.extend(match self.synthetic.finds {
                Finds::Moving => {
                    let (x, y) = (place(step, width), place(step / STEPS, height));
                    [x, y, x + width / 4.0, y + height / 4.0]
                }
                Finds::Nothing | Finds::Luma => [0.0, 0.0, width, height],
            });
        }
        let shape = |last| vec![frames.len(), 1, last];
        vec![Box::new(Values(shape(self.labels), scores)), Box::new(Values(shape(4), boxes))]
    }

    /// Waits until a batch has executed; for ever when it hangs.
    fn await_end(&self, ticket: &Ticket) {
        let end = self.running[self.place(ticket)].end;
        loop {
            let wait = end.map_or(HANGS, |end| end - clock::monotonic());
            if wait.is_zero() {
                return;
            }
            std::thread::sleep(wait);
        }
    }

    fn place(&self, ticket: &Ticket) -> usize {
        let at = self.running.iter().position(|r| r.ticket == ticket.0);
        at.expect("the ticket is its own and not spent")
    }
}

impl Engine for SyntheticEngine {
    fn info(&self) -> &EngineInfo {
        &self.info
    }

    fn slots(&self) -> usize {
        SLOTS
    }

    fn synchronous(&self) -> bool {
        !self.info.gpu
    }

    fn prepare(&mut self, slot: usize, frames: Vec<Frame>) -> Result<(), EngineError> {
        let members = frames.len();
        if members == 0 || members > self.batch_max {
            let why = format!("1 to {} members fit", self.batch_max);
            return Err(EngineError::Run { members, why });
        }
        self.slots[slot] = Some(frames);
        Ok(())
    }

    fn submit(&mut self, slot: usize) -> Result<Ticket, EngineError> {
        let frames = self.slots[slot].take().expect("the caller prepared this slot");
        let begin = clock::monotonic().max(self.free_at);
        let (length, fails) = self.execution(begin, frames.len());
        let end = length.map(|length| begin + length);
        self.free_at = end.unwrap_or(begin);
        self.tickets += 1;
        self.running.push(Running { ticket: self.tickets, frames, begin, end, fails });
        let ticket = Ticket(self.tickets);
        if self.synchronous() {
            self.await_end(&ticket);
        }
        Ok(ticket)
    }

    fn poll(&mut self, ticket: &Ticket) -> Result<Option<Finished>, EngineError> {
        let at = self.place(ticket);
        let Some(executed) = self.running[at].end.filter(|end| *end <= clock::monotonic()) else {
            return Ok(None);
        };
        let Running { frames, begin, fails, .. } = self.running.remove(at);
        if fails {
            let why = "the model is to fail now".to_owned();
            return Err(EngineError::Run { members: frames.len(), why });
        }
        let input = &self.input;
        let fit = |f: &Frame| -> Result<Fit, PreprocessError> {
            Ok(Fit::new(f.picture.size, f.region, input.size, input.resize)?)
        };
        let fits = frames.iter().map(fit).collect();
        let outputs = self.outputs(&frames);
        Ok(Some(Finished { frames, fits, outputs, preprocessed: begin, executed }))
    }

    fn wait(&mut self, ticket: Ticket) -> Result<Finished, EngineError> {
        self.await_end(&ticket);
        let finished = self.poll(&ticket)?;
        Ok(finished.expect("its end has passed"))
    }
}

#[cfg(test)]
mod tests;
