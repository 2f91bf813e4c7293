//! The command line.

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, CommandFactory, Parser, Subcommand};
use clap_complete::Shell;

use crate::config::{self, Config, Faulty, Surroundings};
use crate::log::Format;
use crate::probe::Question;

/// The configuration if no file is named.
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
        /// Only what keeps `run` from starting: not what keys hold, which it waits for
        // For the script of the package: after an update it restarts a recorder only with a configuration that `run` takes.
        #[arg(long, hide = true)]
        as_run: bool,
    },
    /// Look at what a camera sends, and what to change about it
    Probe(Probe),
    /// Ask the recorder on this machine whether it works
    Healthcheck {
        /// Its configuration, for `listen`
        file: Option<PathBuf>,
    },
    /// Write the completions of a shell to standard output
    #[command(hide = true)]
    Completions {
        /// For which shell
        shell: Shell,
    },
    /// Write the manual page to standard output
    #[command(hide = true)]
    Man,
}

/// Arguments of `probe`: keys of `[[camera]]`.
#[derive(Debug, Args)]
pub struct Probe {
    /// Where the camera sends from, without a password in it
    url: String,
    /// Write one JSON object
    #[arg(long)]
    pub json: bool,
    /// User name at the camera
    #[arg(long)]
    username: Option<String>,
    /// File that holds its password
    #[arg(long)]
    password_file: Option<String>,
    /// tcp, udp or auto
    #[arg(long)]
    transport: Option<String>,
    /// PEM file of the authorities that may have signed its certificate
    #[arg(long)]
    ca_file: Option<String>,
    /// SHA-256 of its certificate
    #[arg(long)]
    tls_fingerprint: Option<String>,
    /// Measure for this many seconds
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(2..=600))]
    seconds: u64,
}

impl Probe {
    /// Returns the keys and the duration for `probe`.
    pub fn question(&self) -> Question {
        let keys = [
            ("url", Some(&self.url)),
            ("username", self.username.as_ref()),
            ("password-file", self.password_file.as_ref()),
            ("transport", self.transport.as_ref()),
            ("ca-file", self.ca_file.as_ref()),
            ("tls-fingerprint", self.tls_fingerprint.as_ref()),
        ];
        Question {
            keys: keys
                .into_iter()
                .filter_map(|(key, value)| Some((key, value?.clone())))
                .collect(),
            time: Duration::from_secs(self.seconds),
        }
    }
}

/// Returns the completions of a shell, for packages.
pub fn completions(shell: Shell) -> Vec<u8> {
    let mut text = Vec::new();
    let mut command = Cli::command();
    let name = command.get_name().to_owned();
    clap_complete::generate(shell, &mut command, name, &mut text);
    text
}

/// Returns the manual page in roff, for packages.
///
/// # Errors
/// None in practice: the page is written to memory.
pub fn manual() -> std::io::Result<Vec<u8>> {
    let mut text = Vec::new();
    let mut command = Cli::command();
    command.build();
    let page = clap_mangen::Man::new(command.clone());
    page.render_title(&mut text)?;
    page.render_name_section(&mut text)?;
    page.render_synopsis_section(&mut text)?;
    page.render_description_section(&mut text)?;
    writeln!(text, ".SH COMMANDS")?;
    for subcommand in command
        .get_subcommands_mut()
        .filter(|one| !one.is_hide_set() && one.get_name() != "help")
    {
        let usage = subcommand.render_usage().to_string();
        let about = subcommand.get_about().map(ToString::to_string).unwrap_or_default();
        writeln!(
            text,
            ".SS {}\n{}",
            escaped(usage.trim_start_matches("Usage: ")),
            escaped(&about)
        )?;
        for argument in subcommand.get_arguments().filter(|one| one.get_id() != "help") {
            let help = argument.get_help().map(ToString::to_string).unwrap_or_default();
            writeln!(text, ".TP\n\\fB{}\\fR\n{}", escaped(&argument.to_string()), escaped(&help))?;
        }
    }
    text.write_all(MANUAL_END.as_bytes())?;
    Ok(text)
}

/// Escapes a text for roff. It typesets a plain `-` as a typographic hyphen, which searching and copying do not recognise.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\e").replace('-', "\\-")
}

const MANUAL_END: &str = "\
.SH EXIT STATUS
.TP
0
Ended on request, or without a fault
.TP
2
The configuration is bad, and nothing was started
.TP
1
Anything else
.SH SIGNALS
SIGHUP reads the configuration again: it is checked whole first, and only what has changed begins anew.
SIGINT and SIGTERM end the recorder within half a minute.
.SH FILES
.TP
/etc/gcstreamer\\-recorder.toml
The configuration, unless another is named
.TP
/usr/share/doc/gcstreamer\\-recorder/recorder.md
Every key of the configuration, and every environment variable
";

/// Whether the environment replaces the file if none is named.
fn is_without_file() -> bool {
    std::env::var("RTSP_URL").is_ok_and(|url| !url.is_empty())
}

/// Reads the named file. Without one, reads the environment if `RTSP_URL` is set, otherwise the default file.
///
/// # Errors
/// Every fault.
pub fn configuration(file: Option<&Path>) -> Result<Config, Faulty> {
    match file {
        Some(file) => config::load(file, false),
        None if is_without_file() => in_environment(|name| std::env::var(name).ok()),
        None => config::load(Path::new(DEFAULT_FILE), false),
    }
}

/// Checks a file and everything that it names; with `as_run`, only what `run` checks.
///
/// # Errors
/// Every fault.
pub fn check(file: &Path, as_run: bool) -> Result<(), Faulty> {
    config::load(file, !as_run).map(drop)
}

fn in_environment(variable: impl Fn(&str) -> Option<String>) -> Result<Config, Faulty> {
    let surroundings = Surroundings {
        folder: std::env::current_dir().unwrap_or_default(),
        state_directory: config::state_directory(variable("STATE_DIRECTORY").as_deref()),
        looks_at_files: true,
        reads_keys: false,
    };
    config::from_environment(variable, &surroundings)
}

/// Returns where the recorder on this machine serves its state, for `healthcheck`; `None`: nowhere. `file`: as for
/// [`configuration`].
pub fn listens(file: Option<&Path>) -> Option<SocketAddr> {
    let file = match file {
        Some(file) => Some(file),
        None if is_without_file() => None,
        None => Some(Path::new(DEFAULT_FILE)),
    };
    let text = file.and_then(|file| std::fs::read_to_string(file).ok());
    config::listens(text.as_deref(), std::env::var("LISTEN").ok().as_deref())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_several_state_folders_is_the_spool_of_a_camera_from_the_environment_too() {
        let config = in_environment(|name| {
            let value = match name {
                "RTSP_URL" => "rtsp://h/",
                "DEVICE_ID" => "cam",
                "BUCKET" => "my-bucket",
                "STATE_DIRECTORY" => "/var/lib/gcstreamer:/var/lib/other",
                _ => return None,
            };
            Some(value.to_owned())
        });
        assert_eq!(config.unwrap().spool_dir, Some(PathBuf::from("/var/lib/gcstreamer")));
    }
}
