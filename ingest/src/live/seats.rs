//! The viewers of the hub, and whom a datagram is for.
//!
//! A datagram is for a viewer by the address that it comes from, which the viewer has proven to have
//! before, or by the name in a STUN request with the proof that it is that viewer's. The peer keeps every
//! address that it is shown, and looks at all of them each time: so it is shown few.

use super::clock::Clock;
use super::socket::Received;
use super::stun;
use super::viewer::Viewer;
use base::{Instant, guard};
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

/// Addresses that a viewer may come from before it has chosen one; after that it stays at those
/// (chosen: a machine with several interfaces behind translations of addresses has about 8).
pub const SOURCES_MAX: usize = 16;

/// A viewer with its names.
pub struct Seat {
    /// It.
    pub viewer: Viewer,
    /// What it watches.
    pub stream: u64,
    /// When it is due.
    pub due: Instant,
    session: String,
    /// Its `ice-ufrag`.
    name: String,
    /// Where it has come from.
    sources: Vec<SocketAddr>,
}

impl Seat {
    /// Whether a datagram from there may be its.
    fn may_come_from(&self, source: SocketAddr) -> bool {
        self.sources.contains(&source)
            || (!self.viewer.nominated() && self.sources.len() < SOURCES_MAX)
    }
}

/// The address of this machine that the viewer at an address uses, when the kernel says.
#[derive(Default)]
pub struct Ways(HashMap<SocketAddr, (u64, Option<IpAddr>)>);

impl Ways {
    /// Of the viewer at `peer`.
    pub fn from(&self, peer: SocketAddr) -> Option<IpAddr> {
        self.0.get(&peer).and_then(|(_, local)| *local)
    }
}

/// All viewers.
#[derive(Default)]
pub struct Seats {
    seats: HashMap<u64, Seat>,
    taken: u64,
    sessions: HashMap<String, u64>,
    names: HashMap<String, u64>,
    ways: Ways,
}

impl Seats {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.seats.len()
    }

    /// All of them.
    pub fn ids(&self) -> Vec<u64> {
        self.seats.keys().copied().collect()
    }

    /// One of them.
    pub fn get_mut(&mut self, id: u64) -> Option<&mut Seat> {
        self.seats.get_mut(&id)
    }

    /// One of them, and where what it sends leaves from.
    pub fn with_ways(&mut self, id: u64) -> Option<(&mut Seat, &Ways)> {
        Some((self.seats.get_mut(&id)?, &self.ways))
    }

    /// Whose session it is, and of which stream.
    pub fn of_session(&self, session: &str) -> Option<(u64, u64)> {
        let id = *self.sessions.get(session)?;
        Some((id, self.seats.get(&id)?.stream))
    }

    /// Takes a viewer in, due at once.
    pub fn add(
        &mut self,
        viewer: Viewer,
        stream: u64,
        (session, name): (String, String),
        now: Instant,
    ) -> u64 {
        self.taken += 1;
        self.sessions.insert(session.clone(), self.taken);
        self.names.insert(name.clone(), self.taken);
        let seat = Seat { viewer, stream, due: now, session, name, sources: Vec::new() };
        self.seats.insert(self.taken, seat);
        self.taken
    }

    /// Its session is over; it may still have something to say.
    pub fn end_session(&mut self, id: u64) {
        if let Some(seat) = self.seats.get(&id) {
            self.sessions.remove(&seat.session);
        }
    }

    /// Lets it out.
    pub fn remove(&mut self, id: u64) -> Option<Seat> {
        self.end_session(id);
        let seat = self.seats.remove(&id)?;
        self.names.remove(&seat.name);
        for source in &seat.sources {
            // Another one may have it by now.
            if self.ways.0.get(source).is_some_and(|(owner, _)| *owner == id) {
                self.ways.0.remove(source);
            }
        }
        Some(seat)
    }

    /// Hands a datagram to the viewer that it is for, and says who that is.
    pub fn deliver(&mut self, datagram: &Received<'_>, clock: &Clock, now: Instant) -> Option<u64> {
        let &Received { source, local, contents } = datagram;
        let asked = stun::asked(contents).and_then(|name| self.names.get(name)).copied();
        let known = self.ways.0.get(&source).copied();
        // A browser may leave its address to another one of the same machine.
        let id = asked.or(known.map(|(id, _)| id))?;
        let (seat, ways) = (self.seats.get_mut(&id)?, &mut self.ways);
        let handle = || {
            if known != Some((id, local)) {
                // The number first: proof costs more, and what has it stays in the peer.
                if !seat.may_come_from(source)
                    || !seat.viewer.accepts(source, local, contents, clock, now)
                {
                    return None;
                }
                if !seat.sources.contains(&source) {
                    seat.sources.push(source);
                }
                ways.0.insert(source, (id, local));
            }
            seat.viewer.receive(source, local, contents, clock, now);
            Some(id)
        };
        guard::foreign(handle).unwrap_or_else(|_| {
            seat.viewer.fault();
            Some(id)
        })
    }
}

#[cfg(test)]
mod tests;
