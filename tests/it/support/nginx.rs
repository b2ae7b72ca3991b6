//! A private nginx: Debian's server with the shipped `deploy/nginx.conf` before gateways of the test.

use std::{
    fs,
    path::Path,
    process::{Child, Command, Stdio},
};

use super::{app::App, certificates::Certificates, eventually, free_port, root, signal};

const SERVER: &str = "/usr/sbin/nginx";

/// Which of the shipped file's optional lines are in use.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Options {
    Plain,
    /// Those that begin with `#tls#` and `#rate#`.
    TlsAndRates,
}

pub struct Nginx {
    child: Child,
    folder: tempfile::TempDir,
    /// `http://127.0.0.1:PORT`.
    pub base: String,
    /// `https://127.0.0.1:PORT`; served with [`Options::TlsAndRates`] alone.
    pub tls_base: String,
}

impl Nginx {
    pub async fn start(gateways: [&App; 2], options: Options, certificates: Option<&Certificates>) -> Self {
        assert!(Path::new(SERVER).exists(), "nginx is missing: run scripts/setup");
        let folder = tempfile::tempdir().unwrap();
        let (plain, tls) = (free_port(), free_port());
        let [one, two] = gateways.map(|app| app.base.trim_start_matches("http://").to_owned());
        let mut site = fs::read_to_string(root().join("deploy/nginx.conf")).unwrap();
        site = site
            .replace("127.0.0.1:8081", &one)
            .replace("127.0.0.1:8082", &two)
            .replace("listen 8888", &format!("listen 127.0.0.1:{plain}"));
        if options == Options::TlsAndRates {
            let certificates = certificates.unwrap();
            site = site
                .replace("#tls#", "")
                .replace("#rate#", "")
                .replace("listen 8443", &format!("listen 127.0.0.1:{tls}"))
                .replace("/etc/fpesa/tls/cert.pem", &certificates.text("server.pem"))
                .replace("/etc/fpesa/tls/key.pem", &certificates.text("server.key"));
        }
        fs::write(folder.path().join("site.conf"), site).unwrap();
        let home = folder.path().display();
        let user =
            if Command::new("id").arg("-u").output().unwrap().stdout.starts_with(b"0") { "user root;" } else { "" };
        let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|name| format!("{name}_temp_path {home}/{name};\n"))
            .concat();
        let main = format!(
            "daemon off; pid {home}/nginx.pid; error_log {home}/error.log warn; {user} worker_processes 1;\n\
             events {{ worker_connections 512; }}\nhttp {{ access_log off; {temporary} include {home}/site.conf; }}\n"
        );
        let conf = folder.path().join("nginx.conf");
        fs::write(&conf, main).unwrap();
        let child = Command::new(SERVER)
            .arg("-e")
            .arg(folder.path().join("error.log"))
            .arg("-p")
            .arg(folder.path())
            .arg("-c")
            .arg(&conf)
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let (base, tls_base) = (format!("http://127.0.0.1:{plain}"), format!("https://127.0.0.1:{tls}"));
        let nginx = Self { child, folder, base, tls_base };
        eventually("nginx", || async { reqwest::get(format!("{}/healthz", nginx.base)).await.ok() }).await;
        nginx
    }
}

impl Nginx {
    /// What it logged: each connection that failed, with its reason.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("error.log")).unwrap_or_default()
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            signal(self.child.id(), "TERM");
        }
        let _ = self.child.wait();
    }
}
