//! `landbridge key`: keys, made, listed and revoked in the store, or by the daemon that has it.
//!
//! Invariant: a key's text is printed once, on standard output alone. The store is opened only while no daemon has it;
//! while one has, that one is asked, and it wants a key with the scope `operate` as soon as any key exists.

use std::{path::Path, sync::Arc, time::Duration};

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::{
    connection::{Connection, Daemon},
    exit::{Exit, Failure, Result},
    print::{Console, Format, Table, field, items},
};
use crate::{
    access::{Caller, Scope},
    clock::{Clock as _, SystemClock, parse_span},
    http::keys::{self, KeyError, NewKey},
    money::Usd,
    names::PipelineName,
    settings::{Environment, Settings, StoreSetting, environment},
    store::{PostgresStore, SqliteStore, Store, StoreError, postgres::PostgresOptions},
};

/// Keys
#[derive(Debug, Clone, Subcommand)]
pub enum KeyCommand {
    /// Make a key and print it, this once
    Create(CreateArgs),
    /// List keys, without their text
    List(ListArgs),
    /// Revoke a key: it opens nothing from then on
    Revoke(RevokeArgs),
}

/// What to make
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Examples:
  landbridge key create --scope submit --pipeline ticket-triage --expires 90d
  landbridge key create --name ci --scope submit,read,content --requests-per-minute 600
  landbridge key create --name oncall --scope operate,read --format json

Scopes: submit (hand in work, and see one's own), read (no prompt or result text), content, plan, operate, approve.
The first key closes the door: from then on every request but /healthz and /readyz needs one.")]
pub struct CreateArgs {
    /// For people [default: one is made up]
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// What it may be used for
    #[arg(long, value_name = "SCOPE", required = true, value_delimiter = ',', value_parser = parse_scope)]
    pub scope: Vec<Scope>,
    /// A pipeline it is bound to; may be given more than once [default: all]
    #[arg(long, value_name = "PIPELINE", value_delimiter = ',', value_parser = parse_pipeline)]
    pub pipeline: Vec<PipelineName>,
    /// How long it is good, such as 90d [default: for ever]
    #[arg(long, value_name = "SPAN", value_parser = parse_span)]
    pub expires: Option<Duration>,
    /// How often it may ask a minute
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub requests_per_minute: Option<u32>,
    /// What it may spend a day (UTC)
    #[arg(long, value_name = "USD", value_parser = parse_usd)]
    pub usd_per_day: Option<Usd>,
    /// What it may spend a month (UTC)
    #[arg(long, value_name = "USD", value_parser = parse_usd)]
    pub usd_per_month: Option<Usd>,
    /// json: the key and its properties as one object
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
    /// The daemon
    #[command(flatten)]
    pub connection: Connection,
}

/// How to list
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Examples:
  landbridge key list
  landbridge key list --format json")]
pub struct ListArgs {
    /// json: one key a line
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
    /// The daemon
    #[command(flatten)]
    pub connection: Connection,
}

/// What to revoke
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Examples:
  landbridge key revoke ci")]
pub struct RevokeArgs {
    /// Its name or id
    #[arg(value_name = "KEY")]
    pub key: String,
    /// The daemon
    #[command(flatten)]
    pub connection: Connection,
}

fn parse_scope(text: &str) -> std::result::Result<Scope, String> {
    text.parse().map_err(|_| "there are submit, read, content, plan, operate, approve".to_owned())
}

fn parse_pipeline(text: &str) -> std::result::Result<PipelineName, String> {
    PipelineName::new(text).map_err(|error| error.to_string())
}

fn parse_usd(text: &str) -> std::result::Result<Usd, String> {
    let usd: std::result::Result<Usd, _> = text.parse();
    usd.ok().filter(|usd| *usd >= Usd::ZERO).ok_or_else(|| "write an amount such as 20 or 0.50".to_owned())
}

/// Where the keys are to be had.
enum Place {
    Store(Arc<dyn Store>),
    Daemon(Box<Daemon>),
}

impl Place {
    async fn find(connection: &Connection, config: &Path) -> Result<Self> {
        if connection.url.is_some() {
            return Ok(Self::Daemon(Box::new(Daemon::new(connection, config)?)));
        }
        let environment: Environment = environment();
        let loaded = Settings::load(config, &environment, &[])
            .map_err(|found| Failure::settings(found.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")))?;
        let path = match loaded.settings.store {
            StoreSetting::Sqlite(path) => path,
            StoreSetting::Memory => return Ok(Self::Daemon(Box::new(Daemon::new(connection, config)?))),
            StoreSetting::Postgres { url, .. } => {
                let failed = |error: StoreError| Failure::new(error.to_string());
                let url = url.read().map_err(|error| Failure::settings(format!("`store`: {error}")))?;
                let store = PostgresStore::open(url.expose(), PostgresOptions::default()).await.map_err(failed)?;
                return Ok(Self::Store(Arc::new(store)));
            }
        };
        match SqliteStore::open(&path, Arc::new(SystemClock)) {
            Ok(store) => Ok(Self::Store(Arc::new(store))),
            Err(StoreError::Held(_)) => Ok(Self::Daemon(Box::new(Daemon::new(connection, config)?))),
            Err(error) => Err(Failure::new(error.to_string())),
        }
    }
}

impl From<KeyError> for Failure {
    fn from(error: KeyError) -> Self {
        match error {
            KeyError::Invalid(..) => Self::usage(error.to_string()),
            _ => Self::new(error.to_string()),
        }
    }
}

/// Runs the command.
pub async fn execute(command: &KeyCommand, config: &Path, console: &mut Console<'_>) -> Result {
    match command {
        KeyCommand::Create(args) => create(args, config, console).await,
        KeyCommand::List(args) => list(args, config, console).await,
        KeyCommand::Revoke(args) => revoke(args, config, console).await,
    }
}

async fn create(args: &CreateArgs, config: &Path, console: &mut Console<'_>) -> Result {
    let made = match Place::find(&args.connection, config).await? {
        Place::Store(store) => {
            let new = NewKey {
                name: args.name.clone(),
                scopes: args.scope.iter().copied().collect(),
                pipelines: args.pipeline.iter().cloned().collect(),
                expires: args.expires,
                requests_per_minute: args.requests_per_minute,
                usd_per_day: args.usd_per_day,
                usd_per_month: args.usd_per_month,
            };
            let by = Caller::anybody();
            let (key, token) = keys::create(store.as_ref(), new, &by, SystemClock.now(), rand::random()).await?;
            json!({ "key": key, "token": token.expose() })
        }
        Place::Daemon(daemon) => {
            let mut body = json!({ "scopes": args.scope, "pipelines": args.pipeline });
            let optional = [
                ("name", args.name.clone().map(Value::from)),
                ("expires", args.expires.map(|span| crate::clock::format_span(span).into())),
                ("requests_per_minute", args.requests_per_minute.map(Value::from)),
                ("usd_per_day", args.usd_per_day.map(|usd| json!(usd))),
                ("usd_per_month", args.usd_per_month.map(|usd| json!(usd))),
            ];
            if let Some(body) = body.as_object_mut() {
                body.extend(optional.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))));
            }
            daemon.post(&["v1", "ops", "keys"]).json(&body).send().await?
        }
    };
    if args.format == Format::Json {
        console.json(&made)?;
        return Ok(Exit::Success);
    }
    writeln!(console.out, "{}", field(&made, "/token"))?;
    let until = match field(&made, "/key/expires_at") {
        none if none.is_empty() => String::new(),
        until => format!(", good until {until}"),
    };
    writeln!(
        console.err,
        "key {} for {}{until}; it is shown this once: keep it where its user reads it as LANDBRIDGE_KEY or OPENAI_API_KEY",
        field(&made, "/key/name"),
        field(&made, "/key/scopes"),
    )?;
    Ok(Exit::Success)
}

async fn list(args: &ListArgs, config: &Path, console: &mut Console<'_>) -> Result {
    let answer = match Place::find(&args.connection, config).await? {
        Place::Store(store) => {
            let known = keys::list(store.as_ref()).await.map_err(|error| Failure::new(error.to_string()))?;
            json!({ "data": known })
        }
        Place::Daemon(daemon) => daemon.get(&["v1", "ops", "keys"]).send().await?,
    };
    let known = items(&answer, "/data");
    if args.format == Format::Json {
        console.json_lines(known)?;
        return Ok(Exit::Success);
    }
    let now = SystemClock.now();
    let mut table = Table::new(&["NAME", "SCOPES", "PIPELINES", "STATE", "CREATED", "ID"]);
    for key in known {
        let pipelines = match field(key, "/pipelines") {
            none if none.is_empty() => "all".to_owned(),
            names => names,
        };
        table.row([
            field(key, "/name"),
            field(key, "/scopes"),
            pipelines,
            standing(key, now),
            field(key, "/created_at"),
            field(key, "/id"),
        ]);
    }
    if table.is_empty() {
        writeln!(
            console.err,
            "there is no key: everybody on loopback may do everything, and nobody is served beyond it"
        )?;
    } else {
        write!(console.out, "{table}")?;
    }
    Ok(Exit::Success)
}

fn standing(key: &Value, now: crate::clock::Timestamp) -> String {
    let time = |name: &str| field(key, name).parse::<crate::clock::Timestamp>().ok();
    match (time("/revoked_at"), time("/expires_at")) {
        (Some(at), _) => format!("revoked {at}"),
        (None, Some(end)) if end <= now => format!("expired {end}"),
        (None, Some(end)) => format!("good until {end}"),
        (None, None) => "good".to_owned(),
    }
}

async fn revoke(args: &RevokeArgs, config: &Path, console: &mut Console<'_>) -> Result {
    let name = match Place::find(&args.connection, config).await? {
        Place::Store(store) => {
            keys::revoke(store.as_ref(), &args.key, &Caller::anybody(), SystemClock.now()).await?.name
        }
        Place::Daemon(daemon) => field(&daemon.delete(&["v1", "ops", "keys", &args.key]).send().await?, "/key/name"),
    };
    writeln!(console.out, "revoked {}; it opens nothing any more", super::print::printable(&name))?;
    Ok(Exit::Success)
}
