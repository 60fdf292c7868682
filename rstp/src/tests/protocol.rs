//! Single traits of the protocol, each of which has been a fault of others.

use super::network::*;
use crate::*;
