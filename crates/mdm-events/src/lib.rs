//! mdm-events
