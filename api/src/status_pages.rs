//! The scheduler's status, put together from its pages.

use base::limits::SUBSCRIPTIONS_MAX;
use ipc::events_message::Status;

/// The pages that came so far of the status that is being told.
#[derive(Debug, Default)]
pub struct StatusPages(Option<Status>);

impl StatusPages {
    /// Takes the next page. Returns the status once it is whole. A page that does not continue the ones
    /// before it ends them: it was sent after one that was dropped.
    pub fn add(&mut self, page: Status) -> Option<Status> {
        let status = match self.0.take() {
            _ if page.page == 0 => page,
            Some(mut begun) if continues(&begun, &page) => {
                begun.subscriptions.extend(page.subscriptions);
                begun.cameras.extend(page.cameras);
                (begun.page, begun.more) = (page.page, page.more);
                begun
            }
            _ => return None,
        };
        if status.subscriptions.len().max(status.cameras.len()) > SUBSCRIPTIONS_MAX {
            return None; // No scheduler has so many.
        }
        if !status.more {
            return Some(status);
        }
        self.0 = Some(status);
        None
    }
}

fn continues(begun: &Status, page: &Status) -> bool {
    let of = |s: &Status| (s.instance, s.now);
    of(begun) == of(page) && page.page == begun.page + 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;
    use base::Instant;

    fn page(now: u64, page: u32, more: bool) -> Status {
        Status { now: Instant(now), page, more, ..testing::status() }
    }

    #[test]
    fn a_status_is_whole_with_its_last_page() {
        let mut pages = StatusPages::default();
        assert_eq!(pages.add(page(1, 0, true)), None);
        assert_eq!(pages.add(page(1, 1, true)), None);
        let whole = pages.add(page(1, 2, false)).unwrap();
        assert_eq!((whole.subscriptions.len(), whole.cameras.len()), (3, 3));
        assert_eq!(whole.runners, testing::status().runners, "those of the first page");
        assert!(pages.add(page(2, 0, false)).is_some(), "one page can be all");
    }

    #[test]
    fn without_one_of_its_pages_a_status_is_none() {
        let mut pages = StatusPages::default();
        assert_eq!(pages.add(page(1, 1, false)), None, "the first one was dropped");
        pages.add(page(2, 0, true));
        assert_eq!(pages.add(page(2, 2, false)), None, "one between was dropped");
        pages.add(page(3, 0, true));
        assert_eq!(pages.add(page(4, 1, false)), None, "that of another status");
        let other = Status { instance: base::InstanceId(2), ..page(5, 1, false) };
        pages.add(page(5, 0, true));
        assert_eq!(pages.add(other), None, "that of another scheduler");
        pages.add(page(6, 0, true));
        assert!(pages.add(page(7, 0, false)).is_some(), "the next one begins anew");
    }

    #[test]
    fn a_status_without_end_is_not_kept() {
        let mut pages = StatusPages::default();
        let one = testing::status().subscriptions.remove(0);
        let large = |number| Status {
            subscriptions: vec![one.clone(); SUBSCRIPTIONS_MAX / 2 + 1],
            ..page(1, number, true)
        };
        pages.add(large(0));
        assert!(pages.0.is_some());
        pages.add(large(1));
        assert!(pages.0.is_none());
    }
}
