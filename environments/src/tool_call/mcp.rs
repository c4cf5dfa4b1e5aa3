//! Servers of tools, which speak the Model Context Protocol. They are the operator's own programs and run outside of any
//! sandbox. Their replies come in by a runtime of their own, on the thread of the world.

use std::{collections::BTreeMap, process::Stdio, time::Duration};

use rmcp::{
    RoleClient, ServiceExt,
    model::{CallToolRequestParams, CallToolResult, ContentBlock, ResourceContents},
    service::{RunningService, ServiceError},
    transport::StreamableHttpClientTransport,
};
use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::Value;
use tokio::{
    process::{Child, ChildStdin, ChildStdout, Command},
    runtime::{Builder, Runtime},
    time::timeout,
};

use super::settings::{Server, refuse};
use crate::stop::Stop;
use crate::world::{Call, Tool, WorldError};

/// Until a server has said what it offers.
const START: Duration = Duration::from_secs(60);
/// Until a server has heard that it is over.
const GOODBYE: Duration = Duration::from_secs(1);

/// Servers that run, for one world.
pub(super) struct Servers {
    /// None once they are closed.
    runtime: Option<Runtime>,
    running: Vec<Running>,
    tools: Vec<Tool>,
    /// Which server offers what.
    places: BTreeMap<String, usize>,
}

struct Running {
    name: String,
    child: Option<Child>,
    service: Option<RunningService<RoleClient, ()>>,
}

/// What a call gave, and whether it failed.
pub(super) type Answer = (String, bool);

impl Servers {
    /// Starts them and asks what they offer.
    pub(super) fn start(servers: &[Server], stop: &Stop) -> Result<Self, WorldError> {
        let runtime = Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| WorldError::Broken(format!("mcp: no runtime: {error}")))?;
        let mut all = Self { runtime: None, running: Vec::new(), tools: Vec::new(), places: BTreeMap::new() };
        let started = runtime.block_on(async {
            for server in servers {
                tokio::select! {
                    started = timeout(START, all.add(server)) => match started {
                        Ok(started) => started?,
                        Err(_) => return Err(broken(&server.name, "it does not answer")),
                    },
                    () = stop.wanted() => return Err(WorldError::Interrupted),
                }
            }
            Ok(())
        });
        // Now it is closed when it is dropped.
        all.runtime = Some(runtime);
        started.map(|()| all)
    }

    /// What they offer, in the order of the servers.
    pub(super) fn tools(&self) -> &[Tool] {
        &self.tools
    }

    /// Whether one of them offers it.
    pub(super) fn offer(&self, tool: &str) -> bool {
        self.places.contains_key(tool)
    }

    /// Calls what one of them offers.
    pub(super) fn call(&self, call: &Call, time: Duration, stop: &Stop) -> Result<Answer, WorldError> {
        let running = self.places.get(&call.name).map(|at| &self.running[*at]);
        let Some((runtime, running)) = self.runtime.as_ref().zip(running) else {
            return Err(WorldError::Broken(format!("mcp: no server offers {} any more", call.name)));
        };
        let Some(service) = &running.service else {
            return Err(broken(&running.name, "it is closed"));
        };
        let asked = CallToolRequestParams::new(call.name.clone()).with_arguments(call.arguments.clone());
        let answer = runtime.block_on(async {
            tokio::select! {
                answer = timeout(time, service.call_tool(asked)) => Ok(answer),
                () = stop.wanted() => Err(WorldError::Interrupted),
            }
        })?;
        match answer {
            Err(_) => Ok(("Ended: it took too long.".to_owned(), true)),
            Ok(Ok(result)) => Ok((text(&result), result.is_error == Some(true))),
            Ok(Err(ServiceError::McpError(error))) => Ok((error.message.to_string(), true)),
            Ok(Err(error)) => Err(broken(&running.name, error)),
        }
    }

    /// Ends them, and waits until they have ended. Again, it does nothing.
    pub(super) fn close(&mut self) {
        let Some(runtime) = self.runtime.take() else { return };
        runtime.block_on(async {
            for running in &mut self.running {
                if let Some(mut service) = running.service.take() {
                    let _ = service.close_with_timeout(GOODBYE).await;
                }
                if let Some(mut child) = running.child.take() {
                    end(&mut child).await;
                }
            }
        });
        // A name that is still being looked up is waited for by nobody.
        runtime.shutdown_background();
    }

    async fn add(&mut self, server: &Server) -> Result<(), WorldError> {
        let at = self.running.len();
        self.running.push(Running { name: server.name.clone(), child: None, service: None });
        // Whoever started is in the list before it is talked to, so that it ends in any case.
        let service = match (&server.command, &server.url) {
            (Some(command), _) => {
                let (child, pipes) = spawn(&server.name, command)?;
                self.running[at].child = Some(child);
                ().serve(pipes).await
            }
            (None, url) => {
                let url = url.clone().unwrap_or_default();
                ().serve(StreamableHttpClientTransport::from_uri(url)).await
            }
        };
        let service = self.running[at].service.insert(service.map_err(|error| broken(&server.name, error))?);
        for tool in service.list_all_tools().await.map_err(|error| broken(&server.name, error))? {
            let tool = Tool {
                name: tool.name.to_string(),
                description: tool.description.unwrap_or_default().to_string(),
                parameters: Value::Object((*tool.input_schema).clone()),
            };
            if let Some(other) = self.places.insert(tool.name.clone(), at) {
                let (other, name) = (&self.running[other].name, &server.name);
                return refuse("mcp", format!("{other} and {name} both offer {}", tool.name));
            }
            self.tools.push(tool);
        }
        Ok(())
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        self.close();
    }
}

/// Starts a server in a group of processes of its own.
fn spawn(name: &str, command: &[String]) -> Result<(Child, (ChildStdout, ChildStdin)), WorldError> {
    let (program, arguments) = command.split_first().ok_or_else(|| broken(name, "its command is empty"))?;
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| WorldError::Refused(format!("mcp: {name}: cannot start {program}: {error}")))?;
    let pipes = child.stdout.take().zip(child.stdin.take());
    pipes.map(|pipes| (child, pipes)).ok_or_else(|| broken(name, "it has no pipes"))
}

/// Ends a server with all that it started.
async fn end(child: &mut Child) {
    let pid = child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
    if let Some(pid) = pid {
        // There is no such group if all of it has ended.
        let _ = kill_process_group(pid, Signal::KILL);
    }
    if let Err(error) = child.kill().await {
        tracing::warn!(%error, "a server of tools does not end");
    }
}

/// What a server answered, in words.
fn text(result: &CallToolResult) -> String {
    let of = |content: &ContentBlock| match content {
        ContentBlock::Text(text) => text.text.clone(),
        ContentBlock::Image(_) => "[image]".to_owned(),
        ContentBlock::Audio(_) => "[audio]".to_owned(),
        ContentBlock::Resource(embedded) => match &embedded.resource {
            ResourceContents::TextResourceContents { text, .. } => text.clone(),
            ResourceContents::BlobResourceContents { uri, .. } => format!("[resource {uri}]"),
            _ => "[resource]".to_owned(),
        },
        ContentBlock::ResourceLink(link) => format!("[resource {}]", link.uri),
        _ => "[something else]".to_owned(),
    };
    let mut parts: Vec<String> = result.content.iter().map(of).collect();
    if let Some(structured) = &result.structured_content {
        // Most servers say the same once more as text.
        let said = |part: &String| serde_json::from_str::<Value>(part).is_ok_and(|part| part == *structured);
        if !parts.iter().any(said) {
            parts.push(structured.to_string());
        }
    }
    parts.join("\n")
}

fn broken(name: &str, why: impl std::fmt::Display) -> WorldError {
    WorldError::Broken(format!("mcp: {name}: {why}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_a_server_answers_is_words() {
        let said = |result: Value| text(&serde_json::from_value(result).expect("a result"));
        let parts = json!([
            {"type": "text", "text": "a cat"},
            {"type": "image", "data": "AAAA", "mimeType": "image/png"},
            {"type": "resource", "resource": {"uri": "file:///a", "text": "its name"}},
        ]);
        assert_eq!(said(json!({"content": parts})), "a cat\n[image]\nits name");
        assert_eq!(said(json!({"content": [], "structuredContent": {"a": 1}})), r#"{"a":1}"#);
        let twice =
            json!({"content": [{"type": "text", "text": "{\"a\": 1}"}], "structuredContent": {"a": 1}});
        assert_eq!(said(twice), r#"{"a": 1}"#);
    }
}
