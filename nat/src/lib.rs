//! NAT
