//! `fpesa copy`: history from one store to another.

use std::{io::IsTerminal as _, path::PathBuf, sync::Arc};

use clap::Args;
use fpesa_workers::{
    copy::{self, Copied, Told, Trouble},
    store::Access,
};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::{
    patience::Limit,
    stores::{Use, open, password},
};
use crate::{
    app::Usage,
    cli::Common,
    output::{note, say},
    settings::Settings,
};

/// Flags of `copy`.
#[derive(Debug, Args)]
pub struct CopyArgs {
    /// The store to copy from: `embedded:`, `embedded:/some/folder`, or a server's URL as in --store
    #[arg(long, value_name = "URL")]
    pub from: String,
    /// The store to copy to, named likewise
    #[arg(long, value_name = "URL")]
    pub to: String,
    /// A file with the password for --from, where its URL has none
    #[arg(long, value_name = "FILE")]
    pub from_password_file: Option<PathBuf>,
    /// A file with the password for --to, where its URL has none
    #[arg(long, value_name = "FILE")]
    pub to_password_file: Option<PathBuf>,
    /// Keep trying while a server is away, instead of giving up after 10 s
    #[arg(long)]
    pub wait: bool,
    /// Settings
    #[command(flatten)]
    pub common: Common,
}

/// Examples of `copy`.
pub const EXAMPLES: &str = "Examples:
  fpesa copy --from embedded: --to postgres://fpesa@db/fpesa --to-password-file /run/secrets/store
  fpesa copy --from embedded:/var/lib/fpesa --to embedded:/mnt/backup
Both may be in use meanwhile. One that was interrupted is run again: what is there already is not copied twice.";

/// `fpesa copy`: `false` when the second store does not have everything at the end.
pub async fn copy(args: &CopyArgs, settings: &Settings) -> anyhow::Result<bool> {
    let from_password = password("from-password-file", args.from_password_file.as_deref())?;
    let to_password = password("to-password-file", args.to_password_file.as_deref())?;
    let data_dir = settings.data_dir.as_path();
    let from = Access { url: &args.from, password: from_password.as_deref(), data_dir };
    let to = Access { url: &args.to, password: to_password.as_deref(), data_dir };
    if is_the_same(&from, &to) {
        return Err(Usage("--from and --to name the same store: there is nothing to copy".into()).into());
    }
    let from = open("from", from, Use::Read, Limit::of(args.wait)).await?;
    let to = open("to", to, Use::Write, Limit::of(args.wait)).await?;
    let bar = Bar::new();
    let copied = copy::copy(&from, &to, &mut |told| bar.told(told)).await;
    bar.0.finish_and_clear();
    report(&copied?)
}

fn is_the_same(from: &Access<'_>, to: &Access<'_>) -> bool {
    match (from.folder(), to.folder()) {
        (Some(from), Some(to)) => {
            let real = |folder: &std::path::Path| folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
            real(from) == real(to)
        }
        _ => from.url == to.url,
    }
}

fn report(copied: &Copied) -> anyhow::Result<bool> {
    say(&format!("copied {}, present {}, checked {}", copied.copied, copied.present, copied.checked))?;
    if copied.alike > 0 {
        note(&format!(
            "fpesa: {} of those present differ in something beside id, type, subject and data, such as their time: they stay as they are",
            copied.alike
        ));
    }
    name(&copied.conflicts, "its id is another event's in the store that is copied to: not copied");
    name(&copied.lost, "it was written and is not to be found: does something remove it (keep.age, keep.count)?");
    say(&format!("sha256 {}", copied.digest))?;
    Ok(copied.is_complete())
}

fn name(trouble: &Trouble, what: &str) {
    for id in &trouble.ids {
        note(&format!("fpesa: {id}: {what}"));
    }
    if trouble.count > trouble.ids.len() as u64 {
        note(&format!("fpesa: and {} more of these", trouble.count - trouble.ids.len() as u64));
    }
}

/// How far it is, on a terminal.
struct Bar(Arc<ProgressBar>);

impl Bar {
    fn new() -> Self {
        let terminal = std::io::stderr().is_terminal();
        let target = if terminal { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let style = ProgressStyle::with_template("{msg:8} {wide_bar} {human_pos}/{human_len}  {per_sec}  ETA {eta}");
        let bar = ProgressBar::with_draw_target(None, target);
        Self(Arc::new(bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))))
    }

    fn told(&self, told: Told) {
        match told {
            Told::Copying(total) | Told::CheckingOf(total) => {
                self.0.reset();
                match total {
                    Some(total) => self.0.set_length(total),
                    None => self.0.unset_length(),
                }
                self.0.set_message(if matches!(told, Told::Copying(_)) { "copying" } else { "checking" });
            }
            Told::Checking => {}
            Told::Did(events) => self.0.inc(events),
        }
    }
}
