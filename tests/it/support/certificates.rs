//! Certificates for one test: an authority, a server on loopback, and a client.

use std::{fs, path::PathBuf, process::Command};

pub struct Certificates {
    folder: tempfile::TempDir,
}

impl Certificates {
    pub fn make() -> Self {
        let made = Self { folder: tempfile::tempdir().unwrap() };
        fs::write(made.path("server.ext"), "subjectAltName=IP:127.0.0.1,DNS:localhost\nextendedKeyUsage=serverAuth\n")
            .unwrap();
        fs::write(made.path("client.ext"), "extendedKeyUsage=clientAuth\n").unwrap();
        for authority in ["ca", "other"] {
            let subject = format!("/CN=fpesa test {authority}");
            made.openssl(
                &format!("req -x509 -newkey rsa:2048 -nodes -days 2 -keyout {authority}.key -out {authority}.pem"),
                &subject,
            );
        }
        for name in ["server", "client"] {
            made.openssl(
                &format!("req -newkey rsa:2048 -nodes -keyout {name}.key -out {name}.csr"),
                &format!("/CN={name}"),
            );
            made.openssl(
                &format!("x509 -req -days 2 -in {name}.csr -CA ca.pem -CAkey ca.key -CAcreateserial -extfile {name}.ext -out {name}.pem"),
                "",
            );
        }
        made
    }

    fn openssl(&self, args: &str, subject: &str) {
        let mut command = Command::new("openssl");
        command.args(args.split(' ')).current_dir(self.folder.path());
        if !subject.is_empty() {
            command.args(["-subj", subject]);
        }
        let output = command.output().unwrap();
        assert!(output.status.success(), "openssl {args}: {}", String::from_utf8_lossy(&output.stderr));
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The path as text, for settings.
    pub fn text(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }
}
