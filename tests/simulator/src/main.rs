//! `graven-sim`: one life of a trail by its seed, or as many as there is time for.

use anyhow::{Context, bail};
use clap::{Args, Parser, Subcommand};
use graven_simulator::{Lie, campaign, describe, live, report};
use std::ops::Range;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// Lives of a trail on a simulated disk.
#[derive(Debug, Parser)]
#[command(name = "graven-sim", subcommand_negates_reqs = true)]
struct Cli {
    /// Live the life of this seed.
    #[arg(long, required = true)]
    seed: Option<u64>,
    /// Print every operation.
    #[arg(long)]
    verbose: bool,
    /// Let the disk lie in this way, as in `EarlyWrite`.
    #[arg(long)]
    lie: Option<String>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Live many lives and print what has happened in all of them.
    Campaign(Campaign),
}

#[derive(Debug, Args)]
struct Campaign {
    /// The seeds, as in `0..1000`.
    #[arg(long, value_parser = range)]
    seeds: Range<u64>,
    /// Stop after so many minutes.
    #[arg(long)]
    minutes: Option<u64>,
    /// Threads.
    #[arg(long, default_value_t = 1)]
    threads: usize,
}

fn range(text: &str) -> anyhow::Result<Range<u64>> {
    let (start, end) = text.split_once("..").context("a range is two numbers with .. between")?;
    Ok(start.parse()?..end.parse()?)
}

fn main() -> anyhow::Result<ExitCode> {
    let cli = Cli::parse();
    if let Some(Command::Campaign(Campaign { seeds, minutes, threads })) = cli.command {
        let began = Instant::now();
        let until = minutes.map(|minutes| began + Duration::from_secs(60 * minutes));
        return Ok(match campaign(seeds, threads, until) {
            Ok(stats) => {
                println!("no failure in {} s: {stats}", began.elapsed().as_secs());
                ExitCode::SUCCESS
            }
            Err(report) => {
                println!("{report}");
                ExitCode::FAILURE
            }
        });
    }
    let Some(seed) = cli.seed else { bail!("a seed is needed") };
    let lie = cli.lie.map(|name| {
        let found = Lie::ALL.into_iter().find(|lie| format!("{lie:?}") == name);
        found.with_context(|| format!("{name} is none of {:?}", Lie::ALL))
    });
    let lie = lie.transpose()?;
    match live(seed, lie, cli.verbose) {
        Ok(summary) => {
            summary.trace.iter().for_each(|line| println!("{line}"));
            println!("no failure, trace {:016x}: {}", summary.trace_hash, summary.stats);
            Ok(ExitCode::SUCCESS)
        }
        Err(failure) if cli.verbose => {
            failure.trace.iter().for_each(|line| println!("{line}"));
            println!("{}", describe(&failure));
            Ok(ExitCode::FAILURE)
        }
        Err(_) => {
            println!("{}", report(seed, lie));
            Ok(ExitCode::FAILURE)
        }
    }
}
