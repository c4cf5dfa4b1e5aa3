//! A conversation as a model saw it, token by token: what it drew stays as it was drawn, and what came in between is
//! rendered by itself. A reply is never rendered again from its text, which could make other tokens of it.
//!
//! Where a template shows what was said before in another way once more is said (some leave earlier thinking out), the
//! conversation begins anew as a further segment, whose prompt is rendered whole.

use serde_json::{Map, Value, json};

use crate::{
    chat_template::ChatTemplate, messages::normalize_messages, output_parser::THINK, prompt::PromptScript,
    text_error::TextError, tokenizer::Tokenizer,
};

/// What a template is shown to see how it closes a reply.
const REPLY: &str = "qzx";

fn asked() -> [Value; 2] {
    [json!({"role": "user", "content": "a"}), json!({"role": "assistant", "content": REPLY})]
}

/// See the file's header.
#[derive(Clone, Debug)]
pub struct Dialogue {
    tokenizer: Tokenizer,
    template: ChatTemplate,
    tools: Vec<Value>,
    kwargs: Map<String, Value>,
    /// Normalised.
    messages: Vec<Value>,
    ids: Vec<u32>,
    ends_in_thinking: bool,
    segment: u32,
    /// How the template ends a reply: the mark, and what stands behind it.
    closing: String,
    /// The last id was drawn.
    replied: bool,
}

impl Dialogue {
    /// What asks for the first reply to `messages`, which are in the form of chat completions.
    pub fn new(
        tokenizer: &Tokenizer,
        template: &ChatTemplate,
        messages: &[Value],
        tools: &[Value],
    ) -> Result<Self, TextError> {
        let mut dialogue = Self {
            tokenizer: tokenizer.clone(),
            template: template.clone(),
            tools: tools.to_vec(),
            kwargs: Map::new(),
            messages: Vec::new(),
            ids: Vec::new(),
            ends_in_thinking: false,
            segment: 0,
            closing: String::new(),
            replied: false,
        };
        let shown = template.render(&asked(), tools, &dialogue.kwargs, false)?;
        dialogue.closing =
            shown.rsplit_once(REPLY).map(|(_, closing)| closing.to_owned()).unwrap_or_default();
        dialogue.begin(normalize_messages(messages)?)?;
        Ok(dialogue)
    }

    /// The prompt of the next reply; behind a reply, all up to its end.
    pub fn ids(&self) -> &[u32] {
        &self.ids
    }

    /// All that was said, as it is rendered.
    pub fn messages(&self) -> &[Value] {
        &self.messages
    }

    /// What can be called.
    pub fn tools(&self) -> &[Value] {
        &self.tools
    }

    /// The prompt leaves a thought open.
    pub fn ends_in_thinking(&self) -> bool {
        self.ends_in_thinking
    }

    /// How often the conversation was rendered anew.
    pub fn segment(&self) -> u32 {
        self.segment
    }

    /// The model drew `ids`, which its client reads as `reply`.
    pub fn replied(&mut self, reply: &Value, ids: &[u32]) -> Result<(), TextError> {
        self.messages.extend(normalize_messages(std::slice::from_ref(reply))?);
        self.ids.extend_from_slice(ids);
        self.replied = true;
        Ok(())
    }

    /// This followed: the conversation asks for the next reply.
    pub fn followed(&mut self, messages: &[Value]) -> Result<(), TextError> {
        let added = normalize_messages(messages)?;
        let mut all = self.messages.clone();
        all.extend(added.iter().cloned());
        let Some((ids, ends_in_thinking)) = self.behind(&added).filter(|_| self.shows_thinking(&all)) else {
            self.segment += 1;
            return self.begin(all);
        };
        self.ids.extend(ids);
        (self.messages, self.replied, self.ends_in_thinking) = (all, false, ends_in_thinking);
        Ok(())
    }

    /// What a template writes behind a reply's last token when these messages follow it, and whether that leaves a
    /// thought open.
    fn behind(&self, added: &[Value]) -> Option<(Vec<u32>, bool)> {
        let mut talk = asked().to_vec();
        talk.extend_from_slice(added);
        let script =
            PromptScript::new(&self.tokenizer, &self.template, &talk, &self.tools, &self.kwargs).ok()?;
        // Some show a call's result behind a call alone, and say so.
        let shown = script.render(talk.len(), true).ok()?;
        let (_, behind) = shown.split_once(REPLY)?;
        let further = behind.strip_prefix(&self.closing).filter(|_| self.replied)?;
        // The mark that ends a reply is drawn, unless the reply was cut.
        let last = self.ids.last().map(|id| self.tokenizer.decode(&[*id], false)).unwrap_or_default();
        let undrawn = match self.closing.strip_prefix(&last) {
            Some(rest) if !last.is_empty() => rest,
            _ => &self.closing,
        };
        let ids = script.encode(&format!("{undrawn}{further}")).ok()?;
        Some((ids, further.trim_end().ends_with(THINK)))
    }

    /// What the last reply thought is still shown once more is said; a template that leaves it out shows another
    /// conversation than the one before.
    fn shows_thinking(&self, all: &[Value]) -> bool {
        let thought = self.messages.last().and_then(|reply| reply["reasoning_content"].as_str());
        let thought = thought.unwrap_or_default().trim();
        thought.is_empty()
            || self
                .template
                .render(all, &self.tools, &self.kwargs, true)
                .is_ok_and(|whole| whole.contains(thought))
    }

    /// These messages are all there is from now on: a further segment.
    pub fn rewrite(&mut self, messages: &[Value]) -> Result<(), TextError> {
        self.segment += 1;
        self.begin(normalize_messages(messages)?)
    }

    fn begin(&mut self, messages: Vec<Value>) -> Result<(), TextError> {
        let script =
            PromptScript::new(&self.tokenizer, &self.template, &messages, &self.tools, &self.kwargs)?;
        let text = script.render(messages.len(), true)?;
        self.ids = script.encode(&text)?;
        self.ends_in_thinking = text.trim_end().ends_with(THINK);
        drop(script);
        (self.messages, self.replied) = (messages, false);
        Ok(())
    }
}
