//! Ids: text that people choose for cameras, models and devices; numbers that processes draw.

use std::fmt;
use std::sync::Arc;

/// Why a text is not an id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdError {
    /// What kind of id was asked for, for example `camera id`.
    pub kind: &'static str,
    /// The offending text, cut to 80 characters.
    pub text: String,
}

impl fmt::Display for IdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} `{}` is not 1 to {} characters of A-Z a-z 0-9 _ -",
            self.kind,
            self.text,
            crate::limits::ID_CHARS_MAX
        )
    }
}

impl std::error::Error for IdError {}

fn valid(text: &str) -> bool {
    (1..=crate::limits::ID_CHARS_MAX).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
}

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident, $kind:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Checks the text: 1 to 64 characters of `A-Z a-z 0-9 _ -`, so that it can be a file
            /// name, a URL segment and a socket name without quoting.
            pub fn new(text: &str) -> Result<Self, IdError> {
                if valid(text) {
                    Ok(Self(text.into()))
                } else {
                    Err(IdError { kind: $kind, text: text.chars().take(80).collect() })
                }
            }

            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", &self.0)
            }
        }

        impl std::str::FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                Self::new(text)
            }
        }
    };
}

text_id!(
    /// A camera, the same text in configuration, shared memory, events and URLs.
    CameraId,
    "camera id"
);
text_id!(
    /// A model: the artefact and the folder that describes it.
    ModelId,
    "model id"
);
text_id!(
    /// A device that executes batches, for example `cpu` or `gpu0`. One token domain each.
    DeviceId,
    "device id"
);

/// One life of one process: a random number drawn at its start, never 0.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InstanceId(pub u64);

impl fmt::Debug for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Display for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// One registry: a random number drawn when it was made. 0 = none is known.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Epoch(pub u64);

impl fmt::Debug for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_safe_as_file_names() {
        for good in ["a", "front-door", "cam_01", &"x".repeat(64)] {
            assert_eq!(CameraId::new(good).unwrap().as_str(), good);
        }
        for bad in ["", ".", "..", "a/b", "a b", "caf\u{e9}", &"x".repeat(65), "a\0"] {
            let error = CameraId::new(bad).unwrap_err();
            assert!(error.to_string().contains("camera id"), "{error}");
        }
    }
}
