//! The commands that need no server: `export`, `verify`, `completions`, `man`.
//!
//! Reads the bucket, writes the named files, standard output and standard error.

use std::ffi::{OsStr, OsString};
use std::io::{IsTerminal as _, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use clap::{Args, CommandFactory as _};
use gcstreamer_schema::limits::check_bucket;
use gcstreamer_schema::name::check_device;
use gcstreamer_schema::time::parse_rfc3339;
use gcstreamer_storage::{ClientPool, GcsReader};

use crate::clock::SystemClock;
use crate::export::manifest::Manifest;
use crate::export::{Format, LONGEST, Plan, Request, Selection};
use crate::index::{HOUR, Index};
use crate::settings::{Cli, DEFAULT_LOCATION, Reading, template};

/// The flags of export.
#[derive(Clone, Debug, Args)]
pub struct ExportFlags {
    /// Bucket with the recordings
    #[arg(long, env = "GCSTREAMER_DASHBOARD_BUCKET")]
    pub bucket: String,
    /// Device id of the camera
    #[arg(long)]
    pub camera: String,
    /// Beginning, RFC 3339, e.g. 2026-11-22T14:00:00Z
    #[arg(long)]
    pub from: String,
    /// End, at most 24 h later
    #[arg(long)]
    pub to: String,
    /// mp4: exactly the range; native: the chunks that it touches, joined as they are
    #[arg(long, default_value = "mp4")]
    pub format: Format,
    /// Write the manifest into this file; verify needs it
    #[arg(long)]
    pub manifest: Option<PathBuf>,
    /// How to read it.
    #[command(flatten)]
    pub reading: Reading,
    /// File to write; what is there is replaced once the export is whole
    pub out: PathBuf,
}

/// The flags of verify.
#[derive(Clone, Debug, Args)]
pub struct VerifyFlags {
    /// Object names, as the property location of gcssink: they hold times and numbers, which are checked
    #[arg(long, env = "GCSTREAMER_DASHBOARD_LOCATION", default_value = DEFAULT_LOCATION)]
    pub location: String,
    /// The manifest of the export
    pub manifest: PathBuf,
    /// The exported file
    pub file: PathBuf,
}

/// Why a command failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// Wrong arguments: exit status 2.
    #[error("{0}")]
    Usage(String),
    /// Anything else: exit status 1.
    #[error("{0}")]
    Other(String),
}

fn other(error: impl std::fmt::Display) -> Failure {
    Failure::Other(error.to_string())
}

impl ExportFlags {
    fn request(&self) -> Result<Request, Failure> {
        let usage = |text: String| Failure::Usage(text);
        check_bucket(&self.bucket).map_err(|fault| usage(format!("--bucket: {fault}")))?;
        check_device(&self.camera).map_err(|fault| usage(format!("--camera: {fault}")))?;
        let time = |name: &str, text: &str| {
            parse_rfc3339(text).ok_or_else(|| usage(format!("{name} is not a time; write it as 2026-11-22T14:00:00Z")))
        };
        let (from, to) = (time("--from", &self.from)?, time("--to", &self.to)?);
        if to <= from || to - from > LONGEST {
            let hours = LONGEST / HOUR;
            return Err(usage(format!(
                "--to must lie behind --from, by at most {hours} h; export longer times in parts"
            )));
        }
        Ok(Request {
            camera: self.camera.clone(),
            from,
            to,
            format: self.format,
        })
    }

    fn index(&self) -> Result<Index, Failure> {
        let endpoint = self.reading.endpoint().map_err(Failure::Usage)?;
        let template = template(&self.reading.location).map_err(Failure::Usage)?;
        let reader = GcsReader::new(&ClientPool::global(), endpoint, self.reading.credentials());
        Ok(Index::new(reader, self.bucket.clone(), template, Arc::new(SystemClock), None))
    }
}

/// Exports a range into a file.
///
/// # Errors
/// [`Failure`]; the output file is unchanged then, or absent if it was absent before.
pub async fn export(flags: &ExportFlags) -> Result<(), Failure> {
    let (request, index) = (flags.request()?, flags.index()?);
    let is_out = |path: &PathBuf| place(path) == place(&flags.out);
    if flags.manifest.as_ref().is_some_and(is_out) {
        let text = format!(
            "the manifest would replace the recording: --manifest and OUT are both {}",
            flags.out.display()
        );
        return Err(Failure::Usage(text));
    }
    tracing::info!(
        camera = request.camera,
        from = flags.from,
        to = flags.to,
        format = request.format.name(),
        "exporting"
    );
    // Created first: a file that cannot be written must fail before a day of chunks is read.
    let out = Unfinished::create(&flags.out)?;
    let manifest = flags.manifest.as_deref().map(Unfinished::create).transpose()?;
    let selection = Selection::of(&index, request).await.map_err(other)?;
    let (count, done) = (selection.count(), AtomicUsize::new(0));
    let plan = {
        let mut shown = Shown::new("reading");
        let planning = selection.plan(&index, &done);
        tokio::pin!(planning);
        loop {
            tokio::select! {
                plan = &mut planning => break plan.map_err(other)?,
                () = tokio::time::sleep(Duration::from_millis(250)) => shown.show(done.load(Ordering::Relaxed) as u64, count as u64),
            }
        }
    };
    let plan = Arc::new(plan);
    write(&plan, &index, &out.path).await?;
    out.finish(&flags.out)?;
    if let (Some((unfinished, path)), Some(manifest)) = (manifest.zip(flags.manifest.as_deref()), plan.manifest()) {
        let fault = |error: std::io::Error| Failure::Other(format!("{}: {error}", path.display()));
        std::fs::write(&unfinished.path, manifest.to_json()).map_err(fault)?;
        unfinished.finish(path)?;
    }
    Ok(())
}

/// Returns the canonical folder and the file name of a path, to compare paths that are spelled differently. Does not resolve a
/// link in the last part: the link itself is replaced, not its target.
fn place(path: &Path) -> (PathBuf, Option<&OsStr>) {
    let folder = path
        .parent()
        .filter(|folder| *folder != Path::new(""))
        .unwrap_or(Path::new("."));
    (folder.canonicalize().unwrap_or_else(|_| folder.into()), path.file_name())
}

/// A temporary file beside its destination: in the same folder, so that it can be renamed. Removed when dropped unfinished, also
/// when the program is interrupted.
struct Unfinished {
    path: PathBuf,
}

impl Unfinished {
    fn create(becomes: &Path) -> Result<Self, Failure> {
        let fault = |text: String| Failure::Other(format!("{}: {text}", becomes.display()));
        // The rename at the end would put a file in the place of a device such as /dev/null.
        if std::fs::metadata(becomes).is_ok_and(|known| !known.is_file()) {
            return Err(fault("is there, and no file".into()));
        }
        let mut name = OsString::from(".");
        name.push(becomes.file_name().unwrap_or_default());
        // The process id keeps apart two exports that run at once into the same file.
        name.push(format!(".{}.unfinished", std::process::id()));
        let path = becomes.with_file_name(name);
        std::fs::File::create(&path).map_err(|error| fault(error.to_string()))?;
        Ok(Self { path })
    }

    fn finish(self, becomes: &Path) -> Result<(), Failure> {
        std::fs::rename(&self.path, becomes).map_err(|error| Failure::Other(format!("{}: {error}", becomes.display())))
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

async fn write(plan: &Arc<Plan>, index: &Index, path: &Path) -> Result<(), Failure> {
    let fault = |error: std::io::Error| Failure::Other(format!("{}: {error}", path.display()));
    let mut file = std::fs::File::create(path).map_err(fault)?;
    let (mut reading, mut shown, mut sum) = (plan.bytes(0..plan.size), Shown::new("writing"), 0);
    while let Some(piece) = reading.next(index).await.map_err(other)? {
        file.write_all(&piece).map_err(fault)?;
        sum += piece.len() as u64;
        shown.show(sum, plan.size);
    }
    // Before the rename: after a crash the final name must not be that of a truncated file.
    file.sync_all().map_err(fault)
}

/// A line of progress on standard error. Shows nothing if that is not a terminal.
struct Shown {
    what: &'static str,
    percent: Option<u64>,
    is_terminal: bool,
}

impl Shown {
    fn new(what: &'static str) -> Self {
        Self {
            what,
            percent: None,
            is_terminal: std::io::stderr().is_terminal(),
        }
    }

    fn show(&mut self, done: u64, of: u64) {
        let percent = done * 100 / of.max(1);
        if self.is_terminal && self.percent != Some(percent) {
            self.percent = Some(percent);
            let _ = write!(std::io::stderr(), "\r{} {percent} % ", self.what);
        }
    }
}

impl Drop for Shown {
    fn drop(&mut self) {
        // The line has no line break: what is printed next would stand behind it.
        if self.percent.is_some() {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}

/// Compares a file with its manifest, without the network. Returns whether it is whole. Prints what is wrong to standard output.
///
/// # Errors
/// [`Failure`]: a file cannot be read.
pub fn verify(flags: &VerifyFlags) -> Result<bool, Failure> {
    // A usage error, for exit status 2: 1 means that the file is not whole.
    let fault = |path: &Path, error: &dyn std::fmt::Display| Failure::Usage(format!("{}: {error}", path.display()));
    let text = std::fs::read(&flags.manifest).map_err(|error| fault(&flags.manifest, &error))?;
    let manifest: Manifest = serde_json::from_slice(&text).map_err(|error| fault(&flags.manifest, &error))?;
    let file = std::fs::File::open(&flags.file).map_err(|error| fault(&flags.file, &error))?;
    let faults = manifest
        .verify(file, &template(&flags.location).map_err(Failure::Usage)?)
        .map_err(|error| fault(&flags.file, &error))?;
    let mut out = std::io::stdout();
    for line in &faults {
        let _ = writeln!(out, "{line}");
    }
    if faults.is_empty() {
        let count = manifest.objects.len();
        let _ = writeln!(out, "whole: {count} chunks of {}, {} bytes", manifest.camera, manifest.size);
    }
    Ok(faults.is_empty())
}

/// Writes the completions for a shell to standard output.
pub fn completions(shell: clap_complete::Shell) {
    clap_complete::generate(shell, &mut Cli::command(), "gcstreamer-dashboard", &mut std::io::stdout());
}

/// Writes the manual page to standard output: the flags of the server, then those of each command.
///
/// # Errors
/// Standard output cannot be written.
pub fn man() -> std::io::Result<()> {
    let cli = Cli::command();
    let mut page = Vec::new();
    let man = clap_mangen::Man::new(cli.clone());
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    // The flags of `serve` are those of the program, which are written already.
    for command in cli.get_subcommands().filter(|command| command.get_name() != "serve") {
        let name = command.get_name().to_owned();
        let mut section = Vec::new();
        let man = clap_mangen::Man::new(command.clone().bin_name(format!("gcstreamer-dashboard {name}")));
        man.render_description_section(&mut section)?;
        man.render_options_section(&mut section)?;
        let text = String::from_utf8_lossy(&section)
            .replace(".SH DESCRIPTION", "")
            .replace(".SH OPTIONS", "");
        writeln!(page, ".SH COMMAND {}\n{}", name.to_uppercase(), text.trim())?;
    }
    std::io::stdout().write_all(&page)
}
