//! How much memory there is for a process, and how much of it a setting means.

use std::{fs, path::Path};

use crate::units;

/// A part of the memory that this process may use, or a size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemoryShare {
    /// Of a hundred.
    Percent(u8),
    /// Bytes.
    Bytes(u64),
}

/// What a process has where nothing says how much.
const ASSUMED_BYTES: u64 = 1024 * 1024 * 1024;

impl MemoryShare {
    /// Reads a text such as `25%` or `512MiB`. The error is a sentence.
    pub fn parse(text: &str) -> Result<Self, String> {
        let Some(percent) = text.trim().strip_suffix('%') else {
            return units::large_size(text).map(Self::Bytes);
        };
        let percent = percent.trim().parse().ok().filter(|percent| (1..=100).contains(percent));
        percent.map(Self::Percent).ok_or_else(|| format!("`{text}` is out of range (1% to 100%)"))
    }

    /// In bytes, on this machine and in this cgroup.
    pub fn bytes(self) -> usize {
        let bytes = match self {
            Self::Bytes(bytes) => bytes,
            Self::Percent(percent) => available_bytes() / 100 * u64::from(percent),
        };
        usize::try_from(bytes).unwrap_or(usize::MAX)
    }
}

/// The machine's memory, or the limit of one of the cgroups that this process is in.
fn available_bytes() -> u64 {
    let machine = fs::read_to_string("/proc/meminfo").ok().and_then(|text| total(&text));
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let limits = cgroup_limits(&groups, Path::new("/sys/fs/cgroup"));
    machine.into_iter().chain(limits).min().unwrap_or(ASSUMED_BYTES)
}

/// `MemTotal` of `/proc/meminfo`.
fn total(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// The limits of a process's cgroups and all above them. In a container they may stand at the root alone.
fn cgroup_limits(groups: &str, root: &Path) -> Vec<u64> {
    let mut limits = Vec::new();
    for line in groups.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else { continue };
        let (root, file) = match controllers {
            "" => (root.to_owned(), "memory.max"),
            controllers if controllers.split(',').any(|name| name == "memory") => {
                (root.join("memory"), "memory.limit_in_bytes")
            }
            _ => continue,
        };
        let group = root.join(path.trim_start_matches('/'));
        let folders = group.ancestors().take_while(|folder| folder.starts_with(&root));
        limits.extend(
            folders.filter_map(|folder| fs::read_to_string(folder.join(file)).ok()?.trim().parse::<u64>().ok()),
        );
    }
    limits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares() {
        for (text, expected) in [
            ("25%", Some(MemoryShare::Percent(25))),
            ("64MiB", Some(MemoryShare::Bytes(64 << 20))),
            ("8GiB", Some(MemoryShare::Bytes(8 << 30))),
            ("0%", None),
            ("101%", None),
            ("0B", None),
            ("lots", None),
        ] {
            assert_eq!(MemoryShare::parse(text).ok(), expected, "{text}");
        }
        assert_eq!(total("MemFree: 1 kB\nMemTotal:       1000 kB\n"), Some(1_024_000));
        assert!(MemoryShare::Percent(25).bytes() > 1 << 20);
    }

    #[test]
    fn the_smallest_limit_of_the_cgroups_above_counts() {
        let root = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write("memory.max", "max\n");
        write("a/memory.max", "1000\n");
        write("a/b/memory.max", "2000\n");
        write("memory/c/memory.limit_in_bytes", "3000\n");
        assert_eq!(cgroup_limits("0::/a/b\n", root.path()), [2000, 1000]);
        assert_eq!(cgroup_limits("5:cpu:/c\n4:memory,x:/c\n", root.path()), [3000]);
        assert!(cgroup_limits("0::/\n", root.path()).is_empty());
    }
}
