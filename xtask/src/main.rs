//! The project's chores: `cargo xtask COMMAND`, one file per command.
//!
//! Standard library first: this crate is compiled before anything else on a fresh machine.

mod bench;
mod build_ebpf;
mod ci;
mod clean_root;
mod demo;
mod deny;
mod endurance;
mod fuzz;
mod kafka;
mod package;
mod project;
mod root;
mod run;
mod sbom;
mod shell;
mod strip;
mod test;
mod tidy;
mod tools;
mod unpacked;
mod vm;

use std::{env, process::ExitCode};

use anyhow::{Result, bail};

/// What `cargo xtask help` prints.
const HELP: &str = "\
cargo xtask COMMAND

  run [-- ARGS]          build the agent and watch the interface of the default route, as root;
                         ARGS replace `--iface NAME`, for instance: -- --iface eth1 --window 32
  demo [-- ARGS]         15 s of real traffic between two network namespaces, and the agent on it;
                         ARGS go to the agent, for instance: -- --window 16 --shape array
  test [-- ARGS]         every test, those on the real kernel as root, and beside them what `vm` does; ARGS go
                         to the test programs (and no other kernels are tested), for instance:
                         -- --test-threads 1 tcp_bulk
  bench [--quick] [--json FILE] [FILTER]
                         what a packet, a flow, a vector and the daemon cost, in 2 minutes, as root, and
                         a call on a socket, where need be in a virtual machine, in 2 more;
                         FILTER: only rows or sections with this in their name; --quick: each once;
                         --json: every sample of this machine goes to FILE instead of target/bench.json
  endurance [VECTORS [SINK]]
                         ten million vectors, or so many, through each sink: every one is received, or
                         counted and told about
  build-ebpf [--check]   rebuild the kernel program; --check: compare it with the committed one
  ci                     format, lints, kernel program, docs, tidy
  deny                   licences, sources and known faults of every crate
  fuzz [TARGET] [-- ARGS]
                         a fuzz target until it is stopped, or each for 2 minutes; ARGS go to
                         libFuzzer, for instance: parse -- -max_total_time=600
  package [--test]       a static program, a .deb, a tarball and an SBOM in target/package;
                         --test: install it in a clean Debian, run it there, and its units under
                         systemd, as root; --test-if-possible: as far as this machine lets it
  vm [--all] [KERNEL…] [-- TEST…]
                         the tests on the real kernel, in virtual machines with Linux 6.1 and 6.12, or with
                         those named; --all: also 6.18, the newest, and 5.10, which is refused; TEST: only
                         those with this in their name
  tidy                   rules no compiler knows: line ends, file sizes, documents
";

fn main() -> ExitCode {
    let args: Vec<String> = env::args().skip(1).collect();
    match dispatch(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Runs the command that the arguments name.
fn dispatch(args: &[String]) -> Result<()> {
    let (command, rest) = match args.split_first() {
        Some((command, rest)) => (command.as_str(), rest),
        None => ("help", args),
    };
    match command {
        "bench" => bench::bench(rest),
        "build-ebpf" => match rest {
            [] => build_ebpf::build(),
            [flag] if flag == "--check" => build_ebpf::check(),
            _ => bail!("`build-ebpf` takes nothing or `--check`"),
        },
        "ci" => no_arguments(command, rest).and_then(|()| ci::ci()),
        "demo" => demo::demo(after_dashes(command, rest)?),
        "demo-client" => demo::client(rest),
        "demo-server" => demo::server(),
        "endurance" => endurance::endurance(rest),
        "demo-stage" => demo::stage(rest),
        "deny" => {
            no_arguments(command, rest).and_then(|()| deny::deny()).map(|unchecked| unchecked.say())
        }
        "fuzz" => fuzz::fuzz(rest),
        "package" => package::package(rest),
        "run" => run::run(after_dashes(command, rest)?),
        "test" => test::test(after_dashes(command, rest)?),
        "tidy" => no_arguments(command, rest).and_then(|()| tidy::tidy()),
        "vm" => vm::vm(rest),
        "help" | "--help" | "-h" => {
            print!("{HELP}");
            Ok(())
        }
        unknown => bail!("there is no command `{unknown}`; `cargo xtask help` lists them"),
    }
}

/// What follows `--`, for commands that pass arguments on.
fn after_dashes<'a>(command: &str, args: &'a [String]) -> Result<&'a [String]> {
    match args.split_first() {
        None => Ok(&[]),
        Some((dashes, rest)) if dashes == "--" => Ok(rest),
        Some((other, _)) => {
            bail!("`{command}` passes on what follows `--`: … {command} -- {other}")
        }
    }
}

/// Refuses arguments, for commands that have none.
fn no_arguments(command: &str, args: &[String]) -> Result<()> {
    match args {
        [] => Ok(()),
        _ => bail!("`{command}` takes no arguments"),
    }
}
