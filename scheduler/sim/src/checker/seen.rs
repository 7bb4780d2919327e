//! What happened in a world: a set of worlds in which something never happens does not test it.

/// Something that a world should have in it now and then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it; ends of bound frames are those of the ledger")]
pub enum Happening {
    PreparedAhead,
    Crops,
    CropsExpired,
    Granted,
    Measured,
    Torn,
    Errors,
    Revoked,
    ExpiredLate,
    LostWithRunner,
    Expired,
    Gap,
    Parked,
    Hung,
    RefusedInstance,
    Replaced,
    Protocol,
    LateReply,
    NewGeneration,
    IdsFellBack,
    FrameOfTheFuture,
    Stall,
    SharesCompared,
    AgesCompared,
}

impl Happening {
    /// All of them, in order.
    pub const ALL: [Happening; 24] = [
        Happening::PreparedAhead,
        Happening::Crops,
        Happening::CropsExpired,
        Happening::Granted,
        Happening::Measured,
        Happening::Torn,
        Happening::Errors,
        Happening::Revoked,
        Happening::ExpiredLate,
        Happening::LostWithRunner,
        Happening::Expired,
        Happening::Gap,
        Happening::Parked,
        Happening::Hung,
        Happening::RefusedInstance,
        Happening::Replaced,
        Happening::Protocol,
        Happening::LateReply,
        Happening::NewGeneration,
        Happening::IdsFellBack,
        Happening::FrameOfTheFuture,
        Happening::Stall,
        Happening::SharesCompared,
        Happening::AgesCompared,
    ];
}

/// How often each happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Seen([u64; Happening::ALL.len()]);

impl Seen {
    /// It happened `times` more.
    pub fn note(&mut self, what: Happening, times: u64) {
        self.0[what as usize] += times;
    }

    /// Adds what happened in another world.
    pub fn add(&mut self, other: &Seen) {
        self.0.iter_mut().zip(other.0).for_each(|(sum, count)| *sum += count);
    }

    /// How often it happened.
    pub fn count(&self, what: Happening) -> u64 {
        self.0[what as usize]
    }
}
