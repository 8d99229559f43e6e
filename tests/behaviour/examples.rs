//! Every configuration in the repository boots and serves.

use std::path::Path;

use tollgate::model::AuthKind;

use crate::harness::{Gateway, get, load_example};

#[test]
fn every_example_boots() {
    let conf = Path::new(env!("CARGO_MANIFEST_DIR")).join("conf");
    let examples = std::fs::read_dir(conf.join("examples")).unwrap();
    let mut files: Vec<_> = examples.map(|entry| entry.unwrap().path()).collect();
    files.extend([conf.join("tollgate.toml"), conf.join("full.toml")]);
    assert!(files.len() > 8, "{files:?}");
    for file in files {
        let (_folder, loaded) = load_example(&file);
        let config = loaded
            .unwrap_or_else(|diagnostics| panic!("{diagnostics}"))
            .config;
        let first = config.gateways.first().unwrap();
        let asks_for_keys = first.auth.kind() != AuthKind::None;
        let host = first.hosts.first().unwrap().to_string();
        let host = host.replace('*', "example");
        let gateway = Gateway::start_config(config);
        assert_eq!(gateway.admin("/healthz").status, 200, "{}", file.display());
        let mut client = gateway.client();
        let request = String::from_utf8(get("/nowhere", "")).unwrap();
        client.send(request.replace("host: test", &format!("host: {host}")));
        let reply = client.reply();
        // Nobody listens behind it, so this is as far as a request gets.
        assert!(
            matches!(
                (reply.status, asks_for_keys),
                (404 | 400, _) | (308, _) | (401, true)
            ),
            "{}: {}",
            file.display(),
            reply.text()
        );
    }
}
