//! The name of what executes a model: a measurement is worth nothing on anything else.

use base::model::{Backend, ModelSpec};
use std::fs;
use std::thread::available_parallelism;

/// What the engine of this model executes on: the processor and how many of its threads this process
/// may use, or, for an engine on a GPU, the name of that. (How many of the threads one inference gets
/// is the configuration's and told beside.)
pub fn name(spec: &ModelSpec) -> String {
    match &spec.backend {
        Backend::Onnx => {
            let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
            let threads = available_parallelism().map_or(1, usize::from);
            format!("{}, {threads} threads", processor(&info))
        }
        // Nothing executes: it waits.
        Backend::Synthetic(_) => "synthetic".to_owned(),
    }
}

/// The first processor of a `/proc/cpuinfo`: its name, or the numbers that stand for it on ARM.
fn processor(info: &str) -> String {
    let value = |key: &str| {
        let lines = info.lines().filter_map(|line| line.split_once(':'));
        let mut values = lines.filter(|(k, _)| k.trim() == key).map(|(_, value)| value.trim());
        values.next().filter(|value| !value.is_empty())
    };
    if let Some(name) = value("model name") {
        return name.to_owned();
    }
    match (value("CPU implementer"), value("CPU part")) {
        (Some(implementer), Some(part)) => format!("cpu {implementer} {part}"),
        _ => format!("unknown {}", std::env::consts::ARCH),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_processor_has_a_name_or_numbers() {
        let x86 = "processor\t: 0\nvendor_id\t: GenuineIntel\nmodel\t\t: 85\n\
                   model name\t: Intel(R) Xeon(R) CPU @ 2.80GHz\n\nprocessor\t: 1\n";
        assert_eq!(processor(x86), "Intel(R) Xeon(R) CPU @ 2.80GHz");
        let arm = "processor\t: 0\nCPU implementer\t: 0x41\nCPU part\t: 0xd0c\n";
        assert_eq!(processor(arm), "cpu 0x41 0xd0c");
        assert!(processor("").starts_with("unknown "));
    }

    #[test]
    fn this_machine_has_a_name() {
        let name = name(&crate::test_model::spec());
        assert!(name.ends_with(" threads") && name.len() > " threads".len() + 2, "{name}");
    }
}
