//! mdm-agent
