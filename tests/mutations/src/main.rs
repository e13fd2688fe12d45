//! `graven-mutations`: as many changed trails as are asked for, each by its seed.

use clap::Parser;
use std::process::ExitCode;
use std::time::Instant;

/// Changes trails in every way that is known, and verifies that `verify` finds each change.
#[derive(Debug, Parser)]
struct Cli {
    /// The first change.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// How many.
    #[arg(long, default_value_t = 1_000_000)]
    count: u64,
    /// Threads.
    #[arg(long, default_value_t = 2)]
    threads: usize,
}

fn main() -> ExitCode {
    let Cli { seed, count, threads } = Cli::parse();
    let began = Instant::now();
    match graven_mutations::campaign(seed..seed.saturating_add(count), threads) {
        Ok(stats) => {
            println!("no failure in {} s: {stats}", began.elapsed().as_secs());
            ExitCode::SUCCESS
        }
        Err(why) => {
            println!("{why:#}");
            ExitCode::FAILURE
        }
    }
}
