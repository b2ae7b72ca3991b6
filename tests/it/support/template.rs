//! Data of servers that is made once for a build and copied by each test: a first start takes several times as long as
//! a further one.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
};

/// Copies the folder of that name to `to`, which is not there yet; the first caller of all processes makes it.
pub fn copy(name: &str, to: &Path, make: impl FnOnce(&Path)) {
    let templates = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("templates");
    fs::create_dir_all(&templates).unwrap();
    let template = templates.join(name);
    let lock = File::create(templates.join(format!("{name}.lock"))).unwrap();
    lock.lock().unwrap();
    if !template.exists() {
        let making = tempfile::tempdir_in(&templates).unwrap();
        make(&making.path().join("data"));
        // A folder that has its name is whole.
        fs::rename(making.path().join("data"), &template).unwrap();
    }
    lock.unlock().unwrap();
    let copied = Command::new("cp").arg("-a").arg(&template).arg(to).status().unwrap();
    assert!(copied.success(), "cp {} {}", template.display(), to.display());
}
