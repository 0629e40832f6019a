//! One response on its way: head, framing, event boundaries, usage.
