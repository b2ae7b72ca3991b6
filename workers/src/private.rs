//! Folders and files that only their owner may read: what clients sent is in them.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, Permissions},
    io,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

const FOLDER_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;
/// What group and others may do.
const OTHERS: u32 = 0o077;
/// What SQLite puts beside a database.
const COMPANIONS: [&str; 3] = ["-wal", "-shm", "-journal"];

/// Makes a data folder that only its owner enters. One that is there is tightened, unless it holds other things than ours:
/// then others have use for it, and the files in it are tightened alone.
pub fn folder(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(FOLDER_MODE).create(path)?;
    let Ok(metadata) = fs::metadata(path) else { return Ok(()) };
    let mode = metadata.permissions().mode();
    if mode & OTHERS == 0 {
        return Ok(());
    }
    if !holds_only_ours(path)? {
        tracing::warn!(
            folder = %path.display(),
            "the data folder is open to other users and holds files that are not fpesa's: its permissions stay, give fpesa a folder of its own"
        );
        return Ok(());
    }
    tighten(path, mode, FOLDER_MODE);
    Ok(())
}

/// Makes a file that only its owner reads, or tightens the one that is there and what SQLite has put beside it. SQLite
/// gives its companions the permissions of the database.
pub fn file(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    let file = options.read(true).write(true).create(true).truncate(false).mode(FILE_MODE).open(path)?;
    let companions = COMPANIONS.map(|companion| {
        let mut name = path.as_os_str().to_owned();
        name.push(companion);
        PathBuf::from(name)
    });
    for path in companions.iter().map(PathBuf::as_path).chain([path]) {
        if let Ok(metadata) = fs::symlink_metadata(path)
            && metadata.is_file()
            && metadata.mode() & OTHERS != 0
        {
            tighten(path, metadata.mode(), FILE_MODE);
        }
    }
    Ok(file)
}

/// Only the owner may; where that can't be had the data is of use all the same.
fn tighten(path: &Path, before: u32, mode: u32) {
    let shown = path.display();
    let before = format!("{:04o}", before & 0o7777);
    let after = format!("{mode:04o}");
    match fs::set_permissions(path, Permissions::from_mode(mode)) {
        Ok(()) => {
            tracing::warn!(path = %shown, before, after, "other users could read this: its permissions are tightened");
        }
        Err(error) => {
            tracing::error!(path = %shown, before, %error, "other users can read this: its permissions can't be tightened");
        }
    }
}

/// Whether everything in a folder is a database or a lock of ours.
fn holds_only_ours(folder: &Path) -> io::Result<bool> {
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name();
        let name = name.to_string_lossy();
        let plain = COMPANIONS.iter().find_map(|companion| name.strip_suffix(companion)).unwrap_or(&name);
        if !matches!(plain, "bus.db" | "store.db" | "fpesa.lock") {
            return Ok(false);
        }
    }
    Ok(true)
}
