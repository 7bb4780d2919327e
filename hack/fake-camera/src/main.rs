//! `fake-camera PORT FILE [FPS] [USER PASSWORD]`: plays an elementary stream for ever.

use fake_camera::{Auth, Camera, Clip, Settings};
use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;

const USAGE: &str = "usage: fake-camera PORT FILE.h264|FILE.hevc [FPS [USER PASSWORD]]";

fn main() -> ExitCode {
    match start() {
        Ok(camera) => {
            println!("{}", camera.url());
            loop {
                std::thread::park();
            }
        }
        Err(why) => {
            eprintln!("fake-camera: {why}\n{USAGE}");
            ExitCode::FAILURE
        }
    }
}

fn start() -> Result<Camera, String> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [port, file, rest @ ..] = &arguments[..] else { return Err("too few arguments".into()) };
    let port: u16 = port.parse().map_err(|e| format!("port {port}: {e}"))?;
    let clip = Clip::read(Path::new(file)).map_err(|e| format!("{file}: {e}"))?;
    if clip.units.is_empty() {
        return Err(format!("{file} holds no picture; it must be an elementary stream"));
    }
    let fps = rest.first().map_or(Ok(25.0), |fps| fps.parse());
    let mut settings = Settings::new(clip, fps.map_err(|e| format!("pictures a second: {e}"))?);
    if let [_, user, password] = rest {
        settings.auth = Auth::Digest(user.clone(), password.clone());
    }
    Camera::start_at(SocketAddr::from(([0, 0, 0, 0], port)), settings).map_err(|e| e.to_string())
}
