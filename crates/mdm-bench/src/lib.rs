//! mdm-bench
