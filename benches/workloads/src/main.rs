//! Runs one workload under valgrind: `graven-work NAME RUNS`; or `graven-work processor`, for what the processor is
//! seen to have.

use graven_workloads::{WORKLOADS, counted_region, processor};
use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let (name, runs) = match args[..] {
        ["processor"] => {
            println!("{}", processor());
            return ExitCode::SUCCESS;
        }
        [name, runs] => (name, runs.parse().ok()),
        _ => ("", None),
    };
    let workload = WORKLOADS.iter().find(|workload| workload.name == name);
    let Some((workload, runs)) = workload.zip(runs) else {
        eprintln!("usage: graven-work processor | NAME RUNS, NAME one of");
        WORKLOADS.iter().for_each(|workload| eprintln!("  {}", workload.name));
        return ExitCode::from(2);
    };
    let mut work = (workload.prepare)();
    (work.run)();
    counted_region(&mut work.run, runs);
    ExitCode::SUCCESS
}
