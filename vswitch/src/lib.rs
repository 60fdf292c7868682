//! vswitch

pub mod api;
pub mod attach;
pub mod capture;
pub mod client;
pub mod config;
pub mod control;
pub mod datapath;
pub mod device;
pub mod sys;
pub mod worker;
