//! The state machine over all of the engine.
