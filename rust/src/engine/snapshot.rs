//! What one probe of an engine said, read by a scanner.
