//! The program: reads the settings, starts the server, and stops on SIGINT or SIGTERM.
//!
//! Exit status: 0 ended on request, 2 wrong settings (nothing was started), 1 anything else.

use std::process::ExitCode;
use std::sync::Arc;

use gcstreamer_dashboard::app::App;
use gcstreamer_dashboard::clock::SystemClock;
use gcstreamer_dashboard::command::{self, Failure};
use gcstreamer_dashboard::http;
use gcstreamer_dashboard::settings::{Cli, Command, Delivery, LogFormat, Settings};
use gcstreamer_dashboard::systemd;
use gcstreamer_storage::UrlSigner;

fn main() -> ExitCode {
    let cli = Cli::read();
    let flags = match cli.command {
        Some(Command::Serve(flags)) => *flags,
        Some(command) => return run(command),
        None => cli.serve,
    };
    log(flags.log);
    let settings = match flags.check() {
        Ok(settings) => settings,
        Err(fault) => {
            tracing::error!("{fault}");
            return ExitCode::from(2);
        }
    };
    match runtime().and_then(|runtime| runtime.block_on(serve(settings))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn runtime() -> Result<tokio::runtime::Runtime, String> {
    tokio::runtime::Runtime::new().map_err(|error| format!("the runtime cannot be started: {error}"))
}

/// Runs a command that needs no server.
fn run(command: Command) -> ExitCode {
    log(LogFormat::Text);
    let done = match command {
        Command::Export(flags) => runtime()
            .map_err(Failure::Other)
            .and_then(|runtime| runtime.block_on(interruptible(command::export(&flags))))
            .map(|()| true),
        Command::Verify(flags) => command::verify(&flags),
        Command::Completions { shell } => {
            command::completions(shell);
            Ok(true)
        }
        Command::Man => command::man()
            .map(|()| true)
            .map_err(|error| Failure::Other(error.to_string())),
        Command::Serve(_) => Ok(true),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(failure) => {
            tracing::error!("{failure}");
            ExitCode::from(if matches!(failure, Failure::Usage(_)) { 2 } else { 1 })
        }
    }
}

fn log(format: LogFormat) {
    let builder = tracing_subscriber::fmt().with_writer(std::io::stderr).with_target(false);
    match format {
        LogFormat::Text => builder.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).init(),
        LogFormat::Json => builder.json().flatten_event(true).init(),
    }
}

async fn serve(settings: Settings) -> Result<(), String> {
    // An endpoint that takes no credentials works without any.
    settings.credentials.check().await.or_else(|error| {
        if settings.endpoint.takes_credentials() {
            Err(error.to_string())
        } else {
            Ok(())
        }
    })?;
    let signer = match settings.delivery {
        Delivery::Proxy => None,
        Delivery::Redirect => Some(
            UrlSigner::load(&settings.endpoint, settings.credentials.clone())
                .await
                .map_err(|error| format!("--delivery redirect: {error}; use --delivery proxy"))?,
        ),
    };
    let listen = settings.listen;
    let listener = tokio::net::TcpListener::bind(listen)
        .await
        .map_err(|error| format!("cannot listen on {listen}: {error}; choose another with --listen"))?;
    let address = listener.local_addr().map_err(|error| error.to_string())?;
    let app = App::new(settings, Arc::new(SystemClock));
    let app = Arc::new(match signer {
        Some(signer) => app.redirecting(signer),
        None => app,
    });
    tracing::info!("listening on http://{address}");
    systemd::serves(address);
    let ended = async {
        ended().await;
        systemd::ends();
    };
    http::serve(listener, app, ended).await.map_err(|error| error.to_string())
}

/// Runs `work` until it is done or a signal arrives. On a signal `work` is dropped, which removes the files that it has begun to
/// write.
async fn interruptible(work: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    tokio::select! {
        done = work => done,
        () = ended() => Err(Failure::Other("it was interrupted".into())),
    }
}

/// Waits for SIGINT or SIGTERM.
async fn ended() {
    use tokio::signal::unix::{SignalKind, signal};
    let Ok(mut terminate) = signal(SignalKind::terminate()) else {
        let _ = tokio::signal::ctrl_c().await;
        return;
    };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminate.recv() => {}
    }
}
