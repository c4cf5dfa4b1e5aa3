use std::{
    fs,
    net::SocketAddr,
    os::unix::fs::PermissionsExt,
    sync::{Arc, Mutex},
};

use reqwest::StatusCode;
use serde_json::{Value, json};

use super::{
    server::{TOKEN_FILE, Token},
    *,
};
use crate::{
    refusal::{Refusal, RefusalKind},
    versions::VersionStatus,
};

/// Remembers what it was told; knows `judge.0` alone.
#[derive(Default)]
pub(crate) struct Notebook {
    told: Mutex<Vec<Command>>,
}

impl Operator for Notebook {
    async fn status(&self) -> Result<NodeStatus, Refusal> {
        Ok(NodeStatus { run: "notes".into(), version: 7, ..NodeStatus::default() })
    }

    async fn dead(&self) -> Result<Vec<DeadTurn>, Refusal> {
        Ok(vec![DeadTurn { turn: "t1".into(), inbox: "judge".into(), ..DeadTurn::default() }])
    }

    async fn dead_turn(&self, turn: String) -> Result<DeadTurnStory, Refusal> {
        match turn.as_str() {
            "t1" => Ok(DeadTurnStory { asked: "why?".into(), ..DeadTurnStory::default() }),
            _ => Err(Refusal::new(RefusalKind::Unknown, "no such turn")),
        }
    }

    async fn versions(&self) -> Result<Vec<VersionStatus>, Refusal> {
        Ok(vec![VersionStatus { version: Some(7), state: "current".into(), ..VersionStatus::default() }])
    }

    async fn wishes(&self) -> Result<Vec<StandingWish>, Refusal> {
        Ok(vec![StandingWish { wish: 3, text: "No bold.".into(), ..StandingWish::default() }])
    }

    async fn audit(&self) -> Result<Vec<AuditEntry>, Refusal> {
        Err(Refusal::new(RefusalKind::Failed, "the page is torn"))
    }

    async fn operate(&self, command: Command) -> Result<Done, Refusal> {
        self.told.lock().unwrap().push(command.clone());
        match command {
            Command::Restart { name, .. } if name != "judge.0" => {
                Err(Refusal::new(RefusalKind::Unknown, format!("no actor `{name}`")))
            }
            Command::Pause { .. } => Err(Refusal::new(RefusalKind::NeverHere, "would refuse requests")),
            Command::Rollback { .. } => Err(Refusal::new(RefusalKind::NotNow, "a step is under way")),
            Command::Checkpoint {} => panic!("no room"),
            _ => Ok(Done::new("done")),
        }
    }
}

struct House {
    dir: tempfile::TempDir,
    operator: Arc<Notebook>,
    server: AdminServer,
}

impl House {
    async fn open() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let operator = Arc::new(Notebook::default());
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let port = Port { address: any, token: &Token::random() };
        let server = AdminServer::start(operator.clone(), None, dir.path(), Some(port)).await.unwrap();
        Self { dir, operator, server }
    }

    fn client(&self) -> AdminClient {
        AdminClient::connect(self.dir.path()).unwrap()
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}/{path}", self.server.address.unwrap())
    }

    fn token(&self) -> String {
        fs::read_to_string(self.dir.path().join(TOKEN_FILE)).unwrap().trim().to_owned()
    }
}

fn judge(drain: bool) -> Command {
    Command::Restart { name: "judge.0".into(), drain }
}

#[tokio::test]
async fn what_is_looked_at_arrives_whole() {
    let house = House::open().await;
    let client = house.client();
    assert_eq!(client.status().await.unwrap(), house.operator.status().await.unwrap());
    assert_eq!(client.dead().await.unwrap(), house.operator.dead().await.unwrap());
    assert_eq!(client.dead_turn("t1").await.unwrap().asked, "why?");
    assert_eq!(client.dead_turn("t2").await.unwrap_err().to_string(), "no such turn");
    assert_eq!(client.versions().await.unwrap(), house.operator.versions().await.unwrap());
    let torn = client.audit().await.unwrap_err();
    assert_eq!(torn.to_string(), "the page is torn");
}

#[tokio::test]
async fn every_command_reaches_the_operator_as_it_was_given() {
    let house = House::open().await;
    let name = || "judge.0".to_owned();
    let commands = [
        judge(true),
        Command::Kill { name: name() },
        Command::Resume { name: name() },
        Command::Drain { name: name() },
        Command::Scale { role: "judge".into(), count: 3 },
        Command::RetryDead { turns: vec!["a".into(), "b".into()] },
        Command::DropDead { turns: vec![] },
        Command::Stop { now: true },
    ];
    for command in commands.clone() {
        assert_eq!(house.client().operate(command).await.unwrap(), Done::new("done"));
    }
    assert_eq!(*house.operator.told.lock().unwrap(), commands);
}

#[tokio::test]
async fn refusals_keep_their_kind_and_a_panic_is_one_too() {
    let house = House::open().await;
    let refused = async |command| match house.client().operate(command).await.unwrap_err() {
        ClientError::Refused(refusal) => refusal,
        other => panic!("{other}"),
    };
    let unknown = refused(Command::Restart { name: "juge".into(), drain: false }).await;
    assert_eq!(unknown, Refusal::new(RefusalKind::Unknown, "no actor `juge`"));
    assert_eq!(refused(Command::Pause { name: "gateway".into() }).await.kind, RefusalKind::NeverHere);
    assert_eq!(refused(Command::Rollback { version: 1 }).await.kind, RefusalKind::NotNow);
    assert_eq!(refused(Command::Checkpoint {}).await.kind, RefusalKind::Failed);
    house.client().status().await.expect("it goes on after the panic");
}

#[tokio::test]
async fn http_statuses_tell_the_kinds_apart() {
    let house = House::open().await;
    let http = reqwest::Client::new();
    let post = async |verb: &str, body: &str| {
        let request = http.post(house.url(verb)).bearer_auth(house.token()).body(body.to_owned());
        let response = request.send().await.unwrap();
        let status = response.status().as_u16();
        let answer: Value = response.json().await.unwrap();
        (status, answer["error"]["message"].as_str().unwrap_or_default().to_owned())
    };
    assert_eq!(post("restart", r#"{"name": "judge.0"}"#).await, (200, String::new()));
    assert_eq!(post("stop", "").await, (200, String::new()));
    assert_eq!(post("restart", r#"{"name": "x"}"#).await.0, 404);
    assert_eq!(post("pause", r#"{"name": "gateway"}"#).await.0, 422);
    assert_eq!(post("rollback", r#"{"version": 1}"#).await.0, 409);
    assert_eq!(post("checkpoint", "").await.0, 500);
    assert_eq!(post("restart", "{").await.0, 400);
    assert_eq!(post("restart", r#"{"nam": "x"}"#).await.0, 400);
    assert_eq!(post("restrat", "").await, (404, "no verb `restrat` (did you mean \"restart\"?)".into()));
    assert_eq!(post("status", "").await.0, 400);
    let told = house.operator.told.lock().unwrap();
    assert!(told.contains(&Command::Stop { now: false }) && told.len() == 6, "{told:?}");
}

#[tokio::test]
async fn the_port_is_for_whoever_holds_the_token() {
    let house = House::open().await;
    let http = reqwest::Client::new();
    let stop = || http.post(house.url("stop"));
    for request in [stop(), stop().bearer_auth("wrong"), stop().bearer_auth("")] {
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
        let answer: Value = response.json().await.unwrap();
        assert_eq!(answer["error"]["kind"], json!("unauthorized"));
    }
    let look = http.get(house.url("status"));
    assert_eq!(look.send().await.unwrap().status(), StatusCode::UNAUTHORIZED);
    assert!(house.operator.told.lock().unwrap().is_empty());
    let right = stop().bearer_auth(house.token()).send().await.unwrap();
    assert_eq!(right.status(), StatusCode::OK);
    let mode = fs::metadata(house.dir.path().join(TOKEN_FILE)).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[tokio::test]
async fn one_node_has_the_folder_and_leaves_it_empty() {
    let house = House::open().await;
    let second = AdminServer::start(house.operator.clone(), None, house.dir.path(), None).await.unwrap_err();
    assert!(matches!(second, ServeError::Running { .. }), "{second}");
    house.client().status().await.expect("the first is not disturbed");
    house.server.stop().await;
    assert_eq!(fs::read_dir(house.dir.path()).unwrap().count(), 0);
    let gone = AdminClient::connect(house.dir.path()).err().expect("nobody is there");
    assert!(matches!(gone, ClientError::NotRunning { .. }), "{gone}");
}

#[tokio::test]
async fn a_run_folder_with_a_long_name_is_served_too() {
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().join("r".repeat(200));
    fs::create_dir(&run).unwrap();
    let server = AdminServer::start(Arc::new(Notebook::default()), None, &run, None).await.unwrap();
    assert_eq!(AdminClient::connect(&run).unwrap().status().await.unwrap().run, "notes");
    server.stop().await;
    assert_eq!(fs::read_dir(&run).unwrap().count(), 0);
}
