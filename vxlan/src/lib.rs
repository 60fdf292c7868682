//! VXLAN
