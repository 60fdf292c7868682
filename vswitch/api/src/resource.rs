//! A resource: one bridge, port, uplink, forward or tunnel, whichever it is. What holds for all of them (merging sources, planning, undoing,
//! listing, forgetting) is written once over these types, by the control side; they know no engine.

use std::fmt;

use super::{BridgeName, BridgeSpec, ForwardKey, ForwardSpec, Part, PortName, PortSpec, UplinkSpec, VxlanSpec};

/// What a resource is to be like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resource {
    /// An uplink.
    Uplink(UplinkSpec),
    /// A bridge.
    Bridge(BridgeSpec),
    /// A tunnel.
    Vxlan(VxlanSpec),
    /// A port.
    Port(PortSpec),
    /// A published port.
    Forward(ForwardSpec),
}

/// Which resource it is. The order of the kinds is that in which they are made: an uplink before the bridges that use it, a bridge before what is on
/// it, a tunnel before ports, whose MTU it decides. They go in the opposite order.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ResourceKey {
    /// An uplink.
    Uplink(PortName),
    /// A bridge.
    Bridge(BridgeName),
    /// A tunnel.
    Vxlan(PortName),
    /// A port.
    Port(PortName),
    /// A published port.
    Forward(ForwardKey),
}

/// A kind of resource.
pub trait Kind: Clone + PartialEq + Into<Resource> {
    /// What tells one from the others of its kind.
    type Key: Clone + Ord + fmt::Display;

    /// What tells it from the others.
    fn key(&self) -> &Self::Key;
    /// The same among all resources.
    fn key_of(key: Self::Key) -> ResourceKey;
    /// The resource, if it is of this kind.
    fn of(resource: &Resource) -> Option<&Self>;
}

macro_rules! kinds {
    ($($kind:ident $spec:ty, $key:ty, $field:ident;)*) => {
        $(
            impl Kind for $spec {
                type Key = $key;

                fn key(&self) -> &$key {
                    &self.$field
                }

                fn key_of(key: $key) -> ResourceKey {
                    ResourceKey::$kind(key)
                }

                fn of(resource: &Resource) -> Option<&Self> {
                    match resource {
                        Resource::$kind(spec) => Some(spec),
                        _ => None,
                    }
                }
            }

            impl From<$spec> for Resource {
                fn from(spec: $spec) -> Self {
                    Self::$kind(spec)
                }
            }
        )*

        impl Resource {
            /// Which one it is.
            pub fn key(&self) -> ResourceKey {
                match self {
                    $(Self::$kind(spec) => ResourceKey::$kind(spec.$field.clone()),)*
                }
            }
        }

        impl ResourceKey {
            /// What kind it is of.
            pub const fn part(&self) -> Part {
                match self {
                    $(Self::$kind(_) => Part::$kind,)*
                }
            }
        }

        /// What it is called, without its kind.
        impl fmt::Display for ResourceKey {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self {
                    $(Self::$kind(key) => key.fmt(f),)*
                }
            }
        }
    };
}

kinds! {
    Uplink UplinkSpec, PortName, name;
    Bridge BridgeSpec, BridgeName, name;
    Vxlan VxlanSpec, PortName, name;
    Port PortSpec, PortName, name;
    Forward ForwardSpec, ForwardKey, key;
}

impl Resource {
    /// The bridge that it is on.
    pub const fn bridge(&self) -> Option<&BridgeName> {
        match self {
            Self::Vxlan(spec) => Some(&spec.bridge),
            Self::Port(spec) => Some(&spec.bridge),
            Self::Uplink(_) | Self::Bridge(_) | Self::Forward(_) => None,
        }
    }
}
