//! `synthetic:` of a `model.yaml` whose `model_type` is `synthetic`.

use super::node::{Node, Section};
use super::{flag, number, one_of};
use base::Size;
use base::model::{
    ColourOrder, DType, Decoder, Finds, InputSpec, Layout, Resize, Synthetic, SyntheticFault,
    SyntheticFaultKind,
};
use std::time::Duration;

/// The one class of a model that names none.
pub const LABEL: &str = "object";
/// Longest time of a batch and of a member, and longest span of a fault, seconds (chosen: a day).
const SPAN_MAX_S: f64 = 86_400.0;

fn unit(node: &Node) -> Option<f64> {
    number(node).filter(|v| (0.0..=1.0).contains(v))
}

/// What it does. `None` = something is wrong, and noted.
pub fn read(top: &Section<'_>) -> Option<Synthetic> {
    let section = top.section("synthetic", true);
    let ms_rule = "has to be milliseconds from 0 to 60000";
    let ms = |n: &Node| number(n).filter(|v| (0.0..=60_000.0).contains(v)).map(|v| v / 1e3);
    let alpha = section.required("alpha_ms", ms_rule, ms);
    let beta = section.required("beta_ms", ms_rule, ms);
    let noise_rule = "has to be a number from 0 to 1: the relative standard deviation";
    let noise = section.optional("noise", noise_rule, unit).unwrap_or(0.0);
    let gpu = section.optional("gpu", "has to be true or false", flag).unwrap_or(false);
    let finds = section.optional("finds", "has to be `nothing`, `moving` or `luma`", |n| {
        let words = [("nothing", Finds::Nothing), ("moving", Finds::Moving), ("luma", Finds::Luma)];
        one_of(n, &words)
    });
    // All of them are looked at, also behind one that is wrong.
    let faults: Vec<_> = section.sections("faults").into_iter().map(fault).collect();
    section.finish();
    Some(Synthetic {
        alpha: Duration::from_secs_f64(alpha?),
        beta: Duration::from_secs_f64(beta?),
        noise,
        gpu,
        finds: finds.unwrap_or(Finds::Nothing),
        faults: faults.into_iter().collect::<Option<Vec<_>>>()?,
    })
}

#[derive(Debug, Clone, Copy)]
enum Word {
    Slower,
    Errors,
    Hang,
    Panic,
}

fn fault(section: Section<'_>) -> Option<SyntheticFault> {
    let kind_rule = "has to be `slower`, `errors`, `hang` or `panic`";
    let word = section.required("fault", kind_rule, |n| {
        let words = [
            ("slower", Word::Slower),
            ("errors", Word::Errors),
            ("hang", Word::Hang),
            ("panic", Word::Panic),
        ];
        one_of(n, &words)
    });
    let kind = match word {
        Some(Word::Slower) => {
            let rule = "has to be a number above 0, up to 1000: how many times as long";
            let factor = |n: &Node| number(n).filter(|v| *v > 0.0 && *v <= 1000.0);
            section.required("factor", rule, factor).map(SyntheticFaultKind::Slower)
        }
        Some(Word::Errors) => {
            let rule = "has to be a number from 0 to 1: the part of the batches that fails";
            section.required("share", rule, unit).map(SyntheticFaultKind::Errors)
        }
        Some(Word::Hang) => Some(SyntheticFaultKind::Hang),
        Some(Word::Panic) => Some(SyntheticFaultKind::Panic),
        None => None,
    };
    let span_rule = "has to be seconds, at most a day";
    let span = |n: &Node| {
        number(n).filter(|v| (0.0..=SPAN_MAX_S).contains(v)).map(Duration::from_secs_f64)
    };
    let from = section.optional("from_s", span_rule, span).unwrap_or(Duration::ZERO);
    let lasts = section.required("for_s", span_rule, span);
    let every_rule = "has to be seconds, not less than `for_s`, at most a day";
    let every = section.optional("every_s", every_rule, |n| {
        span(n).filter(|every| !every.is_zero() && lasts.is_none_or(|lasts| lasts <= *every))
    });
    section.finish();
    Some(SyntheticFault { kind: kind?, from, lasts: lasts?, every })
}

/// The input of a model that looks at nothing: regions are found in it all the same.
pub fn input(size: Size) -> InputSpec {
    InputSpec {
        tensor: "images".to_owned(),
        size,
        layout: Layout::Nchw,
        dtype: DType::U8,
        colour: ColourOrder::Rgb,
        resize: Resize::Stretch,
        mean: [0.0; 3],
        std: [1.0; 3],
    }
}

/// How its answers are read.
pub fn decoder() -> Decoder {
    Decoder::BoxesScores { scores: "scores".to_owned(), boxes: "boxes".to_owned() }
}
