//! Which folders are watched, so that edits are known soon. Folders and not files: editors put a new file in the place of
//! the old one. Where a link leads to one, the folder that holds the link too: links are swapped.

use std::{
    collections::BTreeSet,
    env, fs,
    os::unix::fs::MetadataExt as _,
    path::{Component, Path, PathBuf},
};

use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::mpsc;

use super::texts::Texts;
use crate::files::Disk;

/// Links that a path may lead through (as on Linux).
const MOST_LINKS: usize = 40;

/// A folder as it is now: another one in its place is another one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Folder {
    path: PathBuf,
    device: u64,
    inode: u64,
}

/// The watched folders.
pub(super) struct Watch {
    watcher: RecommendedWatcher,
    folders: BTreeSet<Folder>,
}

impl Watch {
    /// Watches nothing yet; `changed` hears of each change.
    pub fn start(changed: mpsc::Sender<()>) -> notify::Result<Self> {
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            // Reading a file is no change; a full channel already says that something changed.
            if !matches!(event.as_ref().map(|event| event.kind), Ok(EventKind::Access(_))) {
                let _ = changed.try_send(());
            }
        })?;
        Ok(Self { watcher, folders: BTreeSet::new() })
    }

    /// Watches where `texts` came from, and nothing else. Says whether there are folders that were not watched before:
    /// what happened in them until now is not known.
    pub fn follow(&mut self, files: &Disk, texts: &Texts) -> bool {
        let wanted = wanted(files, texts);
        for gone in self.folders.difference(&wanted) {
            let _ = self.watcher.unwatch(&gone.path);
        }
        self.folders.retain(|folder| wanted.contains(folder));
        let mut more = false;
        for folder in wanted {
            if self.folders.contains(&folder) {
                continue;
            }
            match self.watcher.watch(&folder.path, RecursiveMode::NonRecursive) {
                Ok(()) => {
                    more = true;
                    self.folders.insert(folder);
                }
                Err(error) => tracing::debug!(folder = %folder.path.display(), %error, "a folder can't be watched"),
            }
        }
        more
    }
}

fn wanted(files: &Disk, texts: &Texts) -> BTreeSet<Folder> {
    let mut found = BTreeSet::new();
    let home = files.folder();
    watch(home, &mut found);
    links(files.path(), &mut found);
    for folder in files.folders("schemas") {
        watch(&folder, &mut found);
    }
    for glob in texts.globs() {
        let mut parts: Vec<&str> = glob.split('/').collect();
        parts.pop();
        let plain = parts.iter().take_while(|part| !part.contains(['*', '?', '['])).count();
        for depth in 1..=plain {
            watch(&home.join(parts[..depth].join("/")), &mut found);
        }
        if plain < parts.len() {
            for folder in files.folders(&parts[..plain].join("/")) {
                watch(&folder, &mut found);
            }
        }
    }
    let mut parents = BTreeSet::new();
    for name in &texts.names {
        let path = home.join(name);
        if path.is_symlink() {
            links(&path, &mut found);
        }
        parents.extend(path.parent().map(Path::to_owned));
    }
    for parent in parents {
        watch(&parent, &mut found);
    }
    found
}

/// A folder, and those of the links that lead to it.
fn watch(folder: &Path, found: &mut BTreeSet<Folder>) {
    links(folder, found);
    add(folder, found);
}

fn add(folder: &Path, found: &mut BTreeSet<Folder>) {
    let Ok(path) = fs::canonicalize(folder) else { return };
    if let Some(there) = fs::metadata(&path).ok().filter(fs::Metadata::is_dir) {
        found.insert(Folder { path, device: there.dev(), inode: there.ino() });
    }
}

/// The folders of all links on the way to `path`, and of what it is in the end.
fn links(path: &Path, found: &mut BTreeSet<Folder>) {
    let mut path = if path.is_absolute() { path.to_owned() } else { env::current_dir().unwrap_or_default().join(path) };
    for _ in 0..MOST_LINKS {
        let mut here = PathBuf::new();
        let mut parts = path.components();
        let mut resolved = None;
        for part in parts.by_ref() {
            if part == Component::CurDir {
                continue;
            }
            let parent = here.clone();
            here.push(part);
            if let Ok(target) = fs::read_link(&here) {
                add(&parent, found);
                resolved = Some(parent.join(target));
                break;
            }
        }
        let Some(resolved) = resolved else { break };
        path = resolved.join(parts.as_path());
    }
    if let Some(parent) = path.parent().filter(|_| path.is_file()) {
        add(parent, found);
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::reload::compile_noting;

    #[test]
    fn folders_of_links_are_watched_too() {
        let folder = tempfile::tempdir().unwrap();
        let root = fs::canonicalize(folder.path()).unwrap();
        for name in ["releases/1/schemas/deep", "releases/1/more", "releases/1/data", "etc"] {
            fs::create_dir_all(root.join(name)).unwrap();
        }
        symlink("../releases/1", root.join("etc/current")).unwrap();
        fs::write(
            root.join("releases/1/routes.yaml"),
            "version: 1\ninclude: [\"more/*.yaml\", \"*/x.yaml\"]\nroutes: []\n",
        )
        .unwrap();
        let files = Disk::new(root.join("etc/current/routes.yaml"));
        let found = wanted(&files, &compile_noting(&files).1);
        let names: Vec<String> =
            found.iter().map(|found| found.path.strip_prefix(&root).unwrap().display().to_string()).collect();
        let expected = ["etc", "releases/1", "releases/1/more", "releases/1/schemas", "releases/1/schemas/deep"];
        assert_eq!(names, expected);
    }
}
