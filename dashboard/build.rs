//! Builds the page: copies `web/` into the build folder, fetches its packages by `package-lock.json`, bundles it with esbuild and
//! writes the list of files that `src/page.rs` embeds. Nothing is written into the sources.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::{env, fs, io};

/// What the page is built from.
const SOURCES: [&str; 6] = [
    "package.json",
    "package-lock.json",
    "tsconfig.json",
    "build.mjs",
    "src",
    "static",
];

fn main() -> ExitCode {
    for source in SOURCES {
        println!("cargo::rerun-if-changed=web/{source}");
    }
    match build() {
        Ok(()) => ExitCode::SUCCESS,
        Err(fault) => {
            println!("cargo::error={fault}");
            ExitCode::FAILURE
        }
    }
}

fn build() -> Result<(), String> {
    let folder = |name: &str| {
        env::var_os(name)
            .map(PathBuf::from)
            .ok_or_else(|| format!("cargo sets no {name}"))
    };
    let web = folder("CARGO_MANIFEST_DIR")?.join("web");
    let out = folder("OUT_DIR")?;
    let work = out.join("web");
    for source in SOURCES {
        copy(&web.join(source), &work.join(source)).map_err(|error| format!("{source} cannot be copied: {error}"))?;
    }
    let lock = fs::read_to_string(work.join("package-lock.json")).map_err(|error| error.to_string())?;
    let stamp = work.join("node_modules/.fetched");
    if fs::read_to_string(&stamp).ok().as_ref() != Some(&lock) {
        // Packages run no scripts of their own while they are installed.
        let arguments = [
            "ci",
            "--omit=dev",
            "--ignore-scripts",
            "--no-audit",
            "--no-fund",
            "--prefer-offline",
            "--loglevel=error",
        ];
        run(Command::new("npm").args(arguments).current_dir(&work))?;
        fs::write(&stamp, lock).map_err(|error| error.to_string())?;
    }
    run(Command::new("node").arg("build.mjs").arg(&out).current_dir(&work))
}

fn run(command: &mut Command) -> Result<(), String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.output().map_err(|error| {
        format!("the page needs Node.js 18 or newer with npm to be built, and {name} cannot be started ({error}); on Debian: apt-get install nodejs npm")
    })?;
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr).replace('\n', " | ");
    Err(format!(
        "the page cannot be built: {name} ended with {}: {text}",
        output.status
    ))
}

/// Copies a file, or a folder with all that is in it.
fn copy(from: &Path, to: &Path) -> io::Result<()> {
    if from.is_dir() {
        if to.exists() {
            fs::remove_dir_all(to)?;
        }
        fs::create_dir_all(to)?;
        for entry in fs::read_dir(from)? {
            let entry = entry?;
            copy(&entry.path(), &to.join(entry.file_name()))?;
        }
        return Ok(());
    }
    if let Some(parent) = to.parent() {
        fs::create_dir_all(parent)?;
    }
    fs::copy(from, to).map(drop)
}
