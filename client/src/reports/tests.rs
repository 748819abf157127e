//! Each report from hand-made events.
