//! Writes the seeds of a fuzz target into a folder: `fuzz_seeds TARGET FOLDER`. For `cargo xtask fuzz`.

use std::{env, fs, io, process::ExitCode};

use feature_agent_tests::fuzz::{TARGETS, target};

fn main() -> ExitCode {
    let args: Vec<String> = env::args().skip(1).collect();
    let [name, folder] = &args[..] else {
        for target in TARGETS {
            println!("{}", target.name);
        }
        return ExitCode::SUCCESS;
    };
    let Some(target) = target(name) else {
        eprintln!("there is no target `{name}`");
        return ExitCode::FAILURE;
    };
    let written = || -> io::Result<usize> {
        fs::create_dir_all(folder)?;
        let seeds = (target.seeds)();
        for (at, seed) in seeds.iter().enumerate() {
            fs::write(format!("{folder}/seed-{at}"), seed)?;
        }
        Ok(seeds.len())
    };
    match written() {
        Ok(count) => {
            println!("{count} seeds in {folder}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("cannot write seeds into {folder}: {error}");
            ExitCode::FAILURE
        }
    }
}
