//! Keeps a reply within what a message may hold.

use base::limits::{BATCH_MAX, DETECTIONS_MAX, REPLY_BYTES_MAX};
use base::{FrameDetections, MemberError};

/// Most bytes of the members of a reply: what surrounds them takes less than the rest.
const MEMBERS_BYTES_MAX: usize = REPLY_BYTES_MAX - 1024;
/// Upper bounds of what each part takes in a message.
const MEMBER_BYTES: usize = 128;
const DETECTION_BYTES: usize = 28;
const KEYPOINT_BYTES: usize = 20;
const MASK_BYTES: usize = 64;

// Boxes alone always fit, so that dropping masks and keypoints is enough.
const _: () = assert!(
    (MEMBER_BYTES + DETECTIONS_MAX * DETECTION_BYTES) * BATCH_MAX as usize <= MEMBERS_BYTES_MAX
);

fn mask_bytes(mask: &base::Mask) -> usize {
    MASK_BYTES + mask.data.len()
}

fn bytes(found: &FrameDetections) -> usize {
    MEMBER_BYTES
        + found.detections.len() * DETECTION_BYTES
        + found.keypoints.len() * KEYPOINT_BYTES
        + found.masks.iter().map(mask_bytes).sum::<usize>()
}

/// Drops masks, then keypoints, of the worst detections of members that hold more than their share
/// of a reply that is too large. False = nothing was dropped.
pub fn cap(outcomes: &mut [Result<FrameDetections, MemberError>]) -> bool {
    let total: usize = outcomes.iter().map(|o| o.as_ref().map_or(MEMBER_BYTES, bytes)).sum();
    if total <= MEMBERS_BYTES_MAX {
        return false;
    }
    let share = MEMBERS_BYTES_MAX / outcomes.len();
    for found in outcomes.iter_mut().flatten() {
        let mut size = bytes(found);
        if size <= share {
            continue;
        }
        // Detections are best first; stable, so that keypoints of one stay in their order.
        found.masks.sort_by_key(|mask| mask.detection);
        while let Some(mask) = found.masks.pop_if(|_| size > share) {
            size -= mask_bytes(&mask);
        }
        found.keypoints.sort_by_key(|keypoint| keypoint.detection);
        while found.keypoints.pop_if(|_| size > share).is_some() {
            size -= KEYPOINT_BYTES;
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use base::limits::MESSAGE_BYTES_MAX;
    use base::{Detection, Instant, Keypoint, Mask, Rect, StageTimes, TrackId};
    use ipc::runner_message::{Encoder, Reply, RunnerMessage};

    fn found(detections: u32, keypoints: u32, mask_side: u16) -> FrameDetections {
        let bbox = Rect::WHOLE;
        let detection = Detection { bbox, score: 0.5, class_id: 0, track: TrackId(0) };
        let point = |detection| Keypoint { detection, kind: 0, x: 0.5, y: 0.5, score: 0.5 };
        let data = vec![1; usize::from(mask_side) * usize::from(mask_side)];
        let mask =
            |detection| Mask { detection, width: mask_side, height: mask_side, data: data.clone() };
        FrameDetections {
            detections: vec![detection; detections as usize],
            keypoints: (0..detections)
                .flat_map(|d| (0..keypoints).map(move |_| point(d)))
                .collect(),
            masks: if mask_side == 0 { vec![] } else { (0..detections).map(mask).collect() },
        }
    }

    fn encoded(outcomes: &[Result<FrameDetections, MemberError>]) -> usize {
        let now = Instant::ZERO;
        let times = StageTimes {
            received: now,
            copied: now,
            granted: now,
            preprocessed: now,
            executed: now,
            postprocessed: now,
        };
        let reply = Reply { batch: 1, times, outcomes: outcomes.to_vec() };
        RunnerMessage::Reply(reply).encode(&mut Encoder::default()).len()
    }

    #[test]
    fn masks_go_first_and_the_best_detections_keep_theirs() {
        let small = found(3, 17, 28);
        let mut outcomes =
            vec![Ok(small.clone()), Err(MemberError::Torn), Ok(found(1000, 17, 160))];
        assert!(encoded(&outcomes) > MESSAGE_BYTES_MAX);
        assert!(cap(&mut outcomes));
        assert!(encoded(&outcomes) <= REPLY_BYTES_MAX);
        assert_eq!(outcomes[0], Ok(small), "a member within its share keeps all");
        let large = outcomes[2].as_ref().unwrap();
        assert_eq!((large.detections.len(), large.keypoints.len()), (1000, 17_000));
        assert!(large.masks.len() > 50);
        assert!(large.masks.iter().zip(0..).all(|(mask, place)| mask.detection == place));
        assert!(!cap(&mut outcomes), "once is enough");
    }

    #[test]
    fn the_largest_batch_of_the_most_detections_fits() {
        let most = found(DETECTIONS_MAX as u32, 17, 0);
        let mut outcomes = vec![Ok(most); BATCH_MAX as usize];
        assert!(encoded(&outcomes) > MESSAGE_BYTES_MAX);
        assert!(cap(&mut outcomes));
        assert!(encoded(&outcomes) <= REPLY_BYTES_MAX);
        for outcome in outcomes {
            let found = outcome.unwrap();
            assert_eq!(found.detections.len(), DETECTIONS_MAX);
            assert!(found.keypoints.len() > 100 && found.keypoints[16].detection == 0);
        }
    }
}
