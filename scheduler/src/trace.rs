//! Recording and replaying.
