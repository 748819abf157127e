//! Alarms are raised once, survive restarts, and never fill the disk.
