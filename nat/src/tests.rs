//! Tests of the whole NAT, by packets. `lab` builds and checks them; `rfc4787`, `rfc5382` and `rfc5508` have a test for each
//! requirement, named after it; `bounds` has the rules of the tables; `persist` hands a life over to another NAT; `properties` what holds for any packet and any sequence.

mod bounds;
mod forwards;
mod lab;
mod offloads;
mod persist;
mod properties;
mod rfc4787;
mod rfc5382;
mod rfc5508;
mod rfc7857;
