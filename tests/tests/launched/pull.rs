//! Models by name, against a server that speaks the hub's few routes.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path as FilePath, PathBuf},
    process::{Command, Output},
    sync::{Arc, Mutex, MutexGuard},
};

use axum::{
    Json, Router,
    body::{Body, Bytes},
    extract::{Path, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use openclaw_tests::binary;
use serde_json::{Value, json};
use sha1::{Digest, Sha1};
use sha2::Sha256;

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
const WEIGHTS: &str = "model.safetensors";

/// The hub, and what it does wrong.
#[derive(Default)]
struct Hub {
    address: String,
    files: BTreeMap<String, Vec<u8>>,
    /// Who asks must show this.
    token: Option<String>,
    /// Responses that break off in the middle.
    breaks: usize,
    /// What a break is followed by is refused.
    is_down: bool,
    /// A byte of the weights is another one.
    is_wrong: bool,
    /// Where each download of the weights began.
    starts: Vec<usize>,
}

type Shared = Arc<Mutex<Hub>>;

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn refused(hub: &Hub, headers: &HeaderMap) -> Option<StatusCode> {
    let shown = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let wanted = hub.token.as_ref().map(|token| format!("Bearer {token}"));
    wanted.is_some_and(|wanted| wanted != shown).then_some(StatusCode::UNAUTHORIZED)
}

fn sum(name: &str, content: &[u8]) -> String {
    if name == WEIGHTS {
        return hex(&Sha256::digest(content));
    }
    let mut sum = Sha1::new_with_prefix(format!("blob {}\0", content.len()));
    sum.update(content);
    hex(&sum.finalize())
}

async fn list(
    State(hub): State<Shared>,
    Path((owner, name, revision)): Path<(String, String, String)>,
    headers: HeaderMap,
) -> Response {
    let hub = locked(&hub);
    if let Some(status) = refused(&hub, &headers) {
        return status.into_response();
    }
    if (owner.as_str(), name.as_str()) != ("someone", "nano") || !["main", "v1", COMMIT].contains(&&*revision)
    {
        return StatusCode::NOT_FOUND.into_response();
    }
    let siblings = hub.files.iter().map(|(name, content)| {
        let sum = sum(name, content);
        let mut file = json!({"rfilename": name, "size": content.len(), "blobId": sum});
        if name == WEIGHTS {
            file["lfs"] = json!({"sha256": sum, "size": content.len(), "pointerSize": 134});
        }
        file
    });
    Json(json!({"id": "someone/nano", "sha": COMMIT, "siblings": siblings.collect::<Vec<_>>()}))
        .into_response()
}

async fn resolve(
    State(hub): State<Shared>,
    Path((_, _, revision, file)): Path<(String, String, String, String)>,
    headers: HeaderMap,
) -> Response {
    let hub = locked(&hub);
    if let Some(status) = refused(&hub, &headers) {
        return status.into_response();
    }
    assert_eq!(revision, COMMIT, "every file is of the commit that was listed");
    let Some(content) = hub.files.get(&file) else { return StatusCode::NOT_FOUND.into_response() };
    let sum = format!("\"{}\"", sum(&file, content));
    if file != WEIGHTS {
        return sent(content, &headers, &[("etag", sum), ("x-repo-commit", COMMIT.to_owned())]);
    }
    let there = [
        ("location", format!("{}/cdn/{file}", hub.address)),
        ("x-linked-etag", sum),
        ("x-linked-size", content.len().to_string()),
        ("x-repo-commit", COMMIT.to_owned()),
    ];
    (StatusCode::FOUND, there).into_response()
}

fn range(headers: &HeaderMap, length: usize) -> (usize, usize) {
    let asked = headers.get(header::RANGE).and_then(|range| range.to_str().ok()?.strip_prefix("bytes="));
    let (from, to) = asked.and_then(|asked| asked.split_once('-')).unwrap_or(("0", ""));
    let end = to.parse::<usize>().map_or(length, |to| to + 1);
    (from.parse().expect("a number"), end.min(length))
}

fn sent(content: &[u8], headers: &HeaderMap, told: &[(&'static str, String)]) -> Response {
    let (from, end) = range(headers, content.len());
    if from >= end {
        return StatusCode::RANGE_NOT_SATISFIABLE.into_response();
    }
    let place = format!("bytes {from}-{}/{}", end - 1, content.len());
    let mut response =
        (StatusCode::PARTIAL_CONTENT, [(header::CONTENT_RANGE, place)], content[from..end].to_vec())
            .into_response();
    for (name, value) in told {
        response.headers_mut().insert(*name, value.parse().expect("a header"));
    }
    response
}

async fn deliver(State(hub): State<Shared>, headers: HeaderMap) -> Response {
    let mut hub = locked(&hub);
    let mut content = hub.files[WEIGHTS].clone();
    let (from, end) = range(&headers, content.len());
    if end - from > 1 {
        hub.starts.push(from);
        if hub.is_wrong {
            content[1000] ^= 1;
        }
        if hub.breaks > 0 {
            hub.breaks -= 1;
            let half = content[from..from + (end - from) / 2].to_vec();
            let parts = [Ok(Bytes::from(half)), Err(std::io::Error::other("cut"))];
            let place = format!("bytes {from}-{}/{}", end - 1, content.len());
            let length = (end - from).to_string();
            let told = [(header::CONTENT_RANGE, place), (header::CONTENT_LENGTH, length)];
            return (StatusCode::PARTIAL_CONTENT, told, Body::from_stream(futures::stream::iter(parts)))
                .into_response();
        }
        if hub.is_down {
            return StatusCode::SERVICE_UNAVAILABLE.into_response();
        }
    }
    sent(&content, &headers, &[])
}

fn locked(hub: &Shared) -> MutexGuard<'_, Hub> {
    hub.lock().expect("nobody panicked")
}

/// A hub that holds the shipped model, and an empty cache.
struct Setup {
    hub: Shared,
    home: tempfile::TempDir,
}

impl Setup {
    async fn new() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = format!("http://{}", listener.local_addr().expect("an address"));
        let mut files: BTreeMap<String, Vec<u8>> = fs::read_dir("../configs/models/nano")
            .expect("the shipped model")
            .map(|entry| entry.expect("an entry"))
            .map(|entry| {
                (entry.file_name().to_string_lossy().into_owned(), fs::read(entry.path()).expect("a file"))
            })
            .collect();
        files.insert("README.md".to_owned(), b"not part of a checkpoint".to_vec());
        let hub = Arc::new(Mutex::new(Hub { address, files, ..Hub::default() }));
        let routes = Router::new()
            .route("/api/models/{owner}/{name}/revision/{revision}", get(list))
            .route("/{owner}/{name}/resolve/{revision}/{*file}", get(resolve))
            .route("/cdn/model.safetensors", get(deliver))
            .with_state(hub.clone());
        tokio::spawn(async move { axum::serve(listener, routes).await });
        Self { hub, home: tempfile::tempdir().expect("a folder") }
    }

    async fn run(&self, arguments: &[&str]) -> Output {
        self.run_with(arguments, &[]).await
    }

    async fn run_with(&self, arguments: &[&str], variables: &[(&str, &str)]) -> Output {
        let mut command = Command::new(binary());
        command.current_dir("..").args(arguments).env("HF_HOME", self.home.path());
        command.env("HF_ENDPOINT", &locked(&self.hub).address).env_remove("HF_TOKEN");
        // The server is of this machine.
        for proxy in ["http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"] {
            command.env_remove(proxy);
        }
        command.envs(variables.iter().copied());
        let run = move || command.output().expect("the binary can be run");
        tokio::task::spawn_blocking(run).await.expect("no panic")
    }

    fn folder(&self) -> PathBuf {
        self.home.path().join("hub/models--someone--nano/snapshots").join(COMMIT)
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn told(output: &Output) -> String {
    text(&output.stdout) + &text(&output.stderr)
}

fn same(one: &FilePath, other: &FilePath) -> bool {
    fs::read(one).expect("a file") == fs::read(other).expect("a file")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_is_pulled_once_and_named_in_a_topology() {
    let setup = Setup::new().await;
    let set = ["--set", "models.policy.path=hf:someone/nano"];
    let check = [&["check", "configs/personal-agent.toml"][..], &set].concat();
    let output = setup.run(&check).await;
    assert_eq!(output.status.code(), Some(2), "{}", told(&output));
    let wanted = "hf:someone/nano is not on this machine yet: openclaw-rl pull someone/nano";
    assert!(told(&output).contains(wanted), "{}", told(&output));

    let output = setup.run(&["pull", "someone/nano"]).await;
    assert!(output.status.success(), "{}", told(&output));
    let found = told(&output);
    assert!(found.contains("qwen3, ") && found.contains("path = \"hf:someone/nano\""), "{found}");
    let shipped = FilePath::new("../configs/models/nano");
    for file in [WEIGHTS, "config.json", "tokenizer.json", "chat_template.jinja"] {
        assert!(same(&setup.folder().join(file), &shipped.join(file)), "{file}");
    }
    assert!(!setup.folder().join("README.md").exists());
    assert!(setup.run(&check).await.status.success());

    let before = locked(&setup.hub).starts.len();
    assert!(setup.run(&["pull", "someone/nano", "--revision", "v1"]).await.status.success());
    assert_eq!(locked(&setup.hub).starts.len(), before, "what is there is not fetched again");
    let set = ["--set", "models.policy.path=hf:someone/nano@v1"];
    let output = setup.run(&[&["check", "configs/personal-agent.toml"][..], &set].concat()).await;
    assert!(output.status.success(), "{}", told(&output));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_breaks_off_goes_on_where_it_was_in_this_run_and_the_next() {
    let setup = Setup::new().await;
    locked(&setup.hub).breaks = 2;
    let output = setup.run(&["pull", "someone/nano"]).await;
    assert!(output.status.success(), "{}", told(&output));
    let starts = std::mem::take(&mut locked(&setup.hub).starts);
    assert!(
        starts.len() == 3 && starts[0] == 0 && starts[0] < starts[1] && starts[1] < starts[2],
        "{starts:?}"
    );

    fs::remove_dir_all(setup.home.path().join("hub")).expect("the cache");
    (locked(&setup.hub).breaks, locked(&setup.hub).is_down) = (1, true);
    let output = setup.run(&["pull", "someone/nano"]).await;
    assert_eq!(output.status.code(), Some(1), "{}", told(&output));
    assert!(told(&output).contains("cannot pull model.safetensors of someone/nano"), "{}", told(&output));
    locked(&setup.hub).is_down = false;
    locked(&setup.hub).starts.clear();
    assert!(setup.run(&["pull", "someone/nano"]).await.status.success());
    assert!(locked(&setup.hub).starts[0] > 0, "{:?}", locked(&setup.hub).starts);
    assert!(same(&setup.folder().join(WEIGHTS), FilePath::new("../configs/models/nano/model.safetensors")));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_what_the_hub_lists_is_thrown_away() {
    let setup = Setup::new().await;
    locked(&setup.hub).is_wrong = true;
    let output = setup.run(&["pull", "someone/nano"]).await;
    assert_eq!(output.status.code(), Some(1));
    let wanted = "cannot pull model.safetensors of someone/nano: it is not what the hub lists";
    assert!(told(&output).contains(wanted), "{}", told(&output));
    assert!(!setup.folder().join(WEIGHTS).exists());
    locked(&setup.hub).is_wrong = false;
    assert!(setup.run(&["pull", "someone/nano"]).await.status.success());

    // A beginning that is none, as one of another file would be.
    let sum = sum(WEIGHTS, &locked(&setup.hub).files[WEIGHTS]);
    let blob = setup.home.path().join("hub/models--someone--nano/blobs").join(sum);
    fs::remove_file(setup.folder().join(WEIGHTS)).expect("a link");
    let mut longer = fs::read(&blob).expect("the weights");
    longer.push(0);
    fs::write(blob.with_extension("part"), longer).expect("a file");
    fs::remove_file(&blob).expect("the weights");
    let output = setup.run(&["pull", "someone/nano"]).await;
    assert!(output.status.success(), "{}", told(&output));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_pulled_is_said_with_the_way_on() {
    let setup = Setup::new().await;
    let refused = async |arguments: &[&str], wanted: &[&str]| {
        let output = setup.run(arguments).await;
        assert!(!output.status.success());
        for wanted in wanted {
            assert!(told(&output).contains(wanted), "{arguments:?}: {}", told(&output));
        }
    };
    refused(&["pull", "someone/other"], &["cannot pull someone/other", "no such model"]).await;
    refused(&["pull", "someone/nano@v2"], &["cannot pull someone/nano@v2", "revision"]).await;
    refused(&["pull", "some one/nano"], &["is not OWNER/NAME or OWNER/NAME@REVISION"]).await;
    refused(&["pull", "someone/nano", "--file", "a.gguf"], &["someone/nano has no file a.gguf"]).await;

    locked(&setup.hub).token = Some("secret".to_owned());
    refused(&["pull", "someone/nano"], &["401", "HF_TOKEN"]).await;
    let output = setup.run_with(&["pull", "someone/nano"], &[("HF_TOKEN", "secret")]).await;
    assert!(output.status.success() && !told(&output).contains("secret"), "{}", told(&output));
    locked(&setup.hub).token = None;

    fs::remove_dir_all(setup.home.path().join("hub")).expect("the cache");
    let mut config: Value =
        serde_json::from_slice(&locked(&setup.hub).files["config.json"]).expect("a configuration");
    config["model_type"] = "mamba".into();
    locked(&setup.hub).files.insert("config.json".to_owned(), config.to_string().into_bytes());
    refused(&["pull", "someone/nano"], &["cannot be run", "mamba"]).await;
    assert!(!setup.folder().join(WEIGHTS).exists(), "its weights were not fetched");

    let gguf = "nano-q4_0.gguf".to_owned();
    let files = BTreeMap::from([(gguf.clone(), b"GGUF".to_vec())]);
    locked(&setup.hub).files = files;
    refused(&["pull", "someone/nano"], &["--file", "nano-q4_0.gguf", "openclaw-rl import"]).await;
    let output = setup.run(&["pull", "someone/nano", "--file", &gguf]).await;
    let at = setup.folder().join(&gguf);
    assert_eq!(text(&output.stdout).trim(), at.display().to_string(), "{}", told(&output));
    assert_eq!(fs::read(at).expect("a file"), b"GGUF");
}
