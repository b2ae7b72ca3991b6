//! The command line: commands and flags, taught by example.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::settings::Flags;

/// A YAML table turns REST endpoints into RabbitMQ publishes and RPC calls.
#[derive(Debug, Parser)]
#[command(name = "fpesa", version, about, after_help = EXAMPLES, max_term_width = 100)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

const EXAMPLES: &str = "Examples:
  fpesa up                                     everything in one process, nothing to install
  fpesa up --listen 127.0.0.1:0 --data-dir /tmp/fpesa
  fpesa check routes.yaml                      every mistake in the table, with its line
  fpesa gateway --bus amqp://user@host:5672    the gateway alone, on RabbitMQ
  fpesa work persist history --bus amqp://user@host:5672 --store postgres://user@host/db
  fpesa tail 'messages/#'                      the live feed on the terminal";

/// Commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Gateway and every worker of the table in one process, on any bus and store
    #[command(after_help = "Example: fpesa up --routes routes.yaml --listen 127.0.0.1:8080 --data-dir ./data")]
    Up(Common),
    /// The gateway alone; needs a networked bus
    #[command(after_help = "Example: fpesa gateway --bus amqp://user@host:5672 --listen 0.0.0.0:8080")]
    Gateway(Common),
    /// Workers of the table (default: all), as their own process; needs a networked bus and store
    #[command(
        after_help = "Example: fpesa work persist history --bus amqp://user@host:5672 --store postgres://user@host/db"
    )]
    Work {
        /// Names of workers, as in the table
        names: Vec<String>,
        /// Settings
        #[command(flatten)]
        common: Common,
    },
    /// Compile the table and show every problem; exit status 1 when one is an error
    #[command(after_help = "Example: fpesa check routes.yaml --format json --deny-warnings")]
    Check {
        /// The table (default: the setting `routes`)
        file: Option<PathBuf>,
        /// How problems are shown: for people on stderr, or as JSON on stdout
        #[arg(long, value_enum, default_value_t = Format::Text)]
        format: Format,
        /// Warnings are errors
        #[arg(long)]
        deny_warnings: bool,
        /// Settings
        #[command(flatten)]
        common: Common,
    },
    /// Print the JSON Schema of routes.yaml, for editors
    #[command(after_help = "Example: fpesa schema > schemas/routes.schema.json")]
    Schema,
    /// Show the table: each route with what it becomes on the bus
    Routes {
        /// Settings
        #[command(flatten)]
        common: Common,
    },
    /// Show the effective settings, each with where it came from
    Config {
        /// Settings
        #[command(flatten)]
        common: Common,
    },
    /// What RabbitMQ needs for the table, to import and to configure
    #[command(after_help = BROKER)]
    Broker {
        /// Which part
        #[command(subcommand)]
        part: BrokerPart,
    },
    /// Print the live feed, one message a line
    #[command(after_help = "Example: fpesa tail 'messages/#' --url http://127.0.0.1:8080")]
    Tail {
        /// An MQTT topic filter, such as messages/# or messages/+
        filter: String,
        /// The gateway's address (default: the setting `listen`)
        #[arg(long)]
        url: Option<String>,
        /// Settings
        #[command(flatten)]
        common: Common,
    },
}

const BROKER: &str = "Examples:
  fpesa broker conf --bus amqp://fpesa@rabbit:5672 >> /etc/rabbitmq/rabbitmq.conf
  FPESA_FEED__PASSWORD=look FPESA_BUS_PASSWORD_FILE=/run/secrets/bus \\
    fpesa broker definitions --bus amqp://fpesa@rabbit:5672 > definitions.json
  rabbitmqctl import_definitions definitions.json";

/// Parts of `broker`.
#[derive(Debug, Subcommand)]
pub enum BrokerPart {
    /// Users, permissions, the feed's policy, exchanges, queues and bindings, as JSON to import
    Definitions {
        /// The major version that they are for: 4 and later want to be told what never drops
        #[arg(long, value_name = "MAJOR", default_value_t = 3)]
        rabbitmq: u32,
        /// Settings
        #[command(flatten)]
        common: Common,
    },
    /// Lines for rabbitmq.conf
    Conf {
        /// Settings
        #[command(flatten)]
        common: Common,
    },
}

/// How `check` shows problems.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people, on stderr.
    Text,
    /// One array on stdout.
    Json,
}

/// Flags that every command takes. Secrets are no flags: put them into a file or the environment.
#[derive(Debug, Args)]
pub struct Common {
    /// The table [default: routes.yaml]
    #[arg(long, value_name = "FILE")]
    pub routes: Option<PathBuf>,
    /// Where it listens; port 0 takes any [default: 127.0.0.1:8080; workers listen only when told to]
    #[arg(long, value_name = "IP:PORT")]
    pub listen: Option<String>,
    /// The bus: embedded:, amqp:// or amqps:// [default: embedded:]
    #[arg(long, value_name = "URL")]
    pub bus: Option<String>,
    /// The store: embedded:, mongodb:// or postgres:// [default: embedded:]
    #[arg(long, value_name = "URL")]
    pub store: Option<String>,
    /// Folder of the embedded bus and store [default: ./data]
    #[arg(long, value_name = "FOLDER")]
    pub data_dir: Option<PathBuf>,
    /// What is logged: error, warn, info, debug, or a filter [default: info]
    #[arg(long, value_name = "LEVEL")]
    pub log: Option<String>,
    /// A settings file [default: fpesa.yaml, where there is one]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

impl Common {
    /// The settings that the flags give.
    pub fn flags(&self) -> Flags {
        Flags {
            routes: self.routes.clone(),
            listen: self.listen.clone(),
            bus: self.bus.clone(),
            store: self.store.clone(),
            data_dir: self.data_dir.clone(),
            log: self.log.clone(),
        }
    }
}
