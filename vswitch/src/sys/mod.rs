//! sys
pub mod pcap;
