//! The `fpesa` executable: flags, settings, and one function per command.

use std::{io::IsTerminal as _, process::ExitCode};

use clap::Parser as _;
use fpesa::{
    app::{self, Role, Usage},
    broker,
    cli::{BrokerPart, Cli, Command, Common},
    commands, logging,
    output::{self, note},
    settings::{Effective, Settings, mask_text},
    tail,
};

/// A request makes some sixty small allocations, and many are freed by another thread than made them.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // One crypto provider, chosen by us: with several compiled in, rustls would refuse to choose.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(told) => return usage(&told),
    };
    match run(cli) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            // What is wrong with the usage is our own sentence; the rest may be a library's.
            let usage = error.is::<Usage>();
            let text = format!("{error:#}");
            note(&format!("fpesa: {}", if usage { text } else { mask_text(&text) }));
            ExitCode::from(if usage { 2 } else { 1 })
        }
    }
}

/// Help and version as they are; what is wrong with the arguments without what they may hold of passwords.
fn usage(told: &clap::Error) -> ExitCode {
    if !told.use_stderr() {
        let _ = told.print();
        return ExitCode::SUCCESS;
    }
    let text = told.render();
    let text = if std::io::stderr().is_terminal() { text.ansi().to_string() } else { text.to_string() };
    note(&mask_text(text.trim_end()));
    ExitCode::from(2)
}

fn run(cli: Cli) -> anyhow::Result<bool> {
    match cli.command {
        Command::Up(common) => serve(Role::Up, &common),
        Command::Gateway(common) => serve(Role::Gateway, &common),
        Command::Work { names, common } => serve(Role::Work(names), &common),
        Command::Check { file, format, deny_warnings, common } => {
            let file = file.map_or_else(|| load(&common).map(|settings| settings.routes), Ok)?;
            commands::check(&file, format, deny_warnings)
        }
        Command::Schema => commands::schema(),
        Command::Routes { common } => commands::routes(&load(&common)?.routes),
        Command::Explain { method, path, header, data, format, common } => {
            let request = commands::Request { method, path, headers: header, data };
            commands::explain(&load(&common)?.routes, &request, format)
        }
        Command::Test { files, common } => commands::test(&load(&common)?.routes, &files),
        Command::Import { file, out } => commands::import(&file, &out),
        Command::Openapi { common } => commands::openapi(&load(&common)?),
        Command::Asyncapi { common } => commands::asyncapi(&load(&common)?),
        Command::Config { common } => {
            output::print(&effective(&common)?.show())?;
            Ok(true)
        }
        Command::Broker { part: BrokerPart::Definitions { rabbitmq, common } } => {
            let settings = load(&common)?;
            start(&settings)?.block_on(commands::definitions(&settings, rabbitmq))
        }
        Command::Broker { part: BrokerPart::Permissions { format, common } } => {
            commands::permissions(&load(&common)?, format)
        }
        Command::Broker { part: BrokerPart::Conf { common } } => {
            output::print(&broker::conf(&load(&common)?).map_err(|error| Usage(error.to_string()))?)?;
            Ok(true)
        }
        Command::Reload { wait, url, common } => {
            let settings = load(&common)?;
            start(&settings)?.block_on(commands::reload(&settings, &url, wait))
        }
        Command::Health { url, common } => {
            let settings = load(&common)?;
            start(&settings)?.block_on(commands::health(&settings, url.as_deref()))
        }
        Command::Copy(args) => {
            let settings = load(&args.common)?;
            start(&settings)?.block_on(commands::copy::copy(&args, &settings))
        }
        Command::Export(args) => {
            let settings = load(&args.common)?;
            start(&settings)?.block_on(commands::export::export(&args, &settings))
        }
        Command::ImportEvents(args) => {
            let settings = load(&args.common)?;
            start(&settings)?.block_on(commands::import_events::import_events(&args, &settings))
        }
        Command::Replay(args) => {
            let settings = load(&args.common)?;
            start(&settings)?.block_on(commands::replay::replay(&args, &settings))
        }
        Command::Tail { filter, url, wait, common } => {
            let settings = load(&common)?;
            let url = url.unwrap_or_else(|| format!("http://{}", settings.listen));
            start(&settings)?.block_on(tail::tail(&url, &filter, wait))
        }
    }
}

fn serve(role: Role, common: &Common) -> anyhow::Result<bool> {
    let settings = load(common)?;
    start(&settings)?.block_on(app::run(role, settings))?;
    Ok(true)
}

fn effective(common: &Common) -> anyhow::Result<Effective> {
    Effective::load(common.config.as_deref(), &common.flags()).map_err(|error| Usage(error.to_string()).into())
}

fn load(common: &Common) -> anyhow::Result<Settings> {
    Ok(effective(common)?.settings)
}

fn start(settings: &Settings) -> anyhow::Result<tokio::runtime::Runtime> {
    logging::start(&settings.log).map_err(Usage)?;
    Ok(tokio::runtime::Builder::new_multi_thread().enable_all().build()?)
}
