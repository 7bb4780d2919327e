//! Writes a trace: every input, every poll and every answer, for `vas replay`.

use crate::DriverError;
use base::Newest;
use scheduler::trace::Encoder;
use scheduler::{CameraKey, Config, FrameIndex, Input};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

/// A trace file; does nothing when none was asked for.
pub(crate) struct Recorder {
    file: Option<(BufWriter<File>, PathBuf)>,
    encoder: Encoder,
}

impl Recorder {
    pub fn new(path: Option<&Path>, config: &Config) -> Result<Recorder, DriverError> {
        let mut encoder = Encoder::default();
        let Some(path) = path else { return Ok(Recorder { file: None, encoder }) };
        let failed = |source| DriverError::Trace { path: path.to_owned(), source };
        let mut file = BufWriter::with_capacity(1 << 20, File::create(path).map_err(failed)?);
        file.write_all(encoder.header(config)).map_err(failed)?;
        Ok(Recorder { file: Some((file, path.to_owned())), encoder })
    }

    pub fn handle(&mut self, now: base::Instant, input: &Input) {
        if self.file.is_some() {
            let bytes = self.encoder.handle(now, input);
            write(&mut self.file, bytes);
        }
    }

    pub fn poll(&mut self, now: base::Instant) {
        if self.file.is_some() {
            let bytes = self.encoder.poll(now);
            write(&mut self.file, bytes);
        }
    }

    pub fn output(&mut self, output: &scheduler::Output<'_>) {
        if self.file.is_some() {
            let bytes = self.encoder.output(output);
            write(&mut self.file, bytes);
        }
    }

    fn answer(&mut self, camera: CameraKey, newest: &Newest) {
        if self.file.is_some() {
            let bytes = self.encoder.answer(camera, newest);
            write(&mut self.file, bytes);
        }
    }
}

fn write(file: &mut Option<(BufWriter<File>, PathBuf)>, bytes: &[u8]) {
    if let Some((writer, path)) = file
        && let Err(error) = writer.write_all(bytes)
    {
        tracing::error!("trace file {} ends here: {error}", path.display());
        *file = None;
    }
}

/// A frame index whose answers are recorded.
pub(crate) struct Recorded<'a, I> {
    pub index: &'a mut I,
    pub recorder: &'a mut Recorder,
}

impl<I: FrameIndex> FrameIndex for Recorded<'_, I> {
    fn newest(&mut self, camera: CameraKey) -> Newest {
        let newest = self.index.newest(camera);
        self.recorder.answer(camera, &newest);
        newest
    }
}
