//! Commands beside the servers: what they wait for, how they end, and what the environment may hold.

use crate::support::app::Start;

/// What Kubernetes and Docker put into the environment of a container for services called `fpesa` and `fpesa-gateway`.
const SERVICE_LINKS: [(&str, &str); 11] = [
    ("FPESA_SERVICE_HOST", "10.96.0.12"),
    ("FPESA_SERVICE_PORT", "80"),
    ("FPESA_SERVICE_PORT_HTTP", "80"),
    ("FPESA_PORT", "tcp://10.96.0.12:80"),
    ("FPESA_PORT_80_TCP", "tcp://10.96.0.12:80"),
    ("FPESA_PORT_80_TCP_PROTO", "tcp"),
    ("FPESA_PORT_80_TCP_PORT", "80"),
    ("FPESA_PORT_80_TCP_ADDR", "10.96.0.12"),
    ("FPESA_GATEWAY_SERVICE_HOST", "10.96.0.13"),
    ("FPESA_GATEWAY_SERVICE_PORT", "8080"),
    ("FPESA_GATEWAY_PORT", "tcp://10.96.0.13:8080"),
];

#[tokio::test]
async fn variables_of_service_links_are_no_settings() {
    let start =
        SERVICE_LINKS.into_iter().fold(Start::up().command(&["config"]), |start, (key, value)| start.env(key, value));
    let (status, _, stderr) = start.run().await;
    assert_eq!(status, 0, "{stderr}");
    // All else stays strict: what no such service has is a mistake.
    for (key, value) in [
        ("FPESA_PORT", "8080"),
        ("FPESA_SERVICE", "x"),
        ("FPESA_SERVICE_HOSTS", "x"),
        ("FPESA_SERVICE_PORT", "http"),
        ("FPESA_PORT_HTTP_TCP", "tcp://10.96.0.12:80"),
        ("FPESA_LISTEN_PORTS", "8080"),
        ("FPESA_fpesa_PORT", "tcp://10.96.0.12:80"),
    ] {
        let (status, _, stderr) = Start::up().command(&["config"]).env(key, value).run().await;
        assert_eq!(status, 2, "{key}={value}: {stderr}");
        assert!(stderr.contains(key), "{stderr}");
    }
}
