//! `--filter`: a pcap filter expression, compiled to the form that the kernel program and the replay run.
//!
//! The language is that of pcap-filter(7), a subset of it, with its precedence (`and` and `or` have the
//! same and associate to the left, `not` binds tighter) and its habit that a value without keywords takes
//! the last ones: `tcp port 80 or 443`.
//!
//! | | |
//! |---|---|
//! | protocols | `ip`, `ip6`, `tcp`, `udp`, `sctp`, `icmp`, `icmp6`, and `ah`, `esp`, `igmp`, `igrp`, `pim`, `vrrp`, `carp` |
//! | addresses | `host ADDRESS`, `net 10.0.0.0/8`, `net 192.168`, `net 10.0.0.0 mask 255.0.0.0`, IPv6 the same, behind `ip` or `ip6` if wanted |
//! | ports | `port N`, `portrange N-M`, behind `tcp`, `udp` or `sctp` if wanted |
//! | sides | `src`, `dst`, `src or dst` (what holds if none is given), `src and dst` |
//! | numbers | `proto N`, `ip proto N`, `ip6 proto N`, or a name: `proto gre` |
//! | tags | `vlan`, `vlan N` |
//! | joined by | `and`, `&&`, `or`, `\|\|`, `not`, `!`, parentheses |
//!
//! Everything else is refused with a sentence that says where it stands and what to write. Names of hosts
//! and of ports are refused too: what they stand for is not the same on every machine and at every time.
//!
//! A filter runs over the parsed headers, not over bytes at fixed places, so that nothing hides a packet
//! from it. Where libpcap's compiler looks less deep, this one differs:
//!
//! - **VLAN tags.** `tcp` is also TCP behind tags, and `vlan` moves nothing for what follows it. `vlan N` is
//!   true if one of the two outermost tags has that id; a priority tag (id 0) is none.
//! - **Fragments.** A later fragment has the ports of its datagram. If its first fragment was not seen, its
//!   port is 0, as in its flow.
//! - **IPv6 extension headers.** `tcp`, `port` and `proto` mean what lies behind them. So `ah` finds
//!   IPv4's authentication headers alone.
//! - **Packets that belong to no flow** (ARP, malformed headers) do not reach the filter.
//!
//! As with libpcap: `port` demands TCP, UDP or SCTP, so that ICMP's type and code are no ports; `icmp`,
//! `igmp` and `vrrp` are IPv4's, `icmp6` is IPv6's; an IPv4 address is never that of an IPv6 packet.

mod ast;
mod generate;
mod lexer;
mod parser;
mod values;
mod words;

use std::{error::Error, fmt, net::IpAddr};

use agent_common::filter::Program;

use self::lexer::Lexer;

/// Why an expression is no filter: a sentence, and the place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilterError {
    message: String,
    place: Option<Place>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Place {
    text: String,
    /// Characters before the place.
    column: usize,
}

impl FilterError {
    /// An error of the whole.
    fn whole(message: impl Into<String>) -> Self {
        Self { message: message.into(), place: None }
    }

    /// An error at a byte of an expression.
    fn at(text: &str, byte: usize, message: impl Into<String>) -> Self {
        let before = text.get(..byte).unwrap_or(text);
        let place = Place {
            // The caret must stand under its place in one line.
            text: text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect(),
            column: before.chars().count(),
        };
        Self { message: message.into(), place: Some(place) }
    }

    /// The place, in characters from 1 on; `None` if the whole expression is meant.
    pub fn column(&self) -> Option<usize> {
        self.place.as_ref().map(|place| place.column + 1)
    }
}

impl fmt::Display for FilterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(Place { text, column }) = &self.place else {
            return f.write_str(&self.message);
        };
        write!(f, "column {}: {}\n  {text}\n  {:column$}^", column + 1, self.message, "")
    }
}

impl Error for FilterError {}

/// Compiles a filter expression; every packet matches an empty one.
///
/// # Errors
///
/// What is not in the language, not in this subset of it, or needs more instructions than a program has.
pub fn compile(text: &str) -> Result<Program, FilterError> {
    let tokens = Lexer::new(text).collect::<Result<Vec<_>, _>>()?;
    match parser::parse(text, &tokens)? {
        Some(expression) => generate::program(&expression),
        None => Ok(Program::ALL),
    }
}

/// A program that also leaves out the TCP packets from and to an endpoint, so that the agent's own stream
/// does not feed itself.
///
/// # Errors
///
/// A program that has no room for it.
pub fn exclude(program: &Program, address: IpAddr, port: u16) -> Result<Program, FilterError> {
    generate::exclude(program, address.to_canonical(), port)
}

#[cfg(test)]
mod tests;
