//! `gcstreamer-recorder`: see the library.

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;
use gcstreamer_recorder::cli::{Cli, Command, configuration};
use gcstreamer_recorder::{app, cli, http, log, probe};

/// Exit status for a bad configuration; nothing was started.
const BAD_CONFIGURATION: u8 = 2;

fn complain(text: &impl std::fmt::Display) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// Writes to standard output. Fails, but does not panic as `print!` would, if the reader has closed it.
fn write_out(text: &[u8]) -> ExitCode {
    match std::io::stdout().write_all(text) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn look_at_camera(arguments: &cli::Probe) -> ExitCode {
    let question = arguments.question();
    let config = match question.config() {
        Ok(config) => config,
        Err(faulty) => {
            complain(&faulty);
            return ExitCode::from(BAD_CONFIGURATION);
        }
    };
    match probe::run(&config, question.time) {
        Ok(findings) => {
            let text = match arguments.json {
                true => format!("{}\n", findings.json()),
                false => findings.text(),
            };
            let is_recordable = findings.is_recordable();
            if write_out(text.as_bytes()) == ExitCode::SUCCESS && is_recordable {
                return ExitCode::SUCCESS;
            }
            ExitCode::FAILURE
        }
        Err(error) => {
            complain(&error);
            ExitCode::FAILURE
        }
    }
}

fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Run { file, log: format } => match configuration(file.as_deref()) {
            Ok(config) => {
                log::begin(format);
                match app::run(config, file.as_deref()) {
                    Ok(()) => ExitCode::SUCCESS,
                    Err(error) => {
                        complain(&error);
                        ExitCode::FAILURE
                    }
                }
            }
            Err(faulty) => {
                complain(&faulty);
                ExitCode::from(BAD_CONFIGURATION)
            }
        },
        Command::Check { file, as_run } => match cli::check(&file, as_run) {
            Ok(()) => ExitCode::SUCCESS,
            Err(faulty) => {
                complain(&faulty);
                ExitCode::from(BAD_CONFIGURATION)
            }
        },
        Command::Probe(arguments) => look_at_camera(&arguments),
        Command::Completions { shell } => write_out(&cli::completions(shell)),
        Command::Man => match cli::manual() {
            Ok(page) => write_out(&page),
            Err(error) => {
                complain(&error);
                ExitCode::FAILURE
            }
        },
        Command::Healthcheck { file } => match cli::listens(file.as_deref()).map(http::check) {
            Some(Ok(())) => ExitCode::SUCCESS,
            Some(Err(text)) => {
                complain(&text);
                ExitCode::FAILURE
            }
            None => {
                complain(&"listen = \"\": there is no address to ask");
                ExitCode::FAILURE
            }
        },
    }
}
