//! One program that hears every protocol in the building and gives back one clean FHIR record.
//!
//! Configuration, composition, command line; no logic of its own.

mod certificates;
mod cli;
mod commands;
mod config;
mod doors;
mod files;
mod notify;
mod serve;

use std::process::ExitCode;

use clap::Parser;
use cli::{Cli, Command};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Exit code of a wrong configuration or an edge that cannot start.
const EXIT_CONFIGURATION: u8 = 2;

fn main() -> ExitCode {
    // the allocator asks for huge pages, which made an idle edge 18 MB larger and nothing faster
    let _ = rustix::thread::disable_transparent_huge_pages(true);
    let cli = Cli::parse();
    // the one crypto provider of the process; libraries find no other
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    match run(cli) {
        Ok(code) => code,
        Err(error) => {
            report(&error);
            ExitCode::from(EXIT_CONFIGURATION)
        }
    }
}

fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    let config = config::Config::load(cli.config.as_deref())?;
    match cli.command.unwrap_or(Command::Serve(cli::Serve::default())) {
        Command::Serve(arguments) => serve::run(config, &arguments),
        Command::Check => commands::check::run(&config),
        Command::DevCerts(arguments) => commands::dev_certs::run(&arguments),
        Command::Site(arguments) => commands::site::run(&config, &arguments),
        Command::Key(arguments) => commands::key::run(&config, &arguments),
        Command::Map(arguments) => commands::map::run(&config, &arguments),
        Command::Send(arguments) => commands::send::run(&arguments),
        Command::Deliveries(arguments) => commands::deliveries::run(&config, &arguments),
        Command::Study(arguments) => commands::study::run(&config, &arguments),
        Command::Submissions(arguments) => commands::submissions::run(&config, &arguments),
        Command::Migrate => commands::migrate::run(&config),
        Command::Backup { out } => commands::backup::backup(&config, &out),
        Command::Restore { from } => commands::backup::restore(&config, &from),
        Command::Fsck(arguments) => commands::fsck::run(&config, &arguments),
        Command::Health(arguments) => commands::health::run(&arguments),
    }
}

#[expect(clippy::print_stderr, reason = "the last word of the program")]
fn report(error: &anyhow::Error) {
    eprintln!("hilum: {error:#}");
}
