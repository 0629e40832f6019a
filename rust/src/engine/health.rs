//! Observed state and operator intent make a replica ready or not.
