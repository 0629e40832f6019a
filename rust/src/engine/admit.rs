//! May this replica take one more request now, and if not, why.
