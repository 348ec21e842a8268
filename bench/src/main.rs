//! Ours beside the floor, in one run: what the same work costs with nothing of ours in the way.
//!
//! See README.md of this directory for what each floor is and how to read the ratios.

mod attached;
mod counts;
mod floor;
mod measure;
mod report;
mod rig;
mod serve;
mod stats;

use std::process::ExitCode;

use clap::Parser;

use measure::Measurement;
use report::Report;
use rig::Rig;

/// Measures StacyVM beside the floor of each measurement and prints both with their ratio.
#[derive(Debug, Parser)]
#[command(name = "bench", version)]
struct Args {
    /// Only this measurement; may be given more than once.
    #[arg(long, value_name = "NAME", value_enum)]
    only: Vec<Measurement>,
    /// Fewer rounds and less data: to see that everything works. Its numbers say little.
    #[arg(long)]
    quick: bool,
    /// The image of all sandboxes; it must be there.
    #[arg(long, default_value = "stacyvm/base:local")]
    image: String,
}

#[tokio::main]
async fn main() -> ExitCode {
    let args = Args::parse();
    let rig = match Rig::new(&args.image, args.quick) {
        Ok(rig) => rig,
        Err(error) => {
            report::progress(&format!("cannot start: {error:#}"));
            return ExitCode::FAILURE;
        }
    };
    let wanted = if args.only.is_empty() { Measurement::ALL.to_vec() } else { args.only };
    let mut report = Report::default();
    let interrupted = tokio::select! {
        () = measure_all(&rig, &wanted, &mut report) => false,
        _ = tokio::signal::ctrl_c() => true,
    };
    rig.clean_up().await;
    report.print(args.quick);
    if interrupted { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// One that cannot be measured does not stop the others: it is reported with its reason.
async fn measure_all(rig: &Rig, wanted: &[Measurement], report: &mut Report) {
    for measurement in wanted {
        report::progress(&format!("{} ...", measurement.name()));
        match measurement.run(rig).await {
            Ok(rows) => report.rows.extend(rows),
            Err(error) => report.not_measured(measurement.name(), &error),
        }
    }
}
