//! mdm-client
