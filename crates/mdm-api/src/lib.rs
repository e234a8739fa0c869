//! mdm-api
