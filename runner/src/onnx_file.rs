//! Which other files an ONNX file reads: a walk over its protobuf that looks at nothing else.
//!
//! ONNX tensors may keep their data in external files (`TensorProto.external_data`, key
//! `location`); a model must not be able to name a file outside its folder that way. Field numbers:
//! onnx.proto of ONNX 1.19. Data is skipped, not read: the cost is a few reads per tensor.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;

/// Depth of graphs within attributes within graphs (chosen; real models have 3).
const DEPTH_MAX: u32 = 64;

/// Longest name of an external file.
const LOCATION_BYTES_MAX: u64 = 4096;

/// Why a file is not a readable ONNX file.
#[derive(Debug, thiserror::Error)]
pub enum OnnxFileError {
    /// The file cannot be read.
    #[error("{0}")]
    Io(io::Error),
    /// The file is shorter than it says.
    #[error("not an ONNX file, or damaged: file ends early")]
    Short,
    /// The bytes are not a protobuf of ONNX.
    #[error("not an ONNX file, or damaged: {what} at byte {at} of {size}")]
    Malformed {
        /// What was found.
        what: &'static str,
        /// Where.
        at: u64,
        /// Bytes of the file.
        size: u64,
    },
}

impl From<io::Error> for OnnxFileError {
    fn from(error: io::Error) -> OnnxFileError {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => OnnxFileError::Short,
            _ => OnnxFileError::Io(error),
        }
    }
}

/// Names of the external files that the tensors of the model at `path` refer to, without
/// repetitions, as written in the file (relative to its folder).
///
/// # Errors
/// [`OnnxFileError`] when the file cannot be read or is not ONNX.
pub fn external_files(path: &Path) -> Result<Vec<String>, OnnxFileError> {
    let file = File::open(path)?;
    let size = file.metadata()?.len();
    let reader = BufReader::with_capacity(16 * 1024, file);
    let mut walk = Walk { reader, at: 0, size, locations: Vec::new(), graphs: 0 };
    walk.message(Kind::Model, size, 0)?;
    if walk.graphs == 0 {
        return Err(OnnxFileError::Malformed { what: "no graph", at: size, size });
    }
    walk.locations.sort();
    walk.locations.dedup();
    Ok(walk.locations)
}

/// Messages on the way to tensors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Model,
    Training,
    Graph,
    Node,
    Attribute,
    Function,
    Sparse,
    Tensor,
    Entry,
}

impl Kind {
    fn child(self, field: u64) -> Option<Kind> {
        Some(match (self, field) {
            (Kind::Model, 7) | (Kind::Training, 1 | 2) | (Kind::Attribute, 6 | 11) => Kind::Graph,
            (Kind::Model, 20) => Kind::Training,
            (Kind::Model, 25) => Kind::Function,
            (Kind::Graph, 1) | (Kind::Function, 7) => Kind::Node,
            (Kind::Graph, 5) | (Kind::Attribute, 5 | 10) | (Kind::Sparse, 1 | 2) => Kind::Tensor,
            (Kind::Graph, 15) | (Kind::Attribute, 22 | 23) => Kind::Sparse,
            (Kind::Node, 5) | (Kind::Function, 11) => Kind::Attribute,
            (Kind::Tensor, 13) => Kind::Entry,
            _ => return None,
        })
    }
}

struct Walk {
    reader: BufReader<File>,
    at: u64,
    size: u64,
    locations: Vec<String>,
    graphs: u32,
}

impl Walk {
    fn malformed(&self, what: &'static str) -> OnnxFileError {
        OnnxFileError::Malformed { what, at: self.at, size: self.size }
    }

    fn varint(&mut self) -> Result<u64, OnnxFileError> {
        let mut value = 0u64;
        for shift in (0..70).step_by(7) {
            let mut byte = [0];
            self.reader.read_exact(&mut byte)?;
            self.at += 1;
            value |= u64::from(byte[0] & 0x7f).checked_shl(shift).unwrap_or(0);
            if byte[0] & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(self.malformed("a number of more than ten bytes"))
    }

    fn skip(&mut self, bytes: u64) -> Result<(), OnnxFileError> {
        let offset = i64::try_from(bytes).map_err(|_| self.malformed("an impossible length"))?;
        self.reader.seek_relative(offset)?;
        self.at += bytes;
        Ok(())
    }

    fn text(&mut self, bytes: u64) -> Result<String, OnnxFileError> {
        if bytes > LOCATION_BYTES_MAX {
            return Err(self.malformed("an overlong name"));
        }
        let mut text = vec![0; bytes as usize];
        self.reader.read_exact(&mut text)?;
        self.at += bytes;
        String::from_utf8(text).map_err(|_| self.malformed("a name that is not UTF-8"))
    }

    fn message(&mut self, kind: Kind, end: u64, depth: u32) -> Result<(), OnnxFileError> {
        if depth > DEPTH_MAX {
            return Err(self.malformed("graphs nested too deeply"));
        }
        self.graphs += u32::from(kind == Kind::Graph);
        let (mut key, mut value) = (String::new(), String::new());
        while self.at < end {
            let tag = self.varint()?;
            let length = match tag & 7 {
                0 => {
                    self.varint()?;
                    continue;
                }
                1 => 8,
                2 => self.varint()?,
                5 => 4,
                _ => return Err(self.malformed("an unknown wire type")),
            };
            if self.at > end || length > end - self.at {
                return Err(self.malformed("a field that is longer than what holds it"));
            }
            match (kind, tag >> 3, tag & 7) {
                (Kind::Entry, 1, 2) => key = self.text(length)?,
                (Kind::Entry, 2, 2) => value = self.text(length)?,
                (_, field, 2) => match kind.child(field) {
                    Some(child) => {
                        let end = self.at + length;
                        self.message(child, end, depth + 1)?;
                    }
                    None => self.skip(length)?,
                },
                _ => self.skip(length)?,
            }
        }
        if self.at > end {
            return Err(self.malformed("a number that is longer than what holds it"));
        }
        if kind == Kind::Entry && key == "location" {
            self.locations.push(value);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(number: u8, body: &[u8]) -> Vec<u8> {
        assert!(body.len() < 1 << 14 && number < 16);
        let (low, high) = (body.len() as u8 | 0x80, (body.len() >> 7) as u8);
        let mut out = vec![number << 3 | 2, low, high];
        out.extend(body);
        out
    }

    fn external(location: &str) -> Vec<u8> {
        let mut tensor = field(8, b"weight");
        let offset = [field(1, b"offset"), field(2, b"0")].concat();
        tensor.extend(field(13, &offset));
        let entry = [field(1, b"location"), field(2, location.as_bytes())].concat();
        tensor.extend(field(13, &entry));
        tensor
    }

    fn scan(bytes: &[u8]) -> Result<Vec<String>, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("m.onnx");
        std::fs::write(&path, bytes).unwrap();
        external_files(&path).map_err(|e| e.to_string())
    }

    #[test]
    fn finds_external_data_in_initializers_and_in_nested_graphs() {
        let graph = field(5, &external("a.bin"));
        // A node's attribute holds a graph, as `If` has it.
        let attribute = field(6, &field(5, &external("../b.bin")));
        let node = field(1, &field(5, &attribute));
        let ir = [8, 9];
        let model = [&ir[..], &field(7, &[graph.clone(), node, graph].concat())].concat();
        assert_eq!(scan(&model).unwrap(), ["../b.bin", "a.bin"]);
    }

    #[test]
    fn damaged_files_are_refused() {
        let good = field(7, &field(5, &external("a.bin")));
        for cut in 1..good.len() {
            assert!(scan(&good[..cut]).is_err(), "cut at {cut}");
        }
        // A number that goes on after the end of the file.
        assert!(scan(&[8, 0xff]).unwrap_err().contains("file ends early"));
        for bytes in [&b""[..], b"not onnx at all", &[0xff; 64], &[7 << 3 | 2, 0x7f]] {
            let error = scan(bytes).unwrap_err();
            assert!(error.contains("ONNX"), "{error}");
        }
    }
}
