//! mdm-proto
