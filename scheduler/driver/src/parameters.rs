//! Parameter sets of the assignments by the numbers that the core carries.

use base::limits::PARAMETERS_BYTES_MAX;
use ipc::runner_message::ParameterSet;
use serde_json::Value;
use std::collections::BTreeMap;

/// Those of the desired state in force. A set is known by its text, whatever the file calls it, and
/// leaves with the last assignment that has it.
#[derive(Debug, Default)]
pub(crate) struct Parameters {
    /// By number less one; `free` places are used again.
    sets: Vec<Option<ParameterSet>>,
    numbers: BTreeMap<String, u32>,
    free: Vec<usize>,
}

/// The numbers of one desired state.
pub(crate) struct Numbering<'p> {
    parameters: &'p mut Parameters,
    used: Vec<bool>,
}

impl Parameters {
    /// Begins the numbers of a desired state.
    pub fn number_anew(&mut self) -> Numbering<'_> {
        Numbering { used: vec![false; self.sets.len()], parameters: self }
    }

    /// The set behind a number; 0 has none.
    pub fn get(&self, number: u32) -> Option<&ParameterSet> {
        self.sets.get((number as usize).checked_sub(1)?)?.as_ref()
    }
}

impl Numbering<'_> {
    /// The number of these parameters, 0 for none. `id` is what the file calls them.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn number(&mut self, id: &str, value: &Value) -> Result<u32, String> {
        let kind = match value {
            Value::Object(map) if !map.is_empty() => {
                let json = value.to_string();
                if json.len() > PARAMETERS_BYTES_MAX {
                    let bytes = json.len();
                    return Err(format!(
                        "parameters are {bytes} bytes of JSON, allowed are {PARAMETERS_BYTES_MAX}"
                    ));
                }
                return Ok(self.of(id, json));
            }
            Value::Object(_) | Value::Null => return Ok(0),
            Value::Array(_) => "a list",
            Value::String(_) => "a text",
            Value::Number(_) => "a number",
            Value::Bool(_) => "a boolean",
        };
        Err(format!("parameters are {kind}, must be an object or null"))
    }

    fn of(&mut self, id: &str, json: String) -> u32 {
        let Parameters { sets, numbers, free } = &mut *self.parameters;
        if let Some(number) = numbers.get(&json) {
            self.used[*number as usize - 1] = true;
            return *number;
        }
        let set = Some(ParameterSet { id: id.to_owned(), json: json.clone() });
        let place = match free.pop() {
            Some(place) => {
                sets[place] = set;
                self.used[place] = true;
                place
            }
            None => {
                sets.push(set);
                self.used.push(true);
                sets.len() - 1
            }
        };
        let number = place as u32 + 1;
        numbers.insert(json, number);
        number
    }

    /// Forgets what this desired state does not use. The core must have taken it: no launch names a
    /// set of the state before.
    pub fn release(self) {
        let Parameters { sets, numbers, free } = self.parameters;
        for (place, (set, used)) in sets.iter_mut().zip(self.used).enumerate() {
            if !used && let Some(set) = set.take() {
                numbers.remove(&set.json);
                free.push(place);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn numbers(parameters: &mut Parameters, values: &[Value]) -> Vec<u32> {
        let mut numbering = parameters.number_anew();
        let all = values.iter().map(|v| numbering.number("same", v).unwrap()).collect();
        numbering.release();
        all
    }

    #[test]
    fn two_texts_under_one_id_are_two_sets_and_one_text_is_one() {
        let mut parameters = Parameters::default();
        let (a, b) = (json!({"classes": [0]}), json!({"classes": [1]}));
        let given = numbers(&mut parameters, &[a.clone(), b, a, Value::Null, json!({})]);
        assert_eq!(given, [1, 2, 1, 0, 0]);
        let json = |number| parameters.get(number).unwrap().json.as_str();
        assert_eq!((json(1), json(2)), (r#"{"classes":[0]}"#, r#"{"classes":[1]}"#));
        assert_eq!(parameters.get(0), None);
    }

    #[test]
    fn what_is_no_object_or_too_long_is_an_error_by_name() {
        let mut parameters = Parameters::default();
        let mut numbering = parameters.number_anew();
        let long = json!({"note": "x".repeat(PARAMETERS_BYTES_MAX)});
        for (value, part) in [
            (json!([1]), "a list, must be an object or null"),
            (json!("x"), "a text"),
            (json!(1), "a number"),
            (json!(true), "a boolean"),
            (long, "bytes of JSON, allowed are 4096"),
        ] {
            let error = numbering.number("p", &value).unwrap_err();
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn sets_that_nobody_has_any_more_leave() {
        let mut parameters = Parameters::default();
        let kept = json!({"kept": true});
        for round in 0..100 {
            let given = numbers(&mut parameters, &[kept.clone(), json!({ "round": round })]);
            assert_eq!(given[0], 1, "who stays keeps its number");
            let set = parameters.get(given[1]).unwrap();
            assert_eq!(set.json, format!("{{\"round\":{round}}}"));
        }
        assert!(parameters.sets.len() <= 3, "{} places", parameters.sets.len());
        assert_eq!(parameters.numbers.len(), 2);
        numbers(&mut parameters, &[]);
        assert!(parameters.numbers.is_empty());
    }
}
