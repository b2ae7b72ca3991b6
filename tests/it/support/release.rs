//! The servers that the tests run on: what Debian 12 ships, what Debian 13 ships (unpacked by scripts/servers), and the
//! newest that Debian has.
//!
//! A test that takes a `Release` runs on each: `crate::on_each_rabbitmq!(its_name);` beside it makes the test cases
//! `v3_10::its_name` and `v4_0::its_name`, and `latest::its_name` for `make test-latest`.

use std::path::PathBuf;

use super::root;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Release {
    /// RabbitMQ 3.10, PostgreSQL 15.
    Debian12,
    /// RabbitMQ 4.0, PostgreSQL 17.
    Debian13,
    /// What was the newest when scripts/servers looked.
    Newest,
}

impl Release {
    /// The one that the variable `FPESA_TEST_SERVERS` names, for tests that don't run on each.
    pub fn asked_for() -> Self {
        match std::env::var("FPESA_TEST_SERVERS").as_deref() {
            Err(_) | Ok("debian12") => Self::Debian12,
            Ok("debian13") => Self::Debian13,
            Ok("newest") => Self::Newest,
            Ok(other) => panic!("FPESA_TEST_SERVERS={other}: it is one of debian12, debian13 and newest"),
        }
    }

    /// The `/usr` of a server, by the version that each release has of it: the machine's own where nothing is unpacked.
    pub fn usr(self, server: &str, versions: [&str; 2]) -> PathBuf {
        let version = match self {
            Self::Debian12 => versions[0],
            Self::Debian13 => versions[1],
            Self::Newest => "latest",
        };
        let unpacked = unpacked(&format!("{server}-{version}")).join("usr");
        match self {
            Self::Debian12 if !unpacked.exists() => "/usr".into(),
            _ => unpacked,
        }
    }
}

/// Where scripts/servers puts a server.
pub fn unpacked(name: &str) -> PathBuf {
    root().join(".tools/servers").join(name)
}

/// Makes a test case of each function for every version of RabbitMQ.
#[macro_export]
macro_rules! on_each_rabbitmq {
    ($($test:ident),+ $(,)?) => {
        $crate::on_each! { [v3_10 Debian12, v4_0 Debian13, latest Newest] [$($test)+] }
    };
}

/// Makes a test case of each function for every version of PostgreSQL.
#[macro_export]
macro_rules! on_each_postgres {
    ($($test:ident),+ $(,)?) => {
        $crate::on_each! { [v15 Debian12, v17 Debian13, latest Newest] [$($test)+] }
    };
}

#[macro_export]
macro_rules! on_each {
    ([$($module:ident $release:ident),+] $tests:tt) => {
        $( $crate::on_each! { @one $module $release $tests } )+
    };
    (@one $module:ident $release:ident [$($test:ident)+]) => {
        mod $module {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $test() {
                    super::$test($crate::support::release::Release::$release).await;
                }
            )+
        }
    };
}
