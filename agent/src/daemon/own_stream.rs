//! The agent's own stream is no traffic: what goes to the servers that take its vectors is left out, or each vector
//! would make packets, and they vectors.

use agent_common::filter::Program;
use anyhow::{Context as _, Result};
use tracing::{info, warn};

use crate::{filter, sink::Plan};

/// The filter that also leaves out every packet to and from the servers that vectors go to, as their names are looked
/// up now.
pub(super) fn leave_out(filter: &Program, plan: &Plan) -> Result<Program> {
    let mut filter = *filter;
    let mut left_out = Vec::new();
    for target in &plan.targets {
        let Some(remote) = target.remote() else { continue };
        let why = || format!("the packets to {target} cannot be left out of the flows");
        let further = target.further_servers().unwrap_or_else(|error| {
            warn!("{target} does not name its other servers, whose packets are no exception: {error:#}");
            Vec::new()
        });
        for server in remote.servers.iter().chain(&further) {
            for address in server.addresses().with_context(why)? {
                if left_out.contains(&address) {
                    continue;
                }
                left_out.push(address);
                filter =
                    filter::exclude(&filter, address.ip(), address.port()).with_context(why)?;
                info!("packets to and from {address} are left out: vectors go there");
            }
        }
    }
    Ok(filter)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(outputs: &[&str]) -> Plan {
        let targets = outputs.iter().map(|text| text.parse().expect("an output"));
        Plan { targets: targets.collect(), ..Plan::default() }
    }

    #[test]
    fn every_server_is_left_out() {
        let left_out = |outputs: &[&str]| {
            leave_out(&Program::ALL, &plan(outputs)).map(|p| p.instructions().len())
        };
        assert_eq!(left_out(&["-", "unix:/x", "file"]).expect("no servers"), 0);
        let one = left_out(&["-", "nats://127.0.0.1:4222/x"]).expect("one server");
        let two = left_out(&["nats://127.0.0.1:4222,127.0.0.1:4223/x"]).expect("two servers");
        assert!(one > 0 && two > one, "{one}, {two}");
        let again = left_out(&["nats://127.0.0.1:4222/x", "nats://127.0.0.1:4222/y"]);
        assert_eq!(again.expect("one server"), one);
    }

    #[test]
    fn one_that_is_not_found_is_an_error_that_names_it() {
        let error = leave_out(&Program::ALL, &plan(&["nats://a:b@no-such-host.invalid/x"]));
        let text = format!("{:#}", error.expect_err("no such host"));
        let begin = "the packets to nats://no-such-host.invalid:4222/x cannot be left out of the flows: \
                     cannot find the address of no-such-host.invalid:4222: ";
        assert!(text.starts_with(begin), "{text}");
    }
}
