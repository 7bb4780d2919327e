//! Query parameters: each is asked for by name, and what nobody asked for is an error.

use super::message::{Detail, Details, Failure, Request};
use crate::moment;
use base::UtcNanos;
use std::fmt::Display;
use std::ops::RangeInclusive;
use std::str::FromStr;

/// The parameters of one request, and everything found wrong with them so far.
#[derive(Debug)]
pub struct Query<'r> {
    pairs: &'r [(String, String)],
    known: Vec<&'static str>,
    details: Details,
}

impl<'r> Query<'r> {
    /// Begins with the parameters of `request`.
    pub fn of(request: &'r Request) -> Query<'r> {
        Query { pairs: &request.query, known: vec![], details: Details::default() }
    }

    /// The text of a parameter. Given twice is an error, given empty counts as not given.
    pub fn text(&mut self, name: &'static str) -> Option<&'r str> {
        self.known.push(name);
        let mut values = self.pairs.iter().filter(|(key, _)| key == name).map(|(_, v)| v.as_str());
        let first = values.next();
        if let Some(second) = values.next() {
            self.refuse(name, second, "is given more than once");
        }
        first.filter(|value| !value.is_empty())
    }

    /// A parameter read by `read`; `expected` says what is allowed.
    pub fn read<T>(
        &mut self,
        name: &'static str,
        expected: &str,
        read: impl FnOnce(&str) -> Option<T>,
    ) -> Option<T> {
        let text = self.text(name)?;
        let value = read(text);
        if value.is_none() {
            self.refuse(name, text, format!("is not {expected}"));
        }
        value
    }

    /// A parameter whose type explains itself.
    pub fn parse<T: FromStr<Err: Display>>(&mut self, name: &'static str) -> Option<T> {
        let text = self.text(name)?;
        text.parse().map_err(|error: T::Err| self.refuse(name, text, error.to_string())).ok()
    }

    /// A whole number within bounds.
    pub fn number(&mut self, name: &'static str, bounds: RangeInclusive<u64>) -> Option<u64> {
        let expected = format!("a whole number from {} to {}", bounds.start(), bounds.end());
        self.read(name, &expected, |text| text.parse().ok().filter(|n| bounds.contains(n)))
    }

    /// `true` or `false`.
    pub fn flag(&mut self, name: &'static str) -> Option<bool> {
        self.read(name, "true or false", |text| text.parse().ok())
    }

    /// A time.
    pub fn time(&mut self, name: &'static str) -> Option<UtcNanos> {
        let text = self.text(name)?;
        moment::parse(text).map_err(|error| self.refuse(name, text, error.to_string())).ok()
    }

    /// A time at which a window ends; one that is too far to be told is no end.
    pub fn end_time(&mut self, name: &'static str) -> Option<UtcNanos> {
        self.time(name).filter(|end| *end < UtcNanos::FAR)
    }

    /// Adds a fault.
    pub fn refuse(&mut self, name: &str, value: &str, message: impl AsRef<str>) {
        self.details.add(|| Detail::new(name, value, message));
    }

    /// Ends: the faults found, parameters that nobody asked for among them.
    ///
    /// # Errors
    /// 422 with the details.
    pub fn finish(mut self) -> Result<(), Failure> {
        for (name, value) in self.pairs {
            if self.known.iter().any(|known| known == name) {
                continue;
            }
            self.details.add(|| {
                let message = if self.known.is_empty() {
                    "is unknown, there are no query parameters here".to_owned()
                } else {
                    format!("is unknown, known are: {}", self.known.join(", "))
                };
                Detail::new(name, value, message)
            });
        }
        self.details.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(pairs: &[(&str, &str)]) -> Request {
        let query = pairs.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
        Request { query, ..Request::default() }
    }

    #[test]
    fn every_fault_is_told_at_once() {
        let request = request(&[
            ("limit", "0"),
            ("enabled", "yes"),
            ("camera_id", "a/b"),
            ("camera_id", "b"),
            ("colour", "red"),
        ]);
        let mut query = Query::of(&request);
        assert_eq!(query.number("limit", 1..=1000), None);
        assert_eq!(query.flag("enabled"), None);
        assert!(query.parse::<base::CameraId>("camera_id").is_none());
        let failure = query.finish().unwrap_err();
        let told: Vec<String> =
            failure.details.iter().map(|d| format!("{} {}", d.field, d.message)).collect();
        assert_eq!(
            told,
            [
                "limit is not a whole number from 1 to 1000",
                "enabled is not true or false",
                "camera_id is given more than once",
                "camera_id camera id `a/b` is not 1 to 64 characters of A-Z a-z 0-9 _ -",
                "colour is unknown, known are: limit, enabled, camera_id",
            ]
        );
        assert_eq!(failure.status, 422);
        let body: serde_json::Value = serde_json::from_slice(&failure.body("http://h/x")).unwrap();
        assert_eq!(body["error"]["details"][4]["value"], "red");
        assert_eq!(body["error"]["path"], "http://h/x");
    }

    #[test]
    fn good_values_come_through_and_empty_ones_count_as_absent() {
        let request = request(&[("limit", "7"), ("enabled", "false"), ("camera_id", "")]);
        let mut query = Query::of(&request);
        assert_eq!(query.number("limit", 1..=1000), Some(7));
        assert_eq!(query.flag("enabled"), Some(false));
        assert_eq!(query.text("camera_id"), None);
        query.finish().unwrap();
    }
}
