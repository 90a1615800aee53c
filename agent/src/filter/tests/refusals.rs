//! What is refused, where, and in which words.

use super::*;

#[test]
fn refusals_name_the_place_and_what_to_do() {
    for (text, column, says) in [
        // Names.
        ("host example.org", 6, "write the address"),
        ("tcp port https", 10, "write the number, 443 for https"),
        ("port gopher", 6, "write the number"),
        ("net loopback-net", 5, "write its address"),
        ("proto xyz", 7, "write its number"),
        // What pcap-filter(7) has and this subset has not.
        ("tcp[13] = 2", 4, "TCP flags are counted"),
        ("ether host 00:11:22:33:44:55", 1, "`host ADDRESS`"),
        ("tcp and arp", 9, "Leave it out"),
        ("ip broadcast", 4, "write the address"),
        ("ip6 multicast", 5, "dst net ff00::/8"),
        ("less 100", 1, "features"),
        ("len > 100", 5, "arithmetic"),
        ("greater 100", 1, "features"),
        ("inbound and tcp", 1, "--direction"),
        ("tcp and ifname eth0", 9, "--iface"),
        ("gateway 10.0.0.1", 1, "host ADDRESS"),
        ("mpls 5 and tcp", 1, "tunnel"),
        ("pppoes", 1, "tunnel"),
        ("ip6 protochain 6", 5, "ip6 proto N"),
        ("tcp & udp", 5, "`&&`"),
        ("tcp | udp", 5, "`||`"),
        ("host fe80::1%eth0", 13, "--iface"),
        ("port 80,443", 8, "write `or`"),
        ("tcp; udp", 4, "not in the language"),
        ("tcp ∧ udp", 5, "not in the language"),
        ("ü", 1, "not in the language"),
        ("\\", 1, "not in the language"),
        // Grammar.
        ("tcp udp", 5, "without `and` or `or`"),
        ("tcp 80", 5, "such as `port`"),
        ("tcp (udp)", 5, "without `and` or `or`"),
        ("tcp and", 8, "ends where"),
        ("port", 5, "ends where"),
        ("port and", 6, "stands where a value must"),
        ("host tcp", 6, "stands where a value must"),
        ("host gateway", 6, "host ADDRESS"),
        ("not", 4, "ends where"),
        ("and tcp", 1, "one of them is missing"),
        ("(tcp", 5, "write `)`"),
        ("port (80 or 443", 16, "write `)`"),
        ("tcp)", 4, "was not opened"),
        ("()", 2, "nothing is in it"),
        ("/8", 1, "behind a network"),
        ("mask 255.0.0.0", 1, "stands where a value must"),
        ("net 10.0.0.0/", 14, "ends where"),
        ("src tcp", 5, "stands where a value must"),
        ("TCP", 1, "in lower case: `tcp`"),
        ("tcp AND udp", 5, "without `and`"),
        ("80", 1, "`port 80`"),
        ("tcp or 80", 8, "`port 80`"),
        ("10.0.0.0/8", 1, "`net 10.0.0.0`"),
        ("192.168", 1, "`net 192.168`"),
        // Keywords that do not go together.
        ("tcp host 10.0.0.1", 1, "write `tcp and`"),
        ("udp src 10.0.0.1", 1, "write `udp and`"),
        ("icmp port 8", 1, "has no ports"),
        ("udp and ip port 8", 9, "has no ports"),
        ("tcp proto 6", 1, "write `ip proto`"),
        ("src proto 6", 1, "without `src`"),
        ("ip host ::1", 9, "write `ip6`"),
        ("ip6 net 10", 9, "write `ip`"),
        ("ip6 proto 44", 11, "extension header"),
        ("port (80 or 443) and not 10.0.0.1", 26, "write `host 10.0.0.1`"),
        ("vlan and tcp and vlan", 18, "second tag"),
        // Values.
        ("host 10.0.0", 6, "four numbers"),
        ("host 256.0.0.1", 6, "up to 255"),
        ("host 10.0.0.010", 6, "leading zeros"),
        ("host 10.0.0.0/8", 6, "write `net"),
        ("host 1:2:3", 6, "no address"),
        ("net 192.168.1.1/16", 5, "the network is `192.168.0.0`"),
        ("net 2001:db8::1/32", 5, "the network is `2001:db8::`"),
        ("net 10.0.0.0/33", 5, "0 to 32"),
        ("net ::/129", 5, "0 to 128"),
        ("net :: mask ffff::", 5, "`::/64`"),
        ("net 10.0.0.0 mask abc", 5, "255.255.0.0"),
        ("net 300", 5, "no address"),
        ("net 0", 5, "net 0/8"),
        ("net 1.2.3.4.5", 5, "no address"),
        ("port 65536", 6, "end at 65535"),
        ("port 4294967376", 6, "0 to 65535"),
        ("port 80-90", 6, "`portrange 80-90`"),
        ("port 08", 6, "0 to 65535"),
        ("portrange 1-x", 11, "port's name"),
        ("proto 256", 7, "end at 255"),
        ("vlan 0", 6, "priority"),
        ("vlan 4096", 6, "1 to 4095"),
    ] {
        let Err(error) = compile(text) else { panic!("accepted: {text}") };
        assert_eq!(error.column(), Some(column), "{text}: {error}");
        assert!(error.to_string().contains(says), "{text}: {error}");
    }
}

#[test]
fn the_caret_stands_under_the_place() {
    let error = compile("tcp\tand ü").expect_err("refused");
    assert_eq!(
        error.to_string(),
        "column 9: `ü` is not in the language of filters\n  tcp and ü\n          ^"
    );
}

#[test]
fn nesting_ends_somewhere() {
    for nest in ["not ", "(", "!", "host not ", "host ("] {
        let error = compile(&format!("{}tcp", nest.repeat(100_000))).expect_err("refused");
        assert!(error.column().is_some(), "{nest}");
    }
    compiled(&format!("{}tcp{}", "(".repeat(64), ")".repeat(64)));
}
