//! One replica's view: in flight, last snapshot, pending estimate.
