"""The parts of hack/abuse: see there."""
