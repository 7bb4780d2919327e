//! Every bound of the system, with the relations between them checked at compile time.

use std::time::Duration;

/// Longest id, in characters (chosen: fits file names and URLs). Two of them fit into the path of a
/// runner's socket in a short runtime directory only where they are not the longest; the runner says so.
pub const ID_CHARS_MAX: usize = 64;
/// Longest path of a socket, in bytes (unix(7): `sun_path` has 108 with its zero).
pub const SOCKET_PATH_BYTES_MAX: usize = 107;
/// Longest side of a picture (chosen: 8K video is 7680 wide).
pub const FRAME_SIDE_MAX: u32 = 8192;
/// Fewest slots of a ring (design: readers get at least this many frame periods).
pub const RING_SLOTS_MIN: u32 = 8;
/// Most slots of a ring (chosen: 10 s of 25 fps).
pub const RING_SLOTS_MAX: u32 = 256;
/// Most bytes of pictures in one ring (derived: 19 slots of 8192x4320, which 25 pictures per second
/// and the default deadline take, are 0.94 GiB). A ring that would be larger has fewer slots.
pub const RING_BYTES_MAX: u64 = 1 << 30;
/// Pictures per second of a camera that are believed (chosen: twice what the fastest cameras of
/// the field send; above it a time base was declared for a rate).
pub const CAMERA_FPS_MAX: f64 = 120.0;
/// A ring whose heartbeat is older is stale: three missed beats.
pub const RING_STALE: Duration = Duration::from_secs(3);
/// The writer's heartbeat, also when idle.
pub const RING_HEARTBEAT: Duration = Duration::from_secs(1);
/// What a ring keeps beyond deadline and second stage when it is sized (design section 3).
pub const RING_MARGIN: Duration = Duration::from_millis(150);

/// Private memory of a decode worker, without the ring, which is shared (derived: 16 pictures of
/// reference and the current one, 8192x4320 with 10 bits in two bytes each, are 1.7 GiB).
pub const DECODER_DATA_BYTES_MAX: u64 = 2 << 30;
/// Private memory of a process that tries an address (measured: docs/operations.md, "Memory").
pub const PROBE_DATA_BYTES_MAX: u64 = 256 << 20;
/// What a decode worker or a media job adds to its badness, in thousandths of the machine's memory
/// (chosen: it goes before ingest and serve, which lose all cameras, whatever these hold).
pub const CHILD_OOM_SCORE_ADJ: i32 = 600;

/// Largest message on any socket (spec P4.1.3).
pub const MESSAGE_BYTES_MAX: usize = 10 * 1024 * 1024;
/// Largest batch on the wire (chosen: twice the largest engine profile in use).
pub const BATCH_MAX: u32 = 256;
/// Most detections of one frame that travel; the best scores stay (chosen).
pub const DETECTIONS_MAX: usize = 1000;
/// Most classes of a model (class ids are u16 on the wire; chosen well below).
pub const CLASSES_MAX: usize = 16384;
/// Longest parameters of one assignment as JSON text, bytes (chosen).
pub const PARAMETERS_BYTES_MAX: usize = 4096;

/// Version of the protocol between scheduler, runner and serve.
pub const PROTOCOL_VERSION: u32 = 1;
/// Deadline where neither model nor assignment says one (interfaces).
pub const DEADLINE_DEFAULT: Duration = Duration::from_millis(500);
/// Lease = this many times p99 of L(b) (design section 4).
pub const LEASE_FACTOR: u32 = 3;
/// Shortest lease on a CPU.
pub const LEASE_FLOOR_CPU: Duration = Duration::from_millis(100);
/// Shortest lease on a GPU.
pub const LEASE_FLOOR_GPU: Duration = Duration::from_millis(10);
/// A runner that owes a reply for longer is hung: its connection is closed (design section 4).
pub const HANG_LIMIT: Duration = Duration::from_secs(2);
/// What a runner may take beyond the lease to measure one size: a single run of a large batch can
/// be longer than any lease (chosen).
pub const PROFILE_GRACE: Duration = Duration::from_secs(10);
/// Bounds of max fps (interfaces).
pub const MAX_FPS_RANGE: (f64, f64) = (0.1, 30.0);

/// Subscriptions of one node.
pub const SUBSCRIPTIONS_MAX: usize = 100_000;

/// Longest clip (chosen: an hour of a 4 Mbit/s camera is 1.8 GB).
pub const CLIP_MAX: Duration = Duration::from_secs(3600);
/// Clips that wait at most (chosen: some minutes of the slowest).
pub const CLIPS_WAITING_MAX: usize = 32;
/// Clips that are cut at a time (chosen: each copies as fast as the disk can, below recording).
pub const CLIPS_AT_ONCE: usize = 2;
/// Windows of recordings that are kept for clips at most.
pub const HOLDS_MAX: usize = 64;
/// How long one such window is kept at most (chosen: beyond the slowest clips that can wait).
pub const HOLD_TIME_MAX: Duration = Duration::from_secs(3600);

const _: () = assert!(RING_SLOTS_MIN >= 3 && RING_SLOTS_MIN <= RING_SLOTS_MAX);
const _: () = assert!(FRAME_SIDE_MAX.is_multiple_of(2));
// Fewest slots of the largest picture fit, so no picture that has a size NV12 can hold is refused
// for the bytes of its ring.
const _: () = assert!(
    RING_SLOTS_MIN as u64 * (FRAME_SIDE_MAX as u64 * FRAME_SIDE_MAX as u64 * 3 / 2)
        <= RING_BYTES_MAX
);
const _: () = assert!(17 * (FRAME_SIDE_MAX as u64 * 4320 * 3 / 2 * 2) <= DECODER_DATA_BYTES_MAX);
const _: () = assert!(CHILD_OOM_SCORE_ADJ > 0 && CHILD_OOM_SCORE_ADJ <= 1000);
const _: () = assert!(RING_STALE.as_nanos() >= 3 * RING_HEARTBEAT.as_nanos());
const _: () = assert!(CLIPS_WAITING_MAX + CLIPS_AT_ONCE <= HOLDS_MAX);
const _: () = assert!(CLASSES_MAX <= 1 << 16);
const _: () = assert!(LEASE_FLOOR_GPU.as_nanos() < LEASE_FLOOR_CPU.as_nanos());
const _: () = assert!(LEASE_FLOOR_CPU.as_nanos() < HANG_LIMIT.as_nanos());
