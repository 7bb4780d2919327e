//! A way with losses: a UDP relay between one viewer and the hub.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

pub struct Relay {
    pub address: SocketAddr,
    stop: Arc<AtomicBool>,
    /// Datagrams that came for the viewer and were lost, and all that came.
    pub lost: Arc<AtomicU64>,
    pub seen: Arc<AtomicU64>,
    /// Of 1000 datagrams to the viewer, so many are lost.
    pub loss: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl Relay {
    pub fn start(hub: SocketAddr, loss_permille: u64, seed: u64) -> Relay {
        println!("relay: seed {seed}");
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        let address = socket.local_addr().unwrap();
        let (stop, lost, seen) = (Arc::<AtomicBool>::default(), Arc::default(), Arc::default());
        let loss = Arc::new(AtomicU64::new(loss_permille));
        let (end, gone, all, rate): (_, Arc<AtomicU64>, Arc<AtomicU64>, _) =
            (Arc::clone(&stop), Arc::clone(&lost), Arc::clone(&seen), Arc::clone(&loss));
        let thread = std::thread::spawn(move || {
            let (mut viewer, mut state) = (None, seed | 1);
            let mut buffer = [0; 2048];
            while !end.load(Ordering::Relaxed) {
                let Ok((size, from)) = socket.recv_from(&mut buffer) else { continue };
                if from != hub {
                    viewer = Some(from);
                    let _ = socket.send_to(&buffer[..size], hub);
                    continue;
                }
                let Some(viewer) = viewer else { continue };
                all.fetch_add(1, Ordering::Relaxed);
                // xorshift64
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                if (state >> 11) % 1000 < rate.load(Ordering::Relaxed) {
                    gone.fetch_add(1, Ordering::Relaxed);
                } else {
                    let _ = socket.send_to(&buffer[..size], viewer);
                }
            }
        });
        Relay { address, stop, lost, seen, loss, thread: Some(thread) }
    }

    /// An answer whose only candidate is the relay.
    pub fn instead(&self, answer: &str) -> String {
        let mut done = false;
        let mut out = String::new();
        for line in answer.lines() {
            if line.starts_with("a=candidate") {
                if !std::mem::replace(&mut done, true) {
                    let (ip, port) = (self.address.ip(), self.address.port());
                    out += &format!("a=candidate:1 1 udp 2130706431 {ip} {port} typ host\r\n");
                }
            } else {
                out += line;
                out += "\r\n";
            }
        }
        assert!(done, "no candidate in {answer}");
        out
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}
