//! What values mean behind their keywords, and which keywords go together.
//!
//! Errors are sentences; the parser knows the place.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{
    ast::{Net, Primitive, Side, Version},
    parser::{Qualifiers, ValueKind},
    words,
};

/// What follows an address.
#[derive(Clone, Copy, Debug)]
pub(super) enum Suffix<'a> {
    /// `/ LENGTH`
    Length(&'a str),
    /// `mask MASK`
    Mask(&'a str),
}

/// Whether keywords go together; `sided`: one of them is a side.
pub(super) fn check_qualifiers(qualifiers: &Qualifiers, sided: bool) -> Result<(), String> {
    let Qualifiers { protocol, side: _, kind } = *qualifiers;
    let is_ip = matches!(protocol, None | Some("ip" | "ip6"));
    match (kind, protocol) {
        (ValueKind::Protocol, _) if sided => {
            Err("a protocol has no sides; write `proto` without `src` and `dst`".into())
        }
        (ValueKind::Protocol, Some(protocol)) if !is_ip => Err(format!(
            "`{protocol}` is a protocol itself; write `ip proto`, `ip6 proto` or `proto`"
        )),
        (ValueKind::Host | ValueKind::Net, Some(protocol)) if !is_ip => Err(format!(
            "`{protocol}` says nothing of addresses; write `{protocol} and` before the address's \
             keywords, or `{protocol} port` if a port is meant"
        )),
        (ValueKind::Port | ValueKind::PortRange, Some(protocol))
            if !matches!(protocol, "tcp" | "udp" | "sctp") =>
        {
            Err(format!(
                "`{protocol}` has no ports; write `tcp`, `udp` or `sctp` before `port`, or nothing \
                 for all three, or `{protocol} and port` if both are to hold"
            ))
        }
        _ => Ok(()),
    }
}

/// A value behind its keywords; an address needs none.
pub(super) fn value(
    word: &str,
    suffix: Option<Suffix>,
    qualifiers: Option<&Qualifiers>,
) -> Result<Primitive, String> {
    let Some(qualifiers) = qualifiers else {
        return match word.parse() {
            Ok(address) if suffix.is_none() => Ok(Primitive::Net(Side::Either, Net::host(address))),
            _ => Err(nothing_says(word, suffix.is_some())),
        };
    };
    let Qualifiers { protocol, side, kind } = *qualifiers;
    if suffix.is_some() && kind != ValueKind::Net {
        return Err(format!("only a network has a mask; write `net {word}` with it"));
    }
    Ok(match kind {
        ValueKind::Host => Primitive::Net(side, of_version(Net::host(host(word)?), protocol)?),
        ValueKind::Net => Primitive::Net(side, of_version(net(word, suffix)?, protocol)?),
        ValueKind::Port => {
            let port = port(word)?;
            Primitive::Ports(side, protocol.and_then(words::protocol), port..=port)
        }
        ValueKind::PortRange => {
            let (low, high) = word.split_once('-').unwrap_or((word, word));
            let (low, high) = (port(low)?, port(high)?);
            // As libpcap does, a range is taken in either order.
            let range = low.min(high)..=low.max(high);
            Primitive::Ports(side, protocol.and_then(words::protocol), range)
        }
        ValueKind::Protocol => {
            let version = match protocol {
                Some("ip") => Some(Version::V4),
                Some("ip6") => Some(Version::V6),
                _ => None,
            };
            Primitive::Protocol(version, protocol_number(word, version)?)
        }
    })
}

/// A VLAN id.
pub(super) fn vlan(word: &str) -> Result<u16, String> {
    match number(word) {
        Some(0) => Err("VLAN id 0 marks a priority and names no VLAN; leave it out".into()),
        Some(id @ 1..=0xfff) => Ok(id as u16),
        _ => Err(format!("`{word}` is no VLAN id; ids are 1 to 4095")),
    }
}

fn nothing_says(word: &str, masked: bool) -> String {
    let (keyword, example) = if masked || short_v4(word).is_some_and(|(_, parts)| parts > 1) {
        ("net", word)
    } else if number(word).is_some() {
        ("port", word)
    } else if word.contains(['.', ':']) {
        ("host", "10.0.0.1")
    } else {
        ("port", "443")
    };
    let lower = word.to_ascii_lowercase();
    if words::is_keyword(&lower) || words::refusal(&lower).is_some() || is_joint(&lower) {
        return format!(
            "`{word}` is no word of the language; keywords are in lower case: `{lower}`"
        );
    }
    format!(
        "nothing says what `{word}` is; write a keyword before it, such as `{keyword} {example}`"
    )
}

fn is_joint(word: &str) -> bool {
    matches!(word, "and" | "or" | "not")
}

fn host(word: &str) -> Result<IpAddr, String> {
    if let Ok(address) = word.parse() {
        return Ok(address);
    }
    Err(match short_v4(word) {
        Some(_) => format!(
            "`{word}` is not a whole address; write its four numbers, or `net {word}` for a network"
        ),
        None if looks_like_address(word) => not_an_address(word),
        None => format!(
            "`{word}` would be a host's name, and names may mean another address at another time; \
             write the address"
        ),
    })
}

fn net(word: &str, suffix: Option<Suffix>) -> Result<Net, String> {
    if let Ok(address) = word.parse::<Ipv6Addr>() {
        return net_v6(address, suffix);
    }
    let Some((bits, parts)) = short_v4(word) else {
        return Err(if looks_like_address(word) {
            not_an_address(word)
        } else {
            format!(
                "`{word}` would be a network's name; write its address, such as `net 10.0.0.0/8`"
            )
        });
    };
    let mask = match suffix {
        Some(Suffix::Length(length)) => match number(length) {
            Some(length @ 0..=32) => u32::MAX.checked_shl(32 - length).unwrap_or(0),
            _ => return Err(format!("`/{length}` is no length of an IPv4 network; write 0 to 32")),
        },
        Some(Suffix::Mask(mask)) => match short_v4(mask) {
            Some((bits, _)) => bits,
            None => return Err(format!("`{mask}` is no mask; write it as `255.255.0.0`")),
        },
        // libpcap takes this for the one address 0.0.0.0, which nobody means.
        None if parts == 1 && bits == 0 => {
            return Err(format!(
                "`net {word}` does not say how long it is; write `net {word}/8` or so"
            ));
        }
        None => u32::MAX << (32 - 8 * parts),
    };
    if bits & !mask != 0 {
        return Err(beyond_mask(word, Ipv4Addr::from_bits(bits & mask).into()));
    }
    Ok(Net::V4 { address: Ipv4Addr::from_bits(bits), mask: Ipv4Addr::from_bits(mask) })
}

fn net_v6(address: Ipv6Addr, suffix: Option<Suffix>) -> Result<Net, String> {
    let mask = match suffix {
        None => u128::MAX,
        Some(Suffix::Length(length)) => match number(length) {
            Some(length @ 0..=128) => u128::MAX.checked_shl(128 - length).unwrap_or(0),
            _ => {
                return Err(format!("`/{length}` is no length of an IPv6 network; write 0 to 128"));
            }
        },
        Some(Suffix::Mask(_)) => {
            return Err(format!("an IPv6 network has a length; write `{address}/64` or so"));
        }
    };
    if address.to_bits() & !mask != 0 {
        let network = Ipv6Addr::from_bits(address.to_bits() & mask);
        return Err(beyond_mask(&address.to_string(), network.into()));
    }
    Ok(Net::V6 { address, mask: Ipv6Addr::from_bits(mask) })
}

fn beyond_mask(word: &str, network: IpAddr) -> String {
    format!("`{word}` has bits that its mask leaves out; the network is `{network}`")
}

fn of_version(net: Net, protocol: Option<&str>) -> Result<Net, String> {
    match (protocol, net.version()) {
        (Some("ip"), Version::V6) => {
            Err("this is an IPv6 address behind `ip`; write `ip6` or nothing before it".into())
        }
        (Some("ip6"), Version::V4) => {
            Err("this is an IPv4 address behind `ip6`; write `ip` or nothing before it".into())
        }
        _ => Ok(net),
    }
}

fn port(word: &str) -> Result<u16, String> {
    if let Some(value) = number(word) {
        return u16::try_from(value)
            .map_err(|_| format!("`{word}` is no port; ports end at 65535"));
    }
    if word.parse::<IpAddr>().is_ok() {
        return Err(format!("`{word}` is an address where a port must be; write `host {word}`"));
    }
    if word.starts_with(|c: char| c.is_ascii_digit()) {
        return Err(if word.contains('-') {
            format!("`{word}` is a range; write `portrange {word}`")
        } else {
            format!("`{word}` is no port; write a number from 0 to 65535")
        });
    }
    let number = words::port(word).map_or(String::new(), |number| format!(", {number} for {word}"));
    Err(format!(
        "`{word}` would be a port's name, and names are not the same on every machine; write the \
         number{number}"
    ))
}

/// What IPv6's extension headers are: the headers' chain ends behind them.
const EXTENSIONS: [u32; 5] = [0, 43, 44, 51, 60];

fn protocol_number(word: &str, version: Option<Version>) -> Result<u8, String> {
    let value = match number(word) {
        Some(value) => value,
        None => words::protocol(word).map(u32::from).ok_or_else(|| {
            format!("`{word}` is no protocol known here; write its number, such as `proto 47`")
        })?,
    };
    if version == Some(Version::V6) && EXTENSIONS.contains(&value) {
        return Err(format!(
            "`{word}` is an extension header of IPv6, and `ip6 proto` looks behind those; leave it out"
        ));
    }
    u8::try_from(value).map_err(|_| format!("`{word}` is no protocol; numbers end at 255"))
}

/// A number as libpcap reads it: decimal, hexadecimal behind `0x`, octal behind `0`.
fn number(word: &str) -> Option<u32> {
    let (digits, radix) = if let Some(digits) = word.strip_prefix("0x").or(word.strip_prefix("0X"))
    {
        (digits, 16)
    } else if word.len() > 1 && word.starts_with('0') {
        (word, 8)
    } else {
        (word, 10)
    };
    u32::from_str_radix(digits, radix).ok()
}

/// One to four decimal numbers with dots between them, the highest first, and how many.
fn short_v4(word: &str) -> Option<(u32, u32)> {
    let mut bits = 0;
    let mut parts = 0;
    for part in word.split('.') {
        // A leading zero would mean octal to some and decimal to others.
        let plain = part == "0" || !part.starts_with(['0', '+']);
        if !plain || parts == 4 {
            return None;
        }
        bits = bits << 8 | u32::from(part.parse::<u8>().ok()?);
        parts += 1;
    }
    Some((bits.checked_shl(32 - 8 * parts).unwrap_or(0), parts))
}

fn looks_like_address(word: &str) -> bool {
    word.contains(':') || word.chars().all(|c| c.is_ascii_digit() || c == '.')
}

fn not_an_address(word: &str) -> String {
    format!(
        "`{word}` is no address; write four numbers up to 255 such as `10.0.0.1`, without leading \
         zeros, or an IPv6 address"
    )
}
