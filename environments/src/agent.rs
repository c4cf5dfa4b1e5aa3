//! How a model is talked to about a world: what it is told, what is read out of its replies, and what is left out when a
//! conversation grows beyond its context. Pure: the same replies and outcomes make the same messages.

use serde_json::{Map, Value, json};

use crate::world::{Action, Call, CallResult, Outcome, Part, Said, Task, text_of};

/// What a model said, as it was parsed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reply {
    /// What stands beside thinking and calls.
    pub text: String,
    /// Its calls, in order.
    pub calls: Vec<ReplyCall>,
    /// It was cut at its limit.
    pub truncated: bool,
}

/// A call as the model wrote it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplyCall {
    /// Names it.
    pub id: String,
    /// The tool's name.
    pub name: String,
    /// JSON, if the model wrote it well.
    pub arguments: String,
}

/// What was read out of a reply.
#[derive(Clone, Debug, PartialEq)]
pub enum Parsed {
    /// What the agent does.
    Action(Action),
    /// Nothing that can be done. The model is told why; it counts as a step.
    Malformed(Vec<Value>),
}

/// What becomes of a conversation that has no room for another reply.
#[derive(Clone, Debug, PartialEq)]
pub enum Fit {
    /// It goes on with these messages in place of all before.
    Rewrite(Vec<Value>),
    /// Nothing can be left out.
    Full,
}

/// A way to talk to a model. Messages are in the form of chat completions.
pub trait Agent: Send {
    /// As the registry has it: whoever acts in a world on another machine finds it by this name.
    fn name(&self) -> &'static str;

    /// What the model is told first.
    fn start(&mut self, task: &Task, first: &[Part]) -> Vec<Value>;

    /// What it wants to do.
    fn parse(&self, reply: &Reply) -> Parsed;

    /// What it is told of what came of it: the new messages alone.
    fn observe(&mut self, outcome: &Outcome) -> Vec<Value>;

    /// Makes room. `messages` are all so far.
    fn fit(&mut self, messages: &[Value]) -> Fit;
}

/// Calls tools by the calls of its chat template; what it says without a call is for the world.
#[derive(Clone, Debug)]
pub struct ToolAgent {
    /// Results that stay when room has to be made: the latest.
    pub kept_results: usize,
}

impl Default for ToolAgent {
    fn default() -> Self {
        Self { kept_results: 2 }
    }
}

/// What stands for a result that was left out.
const LEFT_OUT: &str = "[left out]";

impl ToolAgent {
    /// Its name.
    pub const NAME: &'static str = "tools";
}

impl Agent for ToolAgent {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn start(&mut self, task: &Task, first: &[Part]) -> Vec<Value> {
        let mut opening = task.opening.clone();
        match opening.last_mut() {
            _ if first.is_empty() => {}
            // Templates want users and assistants in turn.
            Some(last) if last.role == "user" => {
                last.parts.push(Part::Text(String::new()));
                last.parts.extend_from_slice(first);
            }
            _ => opening.push(Said { role: "user", parts: first.to_vec() }),
        }
        opening.iter().map(Said::message).collect()
    }

    fn parse(&self, reply: &Reply) -> Parsed {
        let malformed = |why: &str| Parsed::Malformed(vec![Said::user(why).message()]);
        if reply.truncated {
            return malformed("Your reply was cut off before its end. Say less in one reply.");
        }
        if reply.calls.is_empty() {
            return match reply.text.trim() {
                "" => malformed("Your reply was empty. Call a tool, or say your answer."),
                text if text.contains("<tool_call>") => malformed(
                    "Your call cannot be read. It is one JSON object with \"name\", of a tool you have, and \"arguments\".",
                ),
                text => Parsed::Action(Action::Text(text.to_owned())),
            };
        }
        let read = |call: &ReplyCall| {
            let arguments = serde_json::from_str::<Map<String, Value>>(&call.arguments);
            arguments.map(|arguments| Call { id: call.id.clone(), name: call.name.clone(), arguments })
        };
        let read: Vec<Result<Call, _>> = reply.calls.iter().map(read).collect();
        if read.iter().all(Result::is_ok) {
            return Parsed::Action(Action::Calls(read.into_iter().flatten().collect()));
        }
        let told = reply.calls.iter().zip(&read).map(|(call, read)| {
            let why = match read {
                Ok(_) => "Not done, because another call of the same reply cannot be read.".to_owned(),
                Err(error) => format!("The arguments are no JSON object: {error}."),
            };
            result(&CallResult { id: call.id.clone(), parts: vec![Part::Text(why)], is_error: true })
        });
        Parsed::Malformed(told.collect())
    }

    fn observe(&mut self, outcome: &Outcome) -> Vec<Value> {
        let seen = &outcome.observation;
        let beside =
            (!seen.parts.is_empty()).then(|| Said { role: "user", parts: seen.parts.clone() }.message());
        seen.results.iter().map(result).chain(beside).collect()
    }

    /// Older results are what can be done without.
    fn fit(&mut self, messages: &[Value]) -> Fit {
        let results: Vec<usize> = (0..messages.len()).filter(|at| messages[*at]["role"] == "tool").collect();
        let old = &results[..results.len().saturating_sub(self.kept_results)];
        let mut kept = messages.to_vec();
        let mut shorter = false;
        for at in old {
            shorter |= kept[*at]["content"].as_str().is_some_and(|text| text.len() > LEFT_OUT.len());
            kept[*at]["content"] = LEFT_OUT.into();
        }
        if shorter { Fit::Rewrite(kept) } else { Fit::Full }
    }
}

fn result(result: &CallResult) -> Value {
    json!({"role": "tool", "tool_call_id": result.id, "content": text_of(&result.parts)})
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::{Observation, Split, Tool};

    fn task() -> Task {
        let system = Said { role: "system", parts: vec![Part::Text("Be brief.".into())] };
        Task {
            id: "t".into(),
            split: Split::Train,
            number: 0,
            opening: vec![system, Said::user("What is 2 + 2?")],
            tools: vec![Tool::of_texts("calculator", "Calculates", &[("expression", "")])],
        }
    }

    fn call(arguments: &str) -> ReplyCall {
        ReplyCall { id: "c1".into(), name: "calculator".into(), arguments: arguments.into() }
    }

    #[test]
    fn a_conversation_word_by_word() {
        let mut agent = ToolAgent::default();
        let told = agent.start(&task(), &[Part::Text("The shop is open.".into())]);
        assert_eq!(
            Value::from(told),
            json!([
                {"role": "system", "content": "Be brief."},
                {"role": "user", "content": "What is 2 + 2?\n\nThe shop is open."},
            ])
        );
        let reply = Reply { calls: vec![call(r#"{"expression": "2 + 2"}"#)], ..Reply::default() };
        let Parsed::Action(Action::Calls(calls)) = agent.parse(&reply) else { panic!("it calls") };
        assert_eq!(calls[0].text("expression"), Some("2 + 2"));
        let results = vec![CallResult::text(&calls[0], "4")];
        let observation = Observation { results, ..Observation::default() };
        let told = agent.observe(&Outcome { observation, ..Outcome::default() });
        assert_eq!(Value::from(told), json!([{"role": "tool", "tool_call_id": "c1", "content": "4"}]));
        let reply = Reply { text: " It is 4.\n".into(), ..Reply::default() };
        assert_eq!(agent.parse(&reply), Parsed::Action(Action::Text("It is 4.".into())));
    }

    #[test]
    fn what_cannot_be_read_is_told_and_not_done() {
        let agent = ToolAgent::default();
        let told = |reply: Reply| match agent.parse(&reply) {
            Parsed::Malformed(told) => told,
            Parsed::Action(action) => panic!("{action:?}"),
        };
        let cut = Reply { text: "It is".into(), truncated: true, ..Reply::default() };
        assert!(told(cut)[0]["content"].as_str().is_some_and(|text| text.contains("cut off")));
        assert!(told(Reply::default())[0]["content"].as_str().is_some_and(|text| text.contains("empty")));
        let text = r#"<tool_call>{"name": "calc"#.to_owned();
        assert_eq!(told(Reply { text, ..Reply::default() })[0]["role"], "user");
        let calls = vec![call(r#"{"expression": "1"}"#), call("[1]"), call("{")];
        let told = told(Reply { calls, ..Reply::default() });
        assert_eq!(told.len(), 3);
        assert!(told.iter().all(|message| message["role"] == "tool"));
    }

    #[test]
    fn room_is_made_by_the_oldest_results() {
        let mut agent = ToolAgent { kept_results: 1 };
        let tool = |text: &str| json!({"role": "tool", "tool_call_id": "c", "content": text});
        let said = json!({"role": "assistant", "content": "hm"});
        let messages = [tool("a long result that matters"), said.clone(), tool("another one")];
        let fit = agent.fit(&messages);
        assert_eq!(fit, Fit::Rewrite(vec![tool(LEFT_OUT), said, tool("another one")]));
        let Fit::Rewrite(shorter) = fit else { unreachable!() };
        assert_eq!(agent.fit(&shorter), Fit::Full);
    }
}
