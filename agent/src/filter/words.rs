//! The language's words: protocols' names, and words that are understood but refused.

/// Protocols by their names in IANA's registry or in /etc/protocols.
const PROTOCOLS: [(&str, u8); 25] = [
    ("icmp", 1),
    ("igmp", 2),
    ("ipencap", 4),
    ("tcp", 6),
    ("egp", 8),
    ("igrp", 9),
    ("udp", 17),
    ("dccp", 33),
    ("ipv6", 41),
    ("rsvp", 46),
    ("gre", 47),
    ("esp", 50),
    ("ah", 51),
    ("icmp6", 58),
    ("icmpv6", 58),
    ("ipv6-icmp", 58),
    ("eigrp", 88),
    ("ospf", 89),
    ("pim", 103),
    ("vrrp", 112),
    ("carp", 112),
    ("l2tp", 115),
    ("sctp", 132),
    ("udplite", 136),
    ("mpls-in-ip", 137),
];

/// The number of a protocol.
pub(super) fn protocol(name: &str) -> Option<u8> {
    PROTOCOLS.iter().find(|(known, _)| *known == name).map(|(_, number)| *number)
}

/// Ports whose names people write most; only to say the number in a refusal.
const PORTS: [(&str, u16); 16] = [
    ("ftp", 21),
    ("ssh", 22),
    ("telnet", 23),
    ("smtp", 25),
    ("domain", 53),
    ("dns", 53),
    ("http", 80),
    ("pop3", 110),
    ("ntp", 123),
    ("imap", 143),
    ("snmp", 161),
    ("ldap", 389),
    ("https", 443),
    ("syslog", 514),
    ("mysql", 3306),
    ("postgresql", 5432),
];

/// The usual number of a port's name.
pub(super) fn port(name: &str) -> Option<u16> {
    PORTS.iter().find(|(known, _)| *known == name).map(|(_, number)| *number)
}

/// Words that say something here.
const KEYWORDS: [&str; 23] = [
    "ip",
    "ip6",
    "tcp",
    "udp",
    "sctp",
    "icmp",
    "icmp6",
    "ah",
    "esp",
    "igmp",
    "igrp",
    "pim",
    "vrrp",
    "carp",
    "src",
    "dst",
    "host",
    "net",
    "mask",
    "port",
    "portrange",
    "proto",
    "vlan",
];

/// Whether a word, unless escaped, is a keyword.
pub(super) fn is_keyword(word: &str) -> bool {
    KEYWORDS.contains(&word)
}

const LINK: &str = "is about the link layer, below the flows: choose interfaces by --iface, VLANs by \
                    `vlan N`, and hosts by `host ADDRESS`";
const NOT_IP: &str = "is no IP; such packets belong to no flow and reach no filter. Leave it out";
const LENGTH: &str = "is about lengths, which no filter here asks for: a flow's lengths are features \
                      of every line, to be chosen by its consumer";
const SIDE: &str = "is about the direction at the interface: choose it by --direction";
const TUNNEL: &str = "is about what lies around or inside a tunnel, which no filter here asks for: \
                      write what is to hold of the packet that the flow is made of";

/// What to say of a word of pcap-filter(7) that is not supported.
pub(super) fn refusal(word: &str) -> Option<&'static str> {
    Some(match word {
        "ether" | "link" | "fddi" | "tr" | "wlan" | "ppp" | "slip" | "type" | "subtype" | "dir"
        | "addr1" | "addr2" | "addr3" | "addr4" | "ra" | "ta" | "llc" | "radio" | "atm"
        | "lane" | "oamf4s" | "oamf4e" | "oamf4" | "oam" | "metac" | "bcc" | "sc" | "ilmic"
        | "connectmsg" | "metaconnect" | "vpi" | "vci" | "hopcount" => LINK,
        "arp" | "rarp" | "atalk" | "aarp" | "decnet" | "iso" | "stp" | "ipx" | "netbeui"
        | "lat" | "moprc" | "mopdl" | "mopdh" | "sca" | "clnp" | "esis" | "es-is" | "isis"
        | "is-is" | "l1" | "l2" | "iih" | "lsp" | "snp" | "csnp" | "psnp" | "loopback" => NOT_IP,
        "len" | "length" | "less" | "greater" => LENGTH,
        "inbound" | "outbound" => SIDE,
        "mpls" | "pppoed" | "pppoes" | "geneve" | "vxlan" => TUNNEL,
        "ifname" | "on" | "ifindex" => "is about the interface: choose it by --iface",
        "gateway" => {
            "needs the hardware's addresses, below the flows: write `host ADDRESS` for what a \
             gateway sends itself, or `net` for what lies behind it"
        }
        "multicast" => "is not in this subset: write `dst net 224.0.0.0/4 or dst net ff00::/8`",
        "broadcast" => {
            "needs the interface's netmask: write the address, such as `dst host 255.255.255.255`"
        }
        "protochain" => {
            "is not needed: `proto` looks behind IPv6's extension headers here. Write `ip6 proto N`"
        }
        "rnr" | "rulenum" | "reason" | "rset" | "ruleset" | "srnr" | "subrulenum" | "action" => {
            "is about the log of a packet filter, and no such thing is read here. Leave it out"
        }
        _ => return None,
    })
}
