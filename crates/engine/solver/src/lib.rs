//! The scheduler of a graph's vertices, as a pure state machine.
