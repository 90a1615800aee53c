//! Community ID, version 1, seed 0.

use std::net::IpAddr;

use base64::{Engine, engine::general_purpose::STANDARD};
use sha1::{Digest, Sha1};

/// The identifier of a flow between two ends; the order of the ends matters for `one_way` flows only.
///
/// `ports` is absent for protocols without ports.
pub fn community_id(
    proto: u8,
    src: IpAddr,
    dst: IpAddr,
    ports: Option<(u16, u16)>,
    one_way: bool,
) -> String {
    let (sport, dport) = ports.unwrap_or((0, 0));
    let mut ends = [(octets(src), sport), (octets(dst), dport)];
    if !one_way {
        ends.sort();
    }
    let mut hash = Sha1::new();
    hash.update([0, 0]);
    hash.update(&ends[0].0);
    hash.update(&ends[1].0);
    hash.update([proto, 0]);
    if ports.is_some() {
        hash.update(ends[0].1.to_be_bytes());
        hash.update(ends[1].1.to_be_bytes());
    }
    format!("1:{}", STANDARD.encode(hash.finalize()))
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values published with the specification's reference implementations.
    #[test]
    fn published_baseline() {
        let check = |proto, src: &str, dst: &str, ports, one_way, expected: &str| {
            let (src, dst) = (src.parse().unwrap(), dst.parse().unwrap());
            assert_eq!(community_id(proto, src, dst, ports, one_way), expected);
        };
        let (a, b) = ("128.232.110.120", "66.35.250.204");
        check(6, a, b, Some((34855, 80)), false, "1:LQU9qZlK+B5F3KDmev6m5PMibrg=");
        check(6, b, a, Some((80, 34855)), false, "1:LQU9qZlK+B5F3KDmev6m5PMibrg=");
        let (a, b) = ("192.168.1.52", "8.8.8.8");
        check(17, a, b, Some((54585, 53)), false, "1:d/FP5EW3wiY1vCndhwleRRKHowQ=");
        let (a, b) = ("192.168.170.8", "192.168.170.56");
        check(132, a, b, Some((7, 80)), false, "1:jQgCxbku+pNGw8WPbEc/TS/uTpQ=");
        let (a, b) = ("192.168.0.89", "192.168.0.1");
        check(1, a, b, Some((8, 0)), false, "1:X0snYXpgwiv9TZtqg64sgzUn6Dk=");
        check(1, b, a, Some((0, 8)), false, "1:X0snYXpgwiv9TZtqg64sgzUn6Dk=");
        check(1, a, b, Some((11, 0)), true, "1:WWhK5yv9t1/eWrodrgw+6KseRoA=");
        check(1, b, a, Some((11, 0)), true, "1:5ppgsucJbrpJCp1T8kvBKS94Ib0=");
        let (a, b) = ("fe80::200:86ff:fe05:80da", "fe80::260:97ff:fe07:69ea");
        check(58, a, b, Some((135, 136)), false, "1:dGHyGvjMfljg6Bppwm3bg0LO8TY=");
        let (a, b) = ("3ffe:507:0:1:260:97ff:fe07:69ea", "3ffe:507:0:1:200:86ff:fe05:80da");
        check(58, a, b, Some((3, 0)), true, "1:NdobDX8PQNJbAyfkWxhtL2Pqp5w=");
        check(46, "10.1.24.4", "10.1.12.1", None, false, "1:/nQI4Rh/TtY3mf0R2gJFBkVlgS4=");
    }
}
