//! The command line.

use std::path::{Path, PathBuf};

use clap::{Parser, Subcommand};

use crate::config::{self, Config, Faulty, Surroundings};
use crate::log::Format;

/// Where the configuration is unless a file is named.
pub const DEFAULT_FILE: &str = "/etc/gcstreamer-recorder.toml";

/// Keeps cameras recorded in Google Cloud Storage.
#[derive(Debug, Parser)]
#[command(name = "gcstreamer-recorder", version, about)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Record every camera of the file, or the one that RTSP_URL, DEVICE_ID and BUCKET name
    Run {
        /// The configuration
        file: Option<PathBuf>,
        /// How to log
        #[arg(long, value_enum, default_value_t)]
        log: Format,
    },
    /// List every fault of a configuration, one a line
    Check {
        /// The configuration
        file: PathBuf,
    },
    /// Ask the recorder on this machine whether it works
    Healthcheck {
        /// Its configuration, for `listen`
        file: Option<PathBuf>,
    },
}

/// Reads the file that is named, or the environment if `RTSP_URL` is set, or the default file.
///
/// # Errors
/// Every fault.
pub fn configuration(file: Option<&Path>) -> Result<Config, Faulty> {
    let variable = |name: &str| std::env::var(name).ok();
    match file {
        Some(file) => config::load(file),
        None if variable("RTSP_URL").is_some_and(|url| !url.is_empty()) => {
            let surroundings = Surroundings {
                folder: std::env::current_dir().unwrap_or_default(),
                state_directory: variable("STATE_DIRECTORY").filter(|dir| !dir.is_empty()).map(PathBuf::from),
                looks_at_files: true,
            };
            config::from_environment(variable, &surroundings)
        }
        None => config::load(Path::new(DEFAULT_FILE)),
    }
}
