//! Routes of the published environment servers that are other words for a step: `/exec_tool`, `/exec`, `/diff`, `/get_obs`.

use std::{sync::Arc, time::Duration};

use axum::{body::Body, extract::State, response::Response};
use openclaw_environments::{
    wire,
    world::{Action, Call, CallResult, Tool, WorldError, text_of},
};
use serde_json::{Map, Value, json};

use crate::{
    routes::{Asked, settle},
    server::{Fault, Server},
    stage::Stage,
};

/// Of a command that says nothing else.
const EXEC: Duration = Duration::from_secs(180);
const DIFF: Duration = Duration::from_secs(60);

/// A call of a tool; what it gave is text.
pub async fn exec_tool(State(server): State<Arc<Server>>, body: Body) -> Response {
    let asked = async {
        let mut asked = Asked::read(body).await?;
        let call = asked.take("tool_call").ok_or_else(|| Fault::Request("tool_call: missing".to_owned()))?;
        let call =
            wire::read_call(call, 0).map_err(|problem| Fault::Request(format!("tool_call: {problem}")))?;
        asked
            .of(&server, "exec_tool", move |stage| {
                let outcome = stage.step(&Action::Calls(vec![call]))?;
                let reward = outcome.rule.map(|rule| rule.score);
                let text = wire::words(&outcome.observation);
                Ok(json!({"ok": true, "observation": text, "reward": reward, "done": outcome.done}))
            })
            .await
    };
    settle(asked.await)
}

/// A command in the shell of an environment that has one.
pub async fn exec(State(server): State<Arc<Server>>, body: Body) -> Response {
    let asked = async {
        let mut asked = Asked::read(body).await?;
        let command = match asked.take("command") {
            Some(Value::String(command)) => command,
            _ => return Err(Fault::Request("command: missing, or no text".to_owned())),
        };
        let env = match asked.take("env") {
            None => Map::new(),
            Some(Value::Object(env)) => env,
            Some(_) => return Err(Fault::Request("env: no object".to_owned())),
        };
        let cwd = asked.name("cwd")?.map(str::to_owned);
        let line = Line::new(cwd.as_deref(), &env, &command)?;
        let limit = asked.seconds("timeout")?.unwrap_or(EXEC);
        asked
            .of(&server, "exec", move |stage| match line.run(stage, limit) {
                Ok((returncode, output)) => {
                    Ok(json!({"ok": true, "returncode": returncode, "output": output}))
                }
                Err(Fault::World(WorldError::Interrupted)) => {
                    let output = format!("The command took longer than {} seconds.", limit.as_secs_f64());
                    Ok(json!({"ok": true, "returncode": -1, "output": output}))
                }
                Err(fault) => Err(fault),
            })
            .await
    };
    settle(asked.await)
}

/// What has changed in a repository, as a patch.
pub async fn diff(State(server): State<Arc<Server>>, body: Body) -> Response {
    let asked = async {
        let asked = Asked::read(body).await?;
        let line = Line::new(asked.name("cwd")?, &Map::new(), "git add -A && git diff --cached")?;
        asked
            .of(&server, "diff", move |stage| {
                let (returncode, output) = line.run(stage, DIFF)?;
                if output.lines().any(|line| line.ends_with(" bytes left out]") && line.starts_with('[')) {
                    let why = "the patch is longer than what this environment shows of an output";
                    return Err(WorldError::Broken(why.to_owned()).into());
                }
                let failed = returncode != 0;
                let (patch, error) = if failed { (String::new(), output) } else { (output, String::new()) };
                Ok(json!({"ok": true, "patch": patch, "returncode": returncode, "error": error}))
            })
            .await
    };
    settle(asked.await)
}

/// What was seen last, once more.
pub async fn get_obs(State(server): State<Arc<Server>>, body: Body) -> Response {
    let asked = async {
        let asked = Asked::read(body).await?;
        asked
            .of(&server, "get_obs", |stage| {
                Ok(json!({"ok": true, "observation": wire::observation(stage.seen()?)}))
            })
            .await
    };
    settle(asked.await)
}

/// A patch and a script of the client's are no part of a task here.
pub fn refuse_foreign_evaluation(asked: &Asked) -> Result<(), Fault> {
    for key in ["patch", "eval_script"] {
        if asked.has(key) {
            return Err(Fault::Request(format!(
                "{key}: a task is evaluated by its own tests here, and by nothing else"
            )));
        }
    }
    Ok(())
}

/// A command that tells its exit code behind its output.
struct Line {
    text: String,
    mark: String,
}

impl Line {
    fn new(cwd: Option<&str>, env: &Map<String, Value>, command: &str) -> Result<Self, Fault> {
        let mut text = "(\n".to_owned();
        if let Some(cwd) = cwd {
            text += &format!("cd -- {} || exit\n", quoted(cwd));
        }
        for (name, value) in env {
            let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
            let Value::String(value) = value else {
                return Err(Fault::Request(format!("env.{name}: no text")));
            };
            if name.is_empty() || !name.chars().all(plain) || name.starts_with(|c: char| c.is_ascii_digit()) {
                return Err(Fault::Request(format!("env: {name:?} is no name of a variable")));
            }
            text += &format!("export {name}={}\n", quoted(value));
        }
        // Whoever wrote the command does not know it.
        let mark = format!("{:032x}", rand::random::<u128>());
        text += &format!("{command}\n) 2>&1\nprintf '\\n%s %s\\n' {mark} $?");
        Ok(Self { text, mark })
    }

    /// Its exit code, and what it wrote.
    fn run(&self, stage: &mut Stage, limit: Duration) -> Result<(i64, String), Fault> {
        let tool = shell(&stage.task()?.tools);
        let tool = tool
            .ok_or_else(|| Fault::Request("this environment has no tool that takes a command".to_owned()))?;
        let arguments = Map::from_iter([("command".to_owned(), json!(self.text))]);
        let call = Call { id: "exec".to_owned(), name: tool.to_owned(), arguments };
        stage.at_most(limit);
        let outcome = stage.step(&Action::Calls(vec![call]))?;
        let results: &[CallResult] = &outcome.observation.results;
        let said = results.first().map(|result| text_of(&result.parts)).unwrap_or_default();
        match said.rfind(&self.mark) {
            Some(at) => {
                let code = said[at + self.mark.len()..].split_whitespace().next();
                let code = code.and_then(|code| code.parse().ok()).unwrap_or(-1);
                let output = &said[..at];
                Ok((code, output.strip_suffix('\n').unwrap_or(output).to_owned()))
            }
            // It did not come so far: its time was over, or its shell was.
            None => Ok((-1, said)),
        }
    }
}

/// The tool that takes a command.
fn shell(tools: &[Tool]) -> Option<&str> {
    let takes = |tool: &&Tool| {
        let required = tool.parameters["required"].as_array();
        required.is_some_and(|names| names.iter().any(|name| name == "command"))
    };
    tools.iter().find(takes).map(|tool| tool.name.as_str())
}

/// For a shell.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}
