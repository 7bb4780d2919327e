//! Every bound of the system, with the relations between them checked at compile time.

use std::time::Duration;

/// Longest id, in characters (chosen: fits file names and URLs). Two of them make the name of a
/// runner's socket, whose path has a bound of its own.
pub const ID_CHARS_MAX: usize = 64;
/// Longest path of a socket, in bytes (unix(7): 108 with the zero at its end).
pub const SOCKET_PATH_BYTES_MAX: usize = 107;
/// Longest id of an assignment, in characters (chosen: a camera's, a dot and a model's are 129).
pub const ASSIGNMENT_ID_CHARS_MAX: usize = 160;
/// Longest version of a model, in bytes (chosen).
pub const MODEL_VERSION_BYTES_MAX: usize = 256;
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
/// Most bytes of a reply (chosen: boxes of the largest batch fit, with room around them).
pub const REPLY_BYTES_MAX: usize = 8 * 1024 * 1024;
/// What a result adds to the answer that it is made of (derived: two ids, 18 numbers, nine stages and
/// a region are 490 bytes).
pub const RESULT_BYTES_MAX: usize = 512;
/// Most bytes of the results of one batch (derived: a reply, and 1 KiB that names model and device).
pub const RESULTS_BYTES_MAX: usize = REPLY_BYTES_MAX + BATCH_MAX as usize * RESULT_BYTES_MAX + 1024;
/// Bytes that may wait for serve: seconds of results (chosen).
pub const SERVE_OUT_BYTES_MAX: usize = MESSAGE_BYTES_MAX;
/// Bytes that may wait for a runner: two Prepares of the largest batch, each member with a parameter
/// set of its own, are under 3 MiB.
pub const RUNNER_OUT_BYTES_MAX: usize = 4 * 1024 * 1024;
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

/// Deadlines that an assignment may ask for, milliseconds: a frame at 1000 fps to a minute (chosen).
pub const DEADLINE_MS_RANGE: (u64, u64) = (1, 60_000);
/// Bounds of the regions of one frame that a second stage looks at (chosen).
pub const MAX_REGIONS_RANGE: (u32, u32) = (1, 64);
/// Regions of one frame where an assignment does not say how many (chosen: a batch of 16 cameras
/// fills 256).
pub const MAX_REGIONS_DEFAULT: u32 = 16;

/// Subscriptions of one node: assignments beyond are rejected, the scheduler refuses more (chosen).
pub const SUBSCRIPTIONS_MAX: usize = 100_000;
/// Subscriptions, and cameras, in one message of the status (chosen: a launch waits for no more than
/// the making of one; benches/src/bin/scale_cost.rs).
pub const STATUS_PAGE: usize = 256;
/// Most bytes of a subscription or a camera in the status (derived: three ids, a reason and 23 numbers
/// are 620).
pub const STATUS_ROW_BYTES_MAX: usize = 768;

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

// What a runner may answer can be passed on, whole, to a serve that was not slow.
const _: () = assert!(REPLY_BYTES_MAX < RESULTS_BYTES_MAX);
const _: () = assert!(RESULTS_BYTES_MAX + 4 <= SERVE_OUT_BYTES_MAX);
const _: () = assert!(SERVE_OUT_BYTES_MAX <= MESSAGE_BYTES_MAX);
const _: () = assert!(RUNNER_OUT_BYTES_MAX <= MESSAGE_BYTES_MAX);
const _: () =
    assert!(2 * BATCH_MAX as usize * (PARAMETERS_BYTES_MAX + 1024) <= RUNNER_OUT_BYTES_MAX);
const _: () = assert!(2 * STATUS_PAGE * STATUS_ROW_BYTES_MAX <= SERVE_OUT_BYTES_MAX / 8);
const _: () = assert!(ASSIGNMENT_ID_CHARS_MAX > 2 * ID_CHARS_MAX);
const _: () = assert!(ID_CHARS_MAX < SOCKET_PATH_BYTES_MAX);
const _: () = assert!(
    MAX_REGIONS_RANGE.0 <= MAX_REGIONS_DEFAULT && MAX_REGIONS_DEFAULT <= MAX_REGIONS_RANGE.1
);
// The regions of one frame fit into one batch.
const _: () = assert!(MAX_REGIONS_RANGE.1 <= BATCH_MAX);
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
