//! The command line: commands and flags, taught by example.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::{
    commands::{
        copy::{self, CopyArgs},
        export::{self, ExportArgs},
        import_events::{self, ImportEventsArgs},
        replay::{self, ReplayArgs},
    },
    settings::Flags,
};

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
  fpesa explain POST /api/v1/messages --data '{\"text\":\"Hello\"}'
  fpesa test                                   run the cases beside the table
  fpesa import openapi.yaml --out my-api       a table from an OpenAPI document
  fpesa gateway --bus amqp://user@host:5672    the gateway alone, on RabbitMQ
  fpesa work persist history --bus amqp://user@host:5672 --store postgres://user@host/db
  fpesa reload --wait                          whether an edit took effect, or why not
  fpesa copy --from embedded: --to postgres://user@host/db
  fpesa export --since 24h | jq .data          history, one event a line
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
    /// What would become of a request, without any broker; exit status 1 when it would be refused
    #[command(after_help = EXPLAIN)]
    Explain {
        /// GET, POST, PUT, PATCH, DELETE, …
        method: String,
        /// Path with the table's base path, and a query perhaps
        #[arg(value_name = "PATH[?QUERY]")]
        path: String,
        /// A header; may be given several times, and one without a value is not sent
        #[arg(long, short = 'H', value_name = "NAME: VALUE")]
        header: Vec<String>,
        /// The body, or @ and a file's name (@- is stdin); sent as application/json unless a header says otherwise
        #[arg(long, short = 'd', value_name = "TEXT or @FILE", allow_hyphen_values = true)]
        data: Option<String>,
        /// For people, or as JSON
        #[arg(long, value_enum, default_value_t = Format::Text)]
        format: Format,
        /// Settings
        #[command(flatten)]
        common: Common,
    },
    /// Run the table's cases, without any broker; exit status 1 when one fails
    #[command(after_help = "Example: fpesa test --routes orders/routes.yaml orders/routes.cases.yaml")]
    Test {
        /// Files of cases (default: *.cases.yaml beside the table)
        files: Vec<PathBuf>,
        /// Settings
        #[command(flatten)]
        common: Common,
    },
    /// Make a table and its schemas from an OpenAPI 3.0 or 3.1 document; what is there already is never overwritten
    #[command(after_help = "Example: fpesa import openapi.yaml --out my-api && fpesa check my-api/routes.yaml")]
    Import {
        /// The document, YAML or JSON
        file: PathBuf,
        /// Where routes.yaml and schemas/ go
        #[arg(long, value_name = "FOLDER", default_value = ".")]
        out: PathBuf,
    },
    /// Print the table's HTTP side as OpenAPI 3.1, as `/openapi.json` serves it
    #[command(after_help = "Example: fpesa openapi --routes routes.yaml > openapi.json")]
    Openapi {
        /// Settings
        #[command(flatten)]
        common: Common,
    },
    /// Print what travels on the bus and the feed as AsyncAPI 3.0, as `/asyncapi.json` serves it
    #[command(after_help = "Example: fpesa asyncapi --bus amqp://user@host:5672 > asyncapi.json")]
    Asyncapi {
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
    /// Make running gateways look at their files now, and tell whether those are in force
    #[command(after_help = RELOAD)]
    Reload {
        /// Wait until they are; exit status 1 with the problems when they can't
        #[arg(long)]
        wait: bool,
        /// A gateway's address; name each of several (default: the setting `listen`)
        #[arg(long, value_name = "URL")]
        url: Vec<String>,
        /// Settings
        #[command(flatten)]
        common: Common,
    },
    /// Ask whether a gateway or worker is ready: exit status 0 when it is, 1 when it is not
    #[command(after_help = HEALTH)]
    Health {
        /// Its address (default: the setting `listen`)
        #[arg(long, value_name = "URL")]
        url: Option<String>,
        /// Settings
        #[command(flatten)]
        common: Common,
    },
    /// Copy history from one store to another, and check it
    #[command(after_help = copy::EXAMPLES)]
    Copy(CopyArgs),
    /// Print history, one event a line, oldest first
    #[command(after_help = export::EXAMPLES)]
    Export(ExportArgs),
    /// Put into a store what `export` printed
    #[command(after_help = import_events::EXAMPLES)]
    ImportEvents(ImportEventsArgs),
    /// Publish history again; needs a networked bus
    #[command(after_help = replay::EXAMPLES)]
    Replay(ReplayArgs),
    /// Print the live feed, one message a line
    #[command(after_help = "Example: fpesa tail 'messages/#' --url http://127.0.0.1:8080")]
    Tail {
        /// An MQTT topic filter, such as messages/# or messages/+
        filter: String,
        /// The gateway's address (default: the setting `listen`)
        #[arg(long)]
        url: Option<String>,
        /// Keep trying while the gateway is away, instead of giving up after 10 s
        #[arg(long)]
        wait: bool,
        /// Settings
        #[command(flatten)]
        common: Common,
    },
}

const EXPLAIN: &str = "Examples:
  fpesa explain GET '/api/v1/messages?limit=5'
  fpesa explain POST /api/v1/messages --data '{\"text\":\"Hello\"}' --header 'Prefer: return=minimal'
  fpesa explain POST /api/v1/messages --data @message.json --format json";

const HEALTH: &str = "Examples:
  fpesa health
  fpesa health --url http://127.0.0.1:8081";

const RELOAD: &str = "Examples:
  fpesa reload --wait
  fpesa reload --wait --url http://127.0.0.1:8081 --url http://127.0.0.1:8082";

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
        /// The broker's major version [default: the broker is asked]
        #[arg(long, value_name = "MAJOR")]
        rabbitmq: Option<u32>,
        /// Settings
        #[command(flatten)]
        common: Common,
    },
    /// What the table needs of a broker user: permissions for a gateway, and for workers
    Permissions {
        /// Commands for people, or JSON
        #[arg(long, value_enum, default_value = "text")]
        format: Format,
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

/// How `check` and `explain` show what they found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    Text,
    /// JSON on stdout.
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
