use super::*;
use crate::test_model;
use crate::tools::grey_frame;
use base::model::{Backend, SyntheticFault};

const MS: fn(u64) -> Duration = Duration::from_millis;

fn engine(synthetic: Synthetic) -> SyntheticEngine {
    let spec = ModelSpec { backend: Backend::Synthetic(synthetic.clone()), ..test_model::spec() };
    SyntheticEngine::new(&spec, &synthetic)
}

/// 20 ms and 1 ms per member, as on a GPU.
fn plain() -> Synthetic {
    Synthetic { alpha: MS(20), beta: MS(1), gpu: true, ..test_model::synthetic() }
}

fn always(kind: SyntheticFaultKind) -> SyntheticFault {
    SyntheticFault { kind, from: Duration::ZERO, lasts: MS(3_600_000), every: None }
}

fn run(engine: &mut SyntheticEngine, members: usize) -> Result<Finished, EngineError> {
    engine.prepare(0, vec![grey_frame(32, 16); members])?;
    let ticket = engine.submit(0)?;
    engine.wait(ticket)
}

#[test]
fn two_batches_are_held_and_execute_one_after_the_other() {
    let mut engine = engine(plain());
    engine.prepare(0, vec![grey_frame(32, 16)]).unwrap();
    engine.prepare(1, vec![grey_frame(32, 16); 4]).unwrap();
    let begun = clock::monotonic();
    let (one, four) = (engine.submit(0).unwrap(), engine.submit(1).unwrap());
    // Their slots are free while they execute.
    engine.prepare(0, vec![grey_frame(32, 16)]).unwrap();
    assert!(engine.poll(&four).unwrap().is_none());
    let four = engine.wait(four).unwrap();
    let one = engine.poll(&one).unwrap().unwrap();
    assert!(one.preprocessed >= begun);
    assert_eq!(one.executed - one.preprocessed, MS(21));
    assert_eq!((four.preprocessed, four.executed), (one.executed, one.executed + MS(24)));
    assert_eq!((four.frames.len(), four.fits.len()), (4, 4));
    assert_eq!(four.outputs[0].shape(), [4, 1, 3]);
    assert!(engine.prepare(1, vec![grey_frame(32, 16); 5]).is_err(), "batch_max is 4");
}

#[test]
fn on_a_cpu_a_batch_has_executed_when_it_was_submitted() {
    let mut engine = engine(Synthetic { gpu: false, ..plain() });
    assert!(engine.synchronous());
    engine.prepare(0, vec![grey_frame(32, 16); 2]).unwrap();
    let begun = clock::monotonic();
    let ticket = engine.submit(0).unwrap();
    assert!(clock::monotonic() - begun >= MS(22));
    assert_eq!(engine.poll(&ticket).unwrap().unwrap().fits.len(), 2);
}

#[test]
fn what_it_finds_is_what_was_asked_for() {
    let boxes = |finds, members: usize| {
        let mut engine = engine(Synthetic { finds, alpha: Duration::ZERO, ..plain() });
        let mut found = run(&mut engine, members).unwrap();
        found.outputs.truncate(2);
        let [scores, boxes] = &found.outputs[..] else { panic!("two outputs") };
        (scores.values().to_vec(), boxes.values().to_vec())
    };
    assert_eq!(boxes(Finds::Nothing, 1).0, [0.0; 3]);
    assert_eq!(boxes(Finds::Luma, 1), (vec![128.0 / 255.0, 0.0, 0.0], vec![0.0, 0.0, 8.0, 8.0]));
    let (scores, moving) = boxes(Finds::Moving, 2);
    assert_eq!(scores, [0.9, 0.0, 0.0, 0.9, 0.0, 0.0]);
    assert_eq!(moving[..4], [0.0, 0.0, 2.0, 2.0]);
    assert!(moving[4] > moving[0] && moving[4..] == [moving[4], 0.0, moving[4] + 2.0, 2.0]);
    assert_eq!(boxes(Finds::Moving, 2).1, moving, "the same again");
}

#[test]
fn faults_hold_in_their_time() {
    let with = |kinds: &[SyntheticFaultKind]| {
        let faults = kinds.iter().map(|kind| always(*kind)).collect();
        engine(Synthetic { faults, ..plain() })
    };
    let mut slow = with(&[SyntheticFaultKind::Slower(3.0)]);
    let finished = run(&mut slow, 1).unwrap();
    assert_eq!(finished.executed - finished.preprocessed, MS(63));
    let mut failing = with(&[SyntheticFaultKind::Errors(1.0)]);
    let error = run(&mut failing, 2).err().unwrap();
    assert_eq!(error.to_string(), "batch of 2: the model is to fail now");
    let mut some = with(&[SyntheticFaultKind::Errors(0.5)]);
    some.synthetic.alpha = Duration::ZERO;
    let failed = (0..20).filter(|_| run(&mut some, 1).is_err()).count();
    assert!((3..=17).contains(&failed), "{failed} of 20");
    let mut panics = with(&[SyntheticFaultKind::Panic]);
    panics.prepare(0, vec![grey_frame(32, 16)]).unwrap();
    let error = crate::pipeline::execute(&mut panics, 0, 1).err().unwrap().to_string();
    assert!(error.contains("the engine panicked: the model is to panic now"), "{error}");
    let mut hangs = with(&[SyntheticFaultKind::Hang]);
    hangs.prepare(0, vec![grey_frame(32, 16)]).unwrap();
    let ticket = hangs.submit(0).unwrap();
    std::thread::sleep(MS(30));
    assert!(hangs.poll(&ticket).unwrap().is_none());
    // Later it is as good as any.
    let mut later = with(&[SyntheticFaultKind::Panic]);
    later.synthetic.faults[0].from = MS(3_600_000);
    run(&mut later, 1).unwrap();
}

#[test]
fn noise_varies_around_what_it_takes() {
    let mut engine = engine(Synthetic { noise: 0.1, ..plain() });
    let now = clock::monotonic();
    let times: Vec<f64> =
        (0..1000).map(|_| engine.execution(now, 4).0.unwrap().as_secs_f64() * 1e3).collect();
    let mean = times.iter().sum::<f64>() / 1e3;
    let deviation = (times.iter().map(|t| (t - mean).powi(2)).sum::<f64>() / 1e3).sqrt();
    assert!((mean - 24.0).abs() < 0.5 && (deviation - 2.4).abs() < 0.3, "{mean} {deviation}");
}
