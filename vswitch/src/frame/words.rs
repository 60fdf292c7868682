//! A frame in words, such as `tcp 10.10.0.2:40000 > 10.10.0.3:80 syn ttl 64`, read word by word. What is wrong is told with its column.

use std::net::{IpAddr, SocketAddr};

use packet::{Mac, VlanId};

/// A frame in words. What they leave open is filled in when it is built.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FrameWords {
    pub(crate) body: Body,
    pub(crate) from: Option<Mac>,
    pub(crate) to: Option<Mac>,
    pub(crate) vlan: Option<VlanId>,
    pub(crate) ttl: Option<u8>,
    /// Bytes behind the transport's header.
    pub(crate) length: u16,
    pub(crate) dont_fragment: bool,
}

/// What a frame carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Body {
    /// These bytes are the frame.
    Raw(Vec<u8>),
    /// Who has an address: ARP, or neighbour discovery for IPv6.
    WhoHas { target: IpAddr, tell: Option<IpAddr> },
    /// That an address is the sender's: ARP's answer, or neighbour discovery's.
    IsAt { address: IpAddr, to: Option<IpAddr> },
    /// A ping, or its answer.
    Echo { source: IpAddr, destination: IpAddr, reply: bool, identifier: u16, sequence: u16 },
    /// TCP, with its flags as in the header.
    Tcp { source: SocketAddr, destination: SocketAddr, flags: u8 },
    /// Nothing that a station reads.
    Experimental,
    /// UDP.
    Udp { source: SocketAddr, destination: SocketAddr },
}

/// Words that are no frame.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the frame cannot be read at column {column}: {what}\n  {text}\n  {caret:>width$}", caret = "^", width = .column)]
pub(crate) struct WordsError {
    text: String,
    /// From 1, in characters.
    column: usize,
    what: String,
}

/// Names of TCP's flags by their bits (RFC 9293, section 3.1; RFC 3168, section 6.1).
pub(super) const FLAGS: [(&str, u8); 8] =
    [("fin", 0x01), ("syn", 0x02), ("rst", 0x04), ("psh", 0x08), ("ack", 0x10), ("urg", 0x20), ("ece", 0x40), ("cwr", 0x80)];
/// Most bytes behind the transport's header: a packet of 65,535 bytes with the longest headers.
const MOST: u16 = 65_000;

/// The words that are still to be read.
struct Reader<'a> {
    text: &'a str,
    /// Each with the column that it begins at.
    words: std::vec::IntoIter<(usize, &'a str)>,
}

impl FrameWords {
    /// Reads a frame.
    ///
    /// # Errors
    /// What is wrong, and at which column.
    pub(crate) fn read(text: &str) -> Result<Self, WordsError> {
        let mut reader = Reader::of(text);
        let (column, first) = reader.next("a frame, such as `tcp 10.10.0.2:40000 > 10.10.0.3:80 syn`")?;
        let body = match first {
            "arp" | "nd" => reader.neighbor(first == "nd")?,
            "icmp" | "icmp6" | "ping" => reader.echo(first)?,
            "tcp" => {
                let (source, destination) = reader.sockets()?;
                Body::Tcp { source, destination, flags: 0 }
            }
            "udp" => {
                let (source, destination) = reader.sockets()?;
                Body::Udp { source, destination }
            }
            _ => Body::Raw(reader.hex(column)?),
        };
        let mut words = Self::of(body);
        while let Some((column, word)) = reader.words.next() {
            words.take(column, word, &mut reader)?;
        }
        if let Body::Tcp { flags: flags @ 0, .. } = &mut words.body {
            // A segment without any flag is no segment that a station sends.
            *flags = 0x02;
        }
        Ok(words)
    }

    /// A ping.
    pub(crate) fn ping(source: IpAddr, destination: IpAddr) -> Self {
        Self::of(Body::Echo { source, destination, reply: false, identifier: 1, sequence: 1 })
    }

    /// A frame of no known protocol (IEEE 802, local experimental EtherType 1) to a MAC address.
    pub(crate) fn to_mac(to: Mac) -> Self {
        Self { to: Some(to), ..Self::of(Body::Experimental) }
    }

    fn of(body: Body) -> Self {
        Self { body, from: None, to: None, vlan: None, ttl: None, length: 0, dont_fragment: false }
    }

    /// Whether the words are all bytes of the frame.
    pub(crate) const fn is_whole(&self) -> bool {
        matches!(self.body, Body::Raw(_))
    }

    /// The address that is asked for.
    pub(crate) const fn target(&self) -> Option<IpAddr> {
        match self.body {
            Body::WhoHas { target, .. } => Some(target),
            _ => None,
        }
    }

    /// Takes one word behind the addresses, and what belongs to it.
    fn take(&mut self, column: usize, word: &str, reader: &mut Reader<'_>) -> Result<(), WordsError> {
        let flag = FLAGS.iter().find(|(name, _)| *name == word).map(|(_, bit)| *bit);
        match (word, &mut self.body) {
            (_, Body::Raw(_)) => return Err(reader.wrong(column, "nothing goes behind the hex digits of a frame")),
            ("from", _) => self.from = Some(reader.value("a MAC address, such as 02:00:00:00:00:01")?),
            ("to", _) => self.to = Some(reader.value("a MAC address, such as 02:00:00:00:00:01")?),
            ("vlan", _) => self.vlan = Some(reader.value("a VLAN, 1 to 4094")?),
            ("ttl", _) => self.ttl = Some(reader.value("hops, 0 to 255")?),
            ("len", _) => self.length = reader.length()?,
            ("df", _) => self.dont_fragment = true,
            ("id", Body::Echo { identifier, .. }) => *identifier = reader.value("a number up to 65535")?,
            ("seq", Body::Echo { sequence, .. }) => *sequence = reader.value("a number up to 65535")?,
            (_, Body::Tcp { flags, .. }) if flag.is_some() => *flags |= flag.unwrap_or_default(),
            (_, body) => {
                let more = match body {
                    Body::Tcp { .. } => ", or flags: syn, ack, fin, rst, psh, urg, ece, cwr",
                    Body::Echo { .. } => ", id N or seq N",
                    _ => "",
                };
                let what = format!("\"{}\" is none of: from MAC, to MAC, vlan N, ttl N, len N, df{more}", word.escape_debug());
                return Err(reader.wrong(column, &what));
            }
        }
        Ok(())
    }
}

impl<'a> Reader<'a> {
    fn of(text: &'a str) -> Self {
        let (mut words, mut begin) = (Vec::new(), None::<usize>);
        // `>` needs no spaces around it.
        for (at, character) in text.char_indices().chain([(text.len(), ' ')]) {
            let ends = character.is_whitespace() || character == '>';
            if let Some(start) = begin.filter(|_| ends) {
                words.push((start, text.get(start..at).unwrap_or_default()));
            }
            begin = if ends { None } else { begin.or(Some(at)) };
            if character == '>' {
                words.push((at, ">"));
            }
        }
        let column = |at: usize| text.get(..at).unwrap_or_default().chars().count() + 1;
        let words: Vec<_> = words.into_iter().map(|(at, word)| (column(at), word)).collect();
        Self { text, words: words.into_iter() }
    }

    fn wrong(&self, column: usize, what: &str) -> WordsError {
        WordsError { text: self.text.replace(|c: char| c.is_control(), " "), column, what: what.to_owned() }
    }

    fn next(&mut self, wanted: &str) -> Result<(usize, &'a str), WordsError> {
        let end = self.text.trim_end().chars().count() + 1;
        self.words.next().ok_or_else(|| self.wrong(end, &format!("{wanted} is missing")))
    }

    fn value<T: std::str::FromStr>(&mut self, wanted: &str) -> Result<T, WordsError> {
        let word = self.next(wanted)?;
        self.parsed(word, wanted)
    }

    fn parsed<T: std::str::FromStr>(&self, (column, word): (usize, &str), wanted: &str) -> Result<T, WordsError> {
        word.parse().map_err(|_| self.is_not(column, word, wanted))
    }

    fn is_not(&self, column: usize, word: &str, wanted: &str) -> WordsError {
        self.wrong(column, &format!("\"{}\" is not {wanted}", word.escape_debug()))
    }

    fn length(&mut self) -> Result<u16, WordsError> {
        let wanted = "bytes, 0 to 65000";
        let (column, word) = self.next(wanted)?;
        let length = word.parse().ok().filter(|length| *length <= MOST);
        length.ok_or_else(|| self.is_not(column, word, wanted))
    }

    fn arrow(&mut self) -> Result<(), WordsError> {
        match self.next("`>` and a destination")? {
            (_, ">") => Ok(()),
            (column, word) => Err(self.wrong(column, &format!("\"{}\" stands where `>` should", word.escape_debug()))),
        }
    }

    fn sockets(&mut self) -> Result<(SocketAddr, SocketAddr), WordsError> {
        let wanted = "an address and a port, such as 10.10.0.2:80 or [fd00::2]:80";
        let source: SocketAddr = self.value(wanted)?;
        self.arrow()?;
        let word = self.next(wanted)?;
        let (column, destination) = (word.0, self.parsed::<SocketAddr>(word, wanted)?);
        self.same_version(column, source.ip(), destination.ip())?;
        Ok((source, destination))
    }

    fn same_version(&self, column: usize, source: IpAddr, destination: IpAddr) -> Result<(), WordsError> {
        if source.is_ipv4() == destination.is_ipv4() {
            return Ok(());
        }
        let (one, other) = if source.is_ipv4() { ("IPv4", "IPv6") } else { ("IPv6", "IPv4") };
        Err(self.wrong(column, &format!("{destination} is of {other}, and the source is of {one}")))
    }

    /// `echo A > B`, `echo reply A > B`, or `A > B`.
    fn echo(&mut self, kind: &str) -> Result<Body, WordsError> {
        let wanted = "an address, such as 10.10.0.2";
        let mut reply = false;
        let source = loop {
            let (column, word) = self.next(wanted)?;
            match word {
                "echo" | "request" => {}
                "reply" => reply = true,
                word => break self.parsed::<IpAddr>((column, word), &format!("echo, reply or {wanted}"))?,
            }
        };
        self.arrow()?;
        let word = self.next(wanted)?;
        let (column, destination) = (word.0, self.parsed::<IpAddr>(word, wanted)?);
        self.same_version(column, source, destination)?;
        if kind == "icmp6" && source.is_ipv4() {
            return Err(self.wrong(column, "icmp6 is between IPv6 addresses"));
        }
        Ok(Body::Echo { source, destination, reply, identifier: 1, sequence: 1 })
    }

    /// `who-has A [tell B]`, or `reply A [for B]`.
    fn neighbor(&mut self, six: bool) -> Result<Body, WordsError> {
        let wanted = "an address";
        let (column, word) = self.next("who-has or reply")?;
        if !matches!(word, "who-has" | "reply") {
            return Err(self.is_not(column, word, "who-has or reply"));
        }
        let address = |reader: &mut Self| {
            let word = reader.next(wanted)?;
            let (column, address) = (word.0, reader.parsed::<IpAddr>(word, wanted)?);
            match (address.is_ipv6(), six) {
                (true, false) => Err(reader.wrong(column, "IPv6 has neighbour discovery instead of ARP: write nd for arp")),
                (false, true) => Err(reader.wrong(column, "IPv4 has ARP instead of neighbour discovery: write arp for nd")),
                _ => Ok(address),
            }
        };
        let target = address(self)?;
        let other_word = if word == "who-has" { "tell" } else { "for" };
        let mut other = None;
        if self.words.as_slice().first().is_some_and(|(_, next)| *next == other_word) {
            self.words.next();
            other = Some(address(self)?);
        }
        Ok(if word == "who-has" { Body::WhoHas { target, tell: other } } else { Body::IsAt { address: target, to: other } })
    }

    /// A frame in hex digits, which colons and spaces may part.
    fn hex(&mut self, column: usize) -> Result<Vec<u8>, WordsError> {
        let wrong = |reader: &Self, column| {
            let what = "neither arp, nd, icmp, tcp or udp, nor the hex digits of a whole frame";
            Err(reader.wrong(column, what))
        };
        let mut bytes = Vec::new();
        let mut half = None::<u8>;
        for (at, character) in self.text.chars().enumerate().skip(column - 1) {
            let digit = character.to_digit(16).and_then(|digit| u8::try_from(digit).ok());
            match (digit, half) {
                (Some(digit), Some(high)) => {
                    bytes.push(high << 4 | digit);
                    half = None;
                }
                (Some(digit), None) => half = Some(digit),
                (None, None) if character == ':' || character.is_whitespace() => {}
                (None, _) => return wrong(self, at + 1),
            }
        }
        if half.is_some() {
            return Err(self.wrong(self.text.chars().count(), "half a byte: each has two hex digits"));
        }
        if bytes.len() > packet::MAX_FRAME {
            return Err(self.wrong(column, &format!("longer than any frame: {} bytes", bytes.len())));
        }
        self.words = Vec::new().into_iter();
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(text: &str) -> Body {
        FrameWords::read(text).unwrap_or_else(|wrong| panic!("{wrong}")).body
    }

    #[test]
    fn frames_are_read_as_they_are_written() {
        let [one, two]: [SocketAddr; 2] = ["10.10.0.2:40000", "10.10.0.3:80"].map(|text| text.parse().unwrap());
        let tcp = |flags| Body::Tcp { source: one, destination: two, flags };
        assert_eq!(body("tcp 10.10.0.2:40000 > 10.10.0.3:80 syn"), tcp(2));
        assert_eq!(body("tcp 10.10.0.2:40000>10.10.0.3:80"), tcp(2), "a segment that opens, if nothing is said");
        assert_eq!(body("tcp 10.10.0.2:40000 > 10.10.0.3:80 syn ack"), tcp(0x12));
        assert_eq!(body("udp 10.10.0.2:40000 > 10.10.0.3:80"), Body::Udp { source: one, destination: two });
        let echo = |reply| Body::Echo { source: one.ip(), destination: two.ip(), reply, identifier: 1, sequence: 1 };
        assert_eq!(body("icmp echo 10.10.0.2 > 10.10.0.3"), echo(false));
        assert_eq!(body("icmp echo reply 10.10.0.2 > 10.10.0.3"), echo(true));
        assert_eq!(body("arp who-has 10.10.0.3"), Body::WhoHas { target: two.ip(), tell: None });
        assert_eq!(body("arp who-has 10.10.0.3 tell 10.10.0.2"), Body::WhoHas { target: two.ip(), tell: Some(one.ip()) });
        assert_eq!(body("ff:ff:ff:ff:ff:ff 0200 00000001 0806"), body("ffffffffffff0200000000010806"));
        let words = FrameWords::read("icmp fd00::2 > fd00::3 vlan 10 ttl 3 len 100 df from 02:00:00:00:00:01 id 7").unwrap();
        assert_eq!(
            (words.vlan.map(VlanId::number), words.ttl, words.length, words.dont_fragment),
            (Some(10), Some(3), 100, true)
        );
        assert_eq!(words.from, Some(Mac([2, 0, 0, 0, 0, 1])));
    }

    #[test]
    fn what_is_wrong_is_pointed_at() {
        for (text, column, says) in [
            ("", 1, "is missing"),
            ("tcp", 4, "is missing"),
            ("tcp 10.10.0.2 > 10.10.0.3:80", 5, "an address and a port"),
            ("tcp 10.10.0.2:1 10.10.0.3:80", 17, "`>`"),
            ("tcp 10.10.0.2:1 > [fd00::1]:80", 19, "IPv6"),
            ("tcp 10.10.0.2:1 > 10.10.0.3:80 sin", 32, "syn, ack"),
            ("tcp 10.10.0.2:1 > 10.10.0.3:80 ttl 256", 36, "0 to 255"),
            ("tcp 10.10.0.2:1 > 10.10.0.3:80 len 65001", 36, "65000"),
            ("udp 10.10.0.2:1 > 10.10.0.3:80 vlan 4095", 37, "1 to 4094"),
            ("arp who-has fd00::3", 13, "write nd"),
            ("nd who-has 10.0.0.1", 12, "write arp"),
            ("arp 10.10.0.3", 5, "who-has"),
            ("gre 10.10.0.2 > 10.10.0.3", 1, "hex digits"),
            ("ffffffffffff020000000001080", 27, "half a byte"),
        ] {
            let wrong = FrameWords::read(text).expect_err(text);
            assert_eq!(wrong.column, column, "{text}: {wrong}");
            assert!(wrong.to_string().contains(says), "{text}: {wrong}");
        }
    }
}
