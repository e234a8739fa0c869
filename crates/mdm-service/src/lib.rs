//! mdm-service
