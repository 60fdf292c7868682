//! A frame of a pcap or pcapng file.

use std::fs::File;
use std::path::Path;

use pcap_parser::{Block, Linktype, OptionCode, PcapBlockOwned, PcapError, create_reader};

use super::ClientError;
use api::SuperFrame;

/// Bytes that are read at a time; longer than any block with a frame.
const BUFFER: usize = 1 << 20;

/// The frame with a number, counted from 1 over all interfaces, and how it is cut, if vswitchd wrote that it is a super-frame.
///
/// # Errors
/// There is no such file, it is no capture, it has fewer frames, or the frame is not of Ethernet.
pub(super) fn frame(path: &Path, number: u64) -> Result<(Vec<u8>, Option<SuperFrame>), ClientError> {
    let wrong = |what: &str| ClientError::Argument(format!("{}: {what}", path.display()));
    let file = File::open(path).map_err(|error| wrong(&format!("cannot be read: {error}")))?;
    let mut reader = create_reader(BUFFER, file)
        .map_err(|_| wrong("is neither a pcap nor a pcapng file: vsctl capture -w and tcpdump -w write them"))?;
    let (mut links, mut seen) = (Vec::new(), 0);
    loop {
        let (consumed, found) = match reader.next() {
            Ok((consumed, block)) => {
                let found = read(&block, &mut links).map(|found| (found, super_frame(&block)));
                (consumed, found)
            }
            Err(PcapError::Eof) => return Err(wrong(&format!("has {seen} frames, so none with the number {number}"))),
            Err(PcapError::Incomplete(_)) => {
                reader.refill().map_err(|_| wrong("is cut short"))?;
                continue;
            }
            Err(_) => return Err(wrong(&format!("is broken behind frame {seen}"))),
        };
        reader.consume(consumed);
        if let Some(((link, bytes), super_frame)) = found {
            seen += 1;
            if seen == number {
                return match link {
                    Some(Linktype::ETHERNET) => Ok((bytes, super_frame)),
                    Some(link) => Err(wrong(&format!("frame {number} is not of Ethernet, but of link type {}", link.0))),
                    None => Err(wrong(&format!("frame {number} is of no interface"))),
                };
            }
        }
    }
}

/// What a comment of the packet says of how it is cut.
fn super_frame(block: &PcapBlockOwned<'_>) -> Option<SuperFrame> {
    let PcapBlockOwned::NG(Block::EnhancedPacket(packet)) = block else { return None };
    let comments = packet.options.iter().filter(|option| option.code == OptionCode::Comment);
    let texts = comments.filter_map(|option| std::str::from_utf8(option.value.get(..usize::from(option.len))?).ok());
    texts.into_iter().find_map(SuperFrame::read)
}

/// The frame of a block, with its link type; takes note of interfaces.
fn read(block: &PcapBlockOwned<'_>, links: &mut Vec<Linktype>) -> Option<(Option<Linktype>, Vec<u8>)> {
    let cut = |data: &[u8], length: u32| data.get(..usize::try_from(length).ok()?).map(<[u8]>::to_vec);
    match block {
        PcapBlockOwned::LegacyHeader(header) => {
            *links = vec![header.network];
            None
        }
        PcapBlockOwned::Legacy(packet) => Some((links.first().copied(), cut(packet.data, packet.caplen)?)),
        PcapBlockOwned::NG(Block::SectionHeader(_)) => {
            links.clear();
            None
        }
        PcapBlockOwned::NG(Block::InterfaceDescription(interface)) => {
            links.push(interface.linktype);
            None
        }
        PcapBlockOwned::NG(Block::EnhancedPacket(packet)) => {
            let link = usize::try_from(packet.if_id).ok().and_then(|number| links.get(number)).copied();
            Some((link, cut(packet.data, packet.caplen)?))
        }
        PcapBlockOwned::NG(Block::SimplePacket(packet)) => Some((links.first().copied(), cut(packet.data, packet.origlen)?)),
        PcapBlockOwned::NG(_) => None,
    }
}
