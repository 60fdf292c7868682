//! The IPv6 addresses that a station's kernel makes of its device's MAC address (RFC 4291, appendix A): the link-local one as the device is set up,
//! others from router advertisements.
//!
//! The kernel keeps them when that address changes (`addrconf_notify` knows no `NETDEV_CHANGEADDR`), until the device is set down. It would go on to
//! ask for neighbours from them, which a guard drops. So they are taken away before the change, and after it the new link-local one is set. If that is
//! the only one, the kernel then asks for advertisements, of which it makes the others (`addrconf_dad_completed`).

use std::io;
use std::net::IpAddr;

use futures_util::TryStreamExt;
use netlink_packet_route::address::{AddressAttribute, AddressHeaderFlags, AddressMessage};
use packet::Mac;

use super::netlink::{Netlink, into_io};

impl Netlink {
    /// Takes the addresses from a link that follow from a MAC address; says whether the link-local one was among them.
    pub(super) fn take_addresses_of(&self, index: u32, mac: Mac) -> io::Result<bool> {
        let mut request = self.handle.address().get().set_link_index_filter(index);
        request.message_mut().header.index = index;
        let messages: Vec<_> = self.runtime.block_on(request.execute().try_collect()).map_err(into_io)?;
        let mut had_link_local = false;
        for message in messages.into_iter().filter(|message| is_made_of(message, mac)) {
            had_link_local |= plain(&message) == Some(mac.link_local().into());
            self.runtime.block_on(self.handle.address().del(message).execute()).map_err(into_io)?;
        }
        Ok(had_link_local)
    }

    /// Sets the link-local address that follows from a MAC address.
    pub(super) fn add_link_local_of(&self, index: u32, mac: Mac) -> io::Result<()> {
        let mut request = self.handle.address().add(index, mac.link_local().into(), 64);
        request.message_mut().header.flags |= AddressHeaderFlags::Nodad;
        self.runtime.block_on(request.execute()).map_err(into_io)
    }
}

/// Whether a kernel made an address of this MAC address. What was set by hand lasts; a link-local one also if the kernel made it.
fn is_made_of(message: &AddressMessage, mac: Mac) -> bool {
    let Some(IpAddr::V6(address)) = plain(message) else { return false };
    let lasts = message.header.flags.contains(AddressHeaderFlags::Permanent);
    address == mac.link_local() || address == mac.address_in(address) && !lasts
}

fn plain(message: &AddressMessage) -> Option<IpAddr> {
    message.attributes.iter().find_map(|a| if let AddressAttribute::Address(ip) = a { Some(*ip) } else { None })
}
