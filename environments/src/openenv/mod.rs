//! Environments of OpenEnv, by its socket: one tool whose arguments are the environment's action, or the tools that an
//! environment offers by the Model Context Protocol, and its rewards.

mod socket;
mod world;

use std::{
    env,
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use reqwest::{Url, header::HeaderValue};
use serde::Deserialize;
use serde_json::Value;

use self::{socket::Door, world::Seat};
use crate::{
    registry::{Kind, settings},
    world::{Environment, Part, Said, Spec, Split, Task, Tool, World, WorldError},
};

/// In the registry.
pub const KIND: Kind = Kind {
    name: "openenv",
    about: "an environment of OpenEnv, by its socket",
    make: |table| Ok(Arc::new(OpenEnv::new(settings(table)?)?)),
};

/// Which of the rewards an episode is worth.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reward {
    /// All of them together.
    #[default]
    Sum,
    /// The last that was given.
    Last,
}

/// How a task is asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NumberAs {
    /// A `seed` below 2^31; those of held-out tasks are odd.
    #[default]
    Seed,
    /// A `task_index`; needs `tasks` and `splits`.
    TaskIndex,
}

/// What words of an agent are that are no call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Words {
    /// The end of the episode.
    #[default]
    End,
    /// An action, where it has one field that is needed, and that is text.
    Act,
}

/// `[environments.NAME]` of this kind.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Where it listens: `ws://HOST:PORT`.
    pub url: String,
    /// The variable that holds its token, where it wants one.
    #[serde(default)]
    pub token_env: Option<String>,
    /// What the agent is told before the first observation; what the environment says of itself, unless given.
    #[serde(default)]
    pub instruction: Option<String>,
    /// How a task is asked for: `seed`, `task_index`.
    #[serde(default)]
    pub number_as: NumberAs,
    /// How many tasks there are, to train on and held out; without an end, unless given.
    #[serde(default)]
    pub tasks: Option<(u64, u64)>,
    /// What `split` is in a reset, for tasks to train on and held out ones; nothing, unless given.
    #[serde(default)]
    pub splits: Option<(String, String)>,
    /// What else a reset says.
    #[serde(default)]
    pub reset: toml::Table,
    /// What an episode is worth: the `sum` of its rewards, or the `last`.
    #[serde(default)]
    pub reward: Reward,
    /// An episode that is worth more is a success.
    #[serde(default)]
    pub success_above: f64,
    /// What one is worth that has no reward, because the agent did not come to its end.
    #[serde(default)]
    pub unfinished: f64,
    /// What words are: the `end`, or an `act`.
    #[serde(default)]
    pub words: Words,
    /// The name of the tool.
    #[serde(default = "default_tool")]
    pub tool: String,
    /// The most steps of an episode, 1 to 10000.
    #[serde(default = "default_steps")]
    pub steps: u32,
    /// The most that one answer takes, in seconds, 1 to 86400.
    #[serde(default = "default_step_secs")]
    pub step_secs: u64,
    /// How long a server may be away, or full, in seconds, 1 to 3600.
    #[serde(default = "default_wait_secs")]
    pub wait_secs: u64,
    /// The most that is shown of an observation, in bytes.
    #[serde(default = "default_output_bytes")]
    pub output_bytes: usize,
}

fn default_tool() -> String {
    "act".to_owned()
}

fn default_steps() -> u32 {
    20
}

fn default_step_secs() -> u64 {
    60
}

fn default_wait_secs() -> u64 {
    60
}

fn default_output_bytes() -> usize {
    8192
}

/// The environment.
struct OpenEnv {
    spec: Spec,
    shared: Arc<Shared>,
}

/// What its worlds share.
struct Shared {
    settings: Settings,
    url: Url,
    door: OnceLock<Arc<Door>>,
    known: OnceLock<Known>,
}

/// What an environment says of itself.
struct Known {
    description: String,
    hands: Hands,
}

/// How it is acted in.
enum Hands {
    /// By one tool, whose arguments are the action.
    Action { parameters: Value, only_text: Option<String> },
    /// By its own tools.
    Mcp(Vec<Tool>),
}

impl OpenEnv {
    fn new(settings: Settings) -> Result<Self, WorldError> {
        let refuse = |message: String| Err(WorldError::Settings(message));
        let mut url = match Url::parse(&settings.url) {
            Ok(url) => url,
            Err(error) => return refuse(format!("url: {error}")),
        };
        let scheme = match url.scheme() {
            "ws" | "http" => "http",
            "wss" | "https" => "https",
            _ => return refuse(format!("url: \"{}\" is not ws://HOST:PORT", settings.url)),
        };
        // Written anew, as some changes of a scheme are not allowed.
        let rest = url.as_str().split_once("://").map(|(_, rest)| rest.to_owned()).unwrap_or_default();
        url = Url::parse(&format!("{scheme}://{rest}"))
            .map_err(|error| WorldError::Settings(format!("url: {error}")))?;
        if !url.username().is_empty() || url.password().is_some() {
            return refuse("url: a token comes by token_env, and not in an address".to_owned());
        }
        let path = url.path().trim_end_matches('/').trim_end_matches("/ws").to_owned();
        url.set_path(&path);
        for (name, value, most) in [
            ("steps", u64::from(settings.steps), 10_000),
            ("step_secs", settings.step_secs, 86_400),
            ("wait_secs", settings.wait_secs, 3600),
            ("output_bytes", settings.output_bytes as u64, 1 << 20),
        ] {
            if !(1..=most).contains(&value) {
                return refuse(format!("{name}: {value} is not from 1 to {most}"));
            }
        }
        let plain = |c: char| c.is_ascii_alphanumeric() || "_-".contains(c);
        if settings.tool.is_empty() || settings.tool.len() > 64 || !settings.tool.chars().all(plain) {
            return refuse(format!("tool: {:?} is no name of a tool", settings.tool));
        }
        for (name, value) in [("success_above", settings.success_above), ("unfinished", settings.unfinished)]
        {
            if !(value as f32).is_finite() {
                return refuse(format!("{name}: {value} is no reward"));
            }
        }
        if settings.number_as == NumberAs::TaskIndex
            && (settings.tasks.is_none() || settings.splits.is_none())
        {
            return refuse("number_as: task_index needs tasks and splits".to_owned());
        }
        let patience = Duration::from_secs(settings.step_secs + settings.wait_secs + 10);
        let spec = Spec { kind: KIND.name, steps: settings.steps, patience };
        let shared = Shared { settings, url, door: OnceLock::new(), known: OnceLock::new() };
        Ok(Self { spec, shared: Arc::new(shared) })
    }
}

impl Shared {
    fn door(&self) -> Result<Arc<Door>, WorldError> {
        if let Some(door) = self.door.get() {
            return Ok(door.clone());
        }
        let token = match &self.settings.token_env {
            None => None,
            Some(variable) => {
                let token = env::var(variable).ok().filter(|token| !token.is_empty());
                let token =
                    token.ok_or_else(|| WorldError::Refused(format!("token_env: {variable} is not set")))?;
                let mut token = HeaderValue::try_from(format!("Bearer {token}"))
                    .map_err(|_| WorldError::Refused(format!("token_env: {variable} holds no token")))?;
                token.set_sensitive(true);
                Some(token)
            }
        };
        let made = Door::new(self.url.clone(), token)?;
        Ok(self.door.get_or_init(|| Arc::new(made)).clone())
    }

    fn wait(&self) -> Duration {
        Duration::from_secs(self.settings.wait_secs)
    }

    /// What the environment says of itself, asked once.
    fn known(&self) -> Result<&Known, WorldError> {
        if let Some(known) = self.known.get() {
            return Ok(known);
        }
        let (door, wait) = (self.door()?, self.wait());
        let asks = door.clone();
        let (schema, about, offered) = door.io.wait_for(async move {
            let until = Instant::now() + wait;
            let schema = asks.get("/schema", until).await?;
            let about = asks.get("/metadata", until).await?;
            // An action with nothing of its own is that of an environment which offers tools.
            let offered = match fields(&schema["action"]).is_empty() {
                true => Some(asks.tools(until).await?),
                false => None,
            };
            Ok((schema, about, offered))
        })?;
        let hands = match offered {
            Some(tools) => Hands::Mcp(tools),
            None => action(&schema["action"]),
        };
        let description = about["description"].as_str().unwrap_or_default().to_owned();
        Ok(self.known.get_or_init(|| Known { description, hands }))
    }

    /// What a reset says.
    fn reset(&self, split: Split, number: u64) -> Value {
        let mut data = serde_json::to_value(&self.settings.reset).unwrap_or_default();
        match self.settings.number_as {
            // Below 2^31, which every generator takes.
            NumberAs::Seed => data["seed"] = split.seed(number & ((1 << 30) - 1)).into(),
            NumberAs::TaskIndex => data["task_index"] = number.into(),
        }
        if let Some((train, held_out)) = &self.settings.splits {
            data["split"] = if split == Split::Train { train } else { held_out }.as_str().into();
        }
        data
    }
}

/// The fields of an action that are its own.
fn fields(schema: &Value) -> Vec<&str> {
    let properties = schema["properties"].as_object();
    let names = properties.into_iter().flatten().map(|(name, _)| name.as_str());
    names.filter(|name| *name != "metadata").collect()
}

/// The tool of an action. `metadata`, which every action of OpenEnv has, is not offered.
fn action(schema: &Value) -> Hands {
    let mut parameters = schema.clone();
    if let Some(properties) = parameters["properties"].as_object_mut() {
        properties.shift_remove("metadata");
    }
    let required: Vec<&str> =
        schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let only_text = match required.as_slice() {
        [one] if schema["properties"][one]["type"] == "string" => Some((*one).to_owned()),
        _ => None,
    };
    Hands::Action { parameters, only_text }
}

impl Environment for OpenEnv {
    fn spec(&self) -> &Spec {
        &self.spec
    }

    fn tasks(&self, split: Split) -> Option<u64> {
        self.shared.settings.tasks.map(|(train, held_out)| match split {
            Split::Train => train,
            Split::HeldOut => held_out,
        })
    }

    fn task(&self, split: Split, number: u64) -> Result<Task, WorldError> {
        let id = format!("{split}/{number}");
        if self.tasks(split).is_some_and(|tasks| number >= tasks) {
            return Err(WorldError::NoTask(id));
        }
        let known = self.shared.known()?;
        let settings = &self.shared.settings;
        let told = settings.instruction.as_deref().unwrap_or(&known.description);
        let opening =
            (!told.is_empty()).then(|| Said { role: "system", parts: vec![Part::Text(told.to_owned())] });
        let tools = match &known.hands {
            Hands::Mcp(tools) => tools.clone(),
            Hands::Action { parameters, .. } => vec![Tool {
                name: settings.tool.clone(),
                description: parameters["description"].as_str().unwrap_or("Act").to_owned(),
                parameters: parameters.clone(),
            }],
        };
        Ok(Task { id: id.into(), split, number, opening: opening.into_iter().collect(), tools })
    }

    fn ready(&self) -> Result<(), WorldError> {
        self.shared.known().map(|_| ())
    }

    fn open(&self) -> Result<Box<dyn World>, WorldError> {
        Ok(Box::new(Seat::new(self.shared.clone(), self.shared.door()?)))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn made(text: &str) -> Result<OpenEnv, WorldError> {
        OpenEnv::new(settings(text.parse().expect("a table"))?)
    }

    #[test]
    fn settings_that_cannot_be_used_are_named() {
        for (text, says) in [
            ("", "missing field `url`"),
            ("url = 'ftp://a'", "url: \"ftp://a\" is not ws://HOST:PORT"),
            ("url = 'ws://me@a'", "url: a token comes by token_env"),
            ("url = 'ws://a'\nsteps = 0", "steps: 0 is not from 1 to 10000"),
            ("url = 'ws://a'\ntool = 'a b'", "tool: \"a b\" is no name"),
            ("url = 'ws://a'\nunfinished = nan", "unfinished: NaN is no reward"),
            ("url = 'ws://a'\nnumber_as = 'task_index'", "number_as: task_index needs tasks and splits"),
            ("url = 'ws://a'\nwords = 'maybe'", "words: unknown variant `maybe`"),
        ] {
            let Err(error) = made(text) else { panic!("{text} is made") };
            assert!(error.to_string().starts_with(says), "{text}: {error}");
        }
    }

    #[test]
    fn an_address_may_be_of_the_socket_or_of_the_server() {
        for (url, is) in [
            ("ws://a:8000", "http://a:8000/"),
            ("ws://a:8000/ws", "http://a:8000/"),
            ("https://a/env/sums/", "https://a/env/sums"),
            ("wss://a/env/sums/ws", "https://a/env/sums"),
        ] {
            assert_eq!(made(&format!("url = '{url}'")).expect("it is made").shared.url.as_str(), is);
        }
    }

    #[test]
    fn a_number_is_one_reset_for_ever_and_none_is_of_both_splits() {
        let by_seed = made("url = 'ws://a'\nreset = { level = 2 }").expect("it is made").shared;
        assert_eq!(by_seed.reset(Split::Train, 3), json!({"level": 2, "seed": 6}));
        assert_eq!(by_seed.reset(Split::HeldOut, 3), json!({"level": 2, "seed": 7}));
        assert!(by_seed.reset(Split::HeldOut, u64::MAX)["seed"].as_u64() < Some(1 << 31));
        let by_index = "url = 'ws://a'\nnumber_as = 'task_index'\ntasks = [5, 2]\nsplits = ['train', 'test']";
        let by_index = made(by_index).expect("it is made");
        assert_eq!(by_index.shared.reset(Split::HeldOut, 1), json!({"task_index": 1, "split": "test"}));
        assert_eq!(by_index.task(Split::HeldOut, 2), Err(WorldError::NoTask("held-out/2".into())));
    }

    #[test]
    fn an_action_is_a_tool_without_what_every_action_has() {
        let schema = json!({
            "type": "object", "required": ["message"],
            "properties": {"metadata": {"type": "object"}, "message": {"type": "string"}, "n": {"type": "integer"}},
        });
        let Hands::Action { parameters, only_text } = action(&schema) else { panic!("it is one tool") };
        assert_eq!(fields(&parameters), ["message", "n"]);
        assert_eq!((parameters["properties"].get("metadata"), only_text.as_deref()), (None, Some("message")));
    }
}
