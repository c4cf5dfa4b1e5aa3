//! What a request says of the form of its answer: `response_format` and its kin, how tools may be called, penalties and
//! biases. Whatever changes an answer is done or refused by name.

use openclaw_model::constraint::JsonAnswer;
use openclaw_model::{
    CallableTool, Constraint, ConstraintError, Grammars, SamplingParams, Tokenizer, ToolCalls,
};
use serde_json::{Value, json};

use super::super::errors::ApiError;
use super::ask::{Ask, ToolChoice, tool_name};
use super::fields::{Fields, boolean, given, integer, number, object, string, wrong};

/// See [`openclaw_model::SamplingParams`].
const MAX_REPETITION_PENALTY: f64 = 100.0;
const MAX_BIASES: usize = 1024;

/// The form that an answer must have, and what changes its words.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Shape {
    /// What the words of the answer must be.
    pub form: Option<Form>,
    /// False: one call at most. None: as the model likes.
    pub parallel_tool_calls: Option<bool>,
    penalties: Penalties,
}

/// What an answer must be, and the field that says so.
#[derive(Clone, Debug, PartialEq)]
pub struct Form {
    field: String,
    kind: FormKind,
}

#[derive(Clone, Debug, PartialEq)]
enum FormKind {
    JsonSchema { schema: Value, strict: bool },
    Regex(String),
    Choice(Vec<String>),
    Grammar(String),
}

#[derive(Clone, Debug, Default, PartialEq)]
struct Penalties {
    presence: Option<f32>,
    frequency: Option<f32>,
    repetition: Option<f32>,
    logit_bias: Vec<(u32, f32)>,
    min_tokens: usize,
    ignore_eos: bool,
}

/// What is not done, and what of it changes nothing.
fn refused_fields() -> [(&'static str, &'static [Neutral]); 23] {
    use Neutral::{Empty, False, Number};
    [
        ("audio", &[]),
        ("best_of", &[Number(1.0)]),
        ("use_beam_search", &[False]),
        ("length_penalty", &[Number(1.0)]),
        ("early_stopping", &[False]),
        ("grammar", &[]),
        ("bad_words", &[Empty]),
        ("allowed_token_ids", &[]),
        ("stop_token_ids", &[Empty]),
        ("include_stop_str_in_output", &[False]),
        ("logits_processors", &[Empty]),
        ("web_search_options", &[]),
        ("structural_tag", &[]),
        ("guided_whitespace_pattern", &[]),
        ("typical_p", &[Number(1.0)]),
        ("tfs_z", &[Number(1.0)]),
        ("top_a", &[Number(0.0)]),
        ("epsilon_cutoff", &[Number(0.0)]),
        ("eta_cutoff", &[Number(0.0)]),
        ("mirostat", &[Number(0.0)]),
        ("mirostat_mode", &[Number(0.0)]),
        ("dry_multiplier", &[Number(0.0)]),
        ("xtc_probability", &[Number(0.0)]),
    ]
}

#[derive(Clone, Copy)]
enum Neutral {
    False,
    Empty,
    Number(f64),
}

impl Neutral {
    fn is(self, value: &Value) -> bool {
        match self {
            Self::False => value == &Value::Bool(false),
            Self::Empty => value.as_array().is_some_and(Vec::is_empty),
            Self::Number(neutral) => value.as_f64() == Some(neutral),
        }
    }
}

/// `functions` and `function_call`, as requests had them before there were tools, become `tools` and `tool_choice`.
pub fn modernize(fields: &mut Fields) -> Result<(), ApiError> {
    if let Some(functions) = given(fields, "functions") {
        let functions = functions.as_array().ok_or_else(|| wrong("functions", "an array", functions))?;
        if let Some((i, function)) = functions.iter().enumerate().find(|(_, f)| !f["name"].is_string()) {
            return Err(wrong(&format!("functions[{i}].name"), "a string", &function["name"]));
        }
        let as_tool = |function: &Value| json!({"type": "function", "function": function});
        let tools = functions.iter().map(as_tool).collect();
        supersede(fields, "functions", "tools", tools)?;
    }
    let choice = match given(fields, "function_call") {
        None => return Ok(()),
        Some(choice @ Value::String(_)) => choice.clone(),
        Some(Value::Object(choice)) if choice.get("name").is_some_and(Value::is_string) => {
            json!({"type": "function", "function": {"name": choice["name"]}})
        }
        Some(other) => return Err(wrong("function_call", "a string or an object with a name", other)),
    };
    supersede(fields, "function_call", "tool_choice", choice)
}

fn supersede(fields: &mut Fields, old: &str, new: &str, value: Value) -> Result<(), ApiError> {
    if given(fields, new).is_some() {
        let message = format!("'{old}' is an older form of '{new}': send one of the two.");
        return Err(ApiError::invalid(old, message));
    }
    fields.remove(old);
    fields.insert(new.to_owned(), value);
    Ok(())
}

/// `tool_choice` that names several tools, as OpenAI's chat and responses APIs write it.
pub fn allowed_tools(choice: &Fields) -> Result<Option<ToolChoice>, ApiError> {
    match choice.get("type").and_then(Value::as_str) {
        Some("function") | None => return Ok(None),
        Some("allowed_tools") => {}
        Some(other) => {
            let message = format!(
                "Invalid value for 'tool_choice.type': '{other}' is none of function, allowed_tools."
            );
            return Err(ApiError::invalid("tool_choice.type", message));
        }
    }
    let (path, fields) = match object(choice, "allowed_tools")? {
        Some(nested) => ("tool_choice.allowed_tools", nested),
        None => ("tool_choice", choice),
    };
    let required = match fields.get("mode").and_then(Value::as_str) {
        Some("required") => true,
        Some("auto") => false,
        _ => {
            let mode = fields.get("mode").unwrap_or(&Value::Null);
            return Err(wrong(&format!("{path}.mode"), "\"auto\" or \"required\"", mode));
        }
    };
    let tools = fields.get("tools").unwrap_or(&Value::Null);
    let tools = tools.as_array().ok_or_else(|| wrong(&format!("{path}.tools"), "an array", tools))?;
    let mut names = Vec::new();
    for (i, tool) in tools.iter().enumerate() {
        let name = tool_name(tool).or_else(|| tool.get("name")?.as_str());
        let name =
            name.ok_or_else(|| wrong(&format!("{path}.tools[{i}].function.name"), "a string", &Value::Null))?;
        names.push(name.to_owned());
    }
    if names.is_empty() {
        return Err(ApiError::invalid(format!("{path}.tools"), format!("'{path}.tools' is empty.")));
    }
    Ok(Some(ToolChoice::Allowed { names, required }))
}

impl Shape {
    /// Reads what a body says, and refuses what it says and is not done.
    pub fn parse(fields: &Fields) -> Result<Self, ApiError> {
        refuse(fields)?;
        let mut forms = forms(fields)?.into_iter();
        let form = forms.next();
        if let (Some(first), Some(second)) = (&form, forms.next()) {
            let message =
                format!("'{}' and '{}' both say what the answer must be.", first.field, second.field);
            return Err(ApiError::invalid(second.field, message));
        }
        let least_penalty = f64::from(f32::MIN_POSITIVE);
        let penalties = Penalties {
            presence: number(fields, "presence_penalty", -2.0, 2.0)?,
            frequency: number(fields, "frequency_penalty", -2.0, 2.0)?,
            repetition: number(fields, "repetition_penalty", least_penalty, MAX_REPETITION_PENALTY)?,
            logit_bias: logit_bias(fields)?,
            min_tokens: min_tokens(fields)?,
            ignore_eos: boolean(fields, "ignore_eos")?.unwrap_or(false),
        };
        Ok(Self { form, parallel_tool_calls: boolean(fields, "parallel_tool_calls")?, penalties })
    }

    /// `base` with the penalties and biases of the request.
    pub fn sampling(&self, base: SamplingParams) -> SamplingParams {
        let Penalties { presence, frequency, repetition, logit_bias, min_tokens, ignore_eos } =
            &self.penalties;
        SamplingParams {
            presence_penalty: presence.unwrap_or(base.presence_penalty),
            frequency_penalty: frequency.unwrap_or(base.frequency_penalty),
            repetition_penalty: repetition.unwrap_or(base.repetition_penalty),
            logit_bias: logit_bias.as_slice().into(),
            min_tokens: *min_tokens,
            ignore_eos: *ignore_eos,
            ..base
        }
    }

    /// Every biased token is one.
    pub fn check_ids(&self, tokenizer: &Tokenizer) -> Result<(), ApiError> {
        let limit = tokenizer.id_limit();
        match self.penalties.logit_bias.iter().find(|(id, _)| *id as usize >= limit) {
            Some((id, _)) => {
                let message =
                    format!("Invalid value for 'logit_bias': {id} is no token; ids end at {}.", limit - 1);
                Err(ApiError::invalid("logit_bias", message))
            }
            None => Ok(()),
        }
    }
}

/// Whether an answer is held to anything: if so, [`constraint`] takes a while.
pub fn is_constrained(ask: &Ask) -> bool {
    ask.shape.form.is_some() || tool_rules(ask).is_some()
}

/// What the answer to a request is held to. Takes a while, the more the larger its schemas are.
pub fn constraint(grammars: &Grammars, ask: &Ask) -> Result<Option<Constraint>, ApiError> {
    let rules = tool_rules(ask);
    let Some(form) = &ask.shape.form else {
        return rules.map(|rules| calls(grammars, ask, rules)).transpose();
    };
    let has_tools = !ask.shown_tools().is_empty();
    match (rules, &form.kind) {
        (Some(rules), _) if rules.required => calls(grammars, ask, rules).map(Some),
        (rules, FormKind::JsonSchema { schema, strict }) if has_tools => {
            let mut rules = rules.unwrap_or_else(|| free_calls(ask));
            grammars.json_schema(schema, *strict).map_err(|error| form.refused(&error))?;
            rules.answer = Some(JsonAnswer { schema: schema.clone(), strict: *strict });
            calls(grammars, ask, rules).map(Some)
        }
        _ if has_tools => {
            let message = format!(
                "'{}' does not go together with 'tools': set 'tool_choice' to 'none' or leave one out.",
                form.field
            );
            Err(ApiError::invalid(form.field.clone(), message))
        }
        _ => form.compile(grammars).map(Some),
    }
}

impl Form {
    fn new(field: impl Into<String>, kind: FormKind) -> Self {
        Self { field: field.into(), kind }
    }

    fn compile(&self, grammars: &Grammars) -> Result<Constraint, ApiError> {
        let compiled = match &self.kind {
            FormKind::JsonSchema { schema, strict } => grammars.json_schema(schema, *strict),
            FormKind::Regex(pattern) => grammars.regex(pattern),
            FormKind::Choice(texts) => grammars.choice(texts),
            FormKind::Grammar(grammar) => grammars.lark(grammar),
        };
        compiled.map_err(|error| self.refused(&error))
    }

    fn refused(&self, error: &ConstraintError) -> ApiError {
        refused(&self.field, error)
    }
}

fn refused(field: &str, error: &ConstraintError) -> ApiError {
    ApiError::invalid(field, format!("Invalid value for '{field}': {error}."))
}

/// How the tools may be called, where that is not left to the model.
fn tool_rules(ask: &Ask) -> Option<ToolCalls> {
    let required = match &ask.tool_choice {
        ToolChoice::None => return None,
        ToolChoice::Auto => false,
        ToolChoice::Required | ToolChoice::Function(_) => true,
        ToolChoice::Allowed { required, .. } => *required,
    };
    let shown = ask.shown_tools();
    let one_at_most = ask.shape.parallel_tool_calls == Some(false);
    let is_held = required || one_at_most || shown.iter().any(is_strict);
    (is_held && !shown.is_empty()).then(|| ToolCalls { required, ..free_calls(ask) })
}

/// The tools as they are called where nothing forces a call: one that is not strict takes any object.
fn free_calls(ask: &Ask) -> ToolCalls {
    let tools = ask.shown_tools().iter().filter_map(callable).collect();
    let parallel = ask.shape.parallel_tool_calls != Some(false);
    ToolCalls { tools, required: false, parallel, answer: None }
}

fn callable(tool: &Value) -> Option<CallableTool> {
    let parameters = tool["function"].get("parameters").filter(|parameters| !parameters.is_null());
    Some(CallableTool {
        name: tool_name(tool)?.to_owned(),
        parameters: parameters.cloned(),
        strict: is_strict(tool),
    })
}

fn is_strict(tool: &Value) -> bool {
    tool["function"]["strict"] == true
}

fn calls(grammars: &Grammars, ask: &Ask, mut rules: ToolCalls) -> Result<Constraint, ApiError> {
    if !rules.required {
        for tool in rules.tools.iter_mut().filter(|tool| !tool.strict) {
            tool.parameters = None;
        }
    }
    grammars.tool_calls(&rules).map_err(|error| {
        let at_fault = rules.tools.iter().find_map(|tool| {
            let error = grammars.json_schema(tool.parameters.as_ref()?, tool.strict).err()?;
            let at = ask.tools.iter().position(|of| tool_name(of) == Some(&tool.name))?;
            Some(refused(&format!("tools[{at}].function.parameters"), &error))
        });
        at_fault.unwrap_or_else(|| refused("tools", &error))
    })
}

fn refuse(fields: &Fields) -> Result<(), ApiError> {
    if let Some(value) = given(fields, "modalities") {
        let kinds = value.as_array().ok_or_else(|| wrong("modalities", "an array", value))?;
        if let Some(kind) = kinds.iter().find(|kind| *kind != "text") {
            let message =
                format!("Invalid value for 'modalities': {kind} is not possible, only \"text\" is.");
            return Err(ApiError::invalid("modalities", message));
        }
    }
    for (name, neutral) in refused_fields() {
        let Some(value) = given(fields, name) else { continue };
        if !neutral.iter().any(|neutral| neutral.is(value)) {
            let message = match name {
                "grammar" => "'grammar' (GBNF) is not supported: use 'response_format', or \
                    'structured_outputs' with a grammar in Lark's form."
                    .to_owned(),
                _ => format!("'{name}' is not supported: leave it out."),
            };
            return Err(ApiError::invalid(name, message));
        }
    }
    Ok(())
}

/// Chat tools are functions.
pub fn check_tools(fields: &Fields) -> Result<(), ApiError> {
    let tools = given(fields, "tools").and_then(Value::as_array).into_iter().flatten();
    for (i, tool) in tools.enumerate() {
        match tool.get("type") {
            None => {}
            Some(kind) if kind == "function" => {}
            Some(kind) => {
                let path = format!("tools[{i}].type");
                let message =
                    format!("Invalid value for '{path}': {kind} is not supported, only \"function\" is.");
                return Err(ApiError::invalid(path, message));
            }
        }
        let Some(function) = tool.get("function").and_then(Value::as_object) else { continue };
        for (name, expected) in [("strict", "a boolean"), ("parameters", "an object")] {
            let Some(value) = given(function, name) else { continue };
            if if name == "strict" { !value.is_boolean() } else { !value.is_object() } {
                return Err(wrong(&format!("tools[{i}].function.{name}"), expected, value));
            }
        }
    }
    Ok(())
}

/// Everything that says what the answer must be.
fn forms(fields: &Fields) -> Result<Vec<Form>, ApiError> {
    let mut forms = Vec::from_iter(response_format(fields)?);
    if let Some(schema) = given(fields, "json_schema") {
        forms.push(Form::new("json_schema", json_schema("json_schema", schema)?));
    }
    for name in ["json", "regex", "choice", "grammar"] {
        let field = format!("guided_{name}");
        if let Some(value) = given(fields, &field) {
            let kind = structured(name, &field, value)?;
            forms.push(Form::new(field, kind));
        }
    }
    let Some(outputs) = object(fields, "structured_outputs")? else { return Ok(forms) };
    for (name, value) in outputs.iter().filter(|(_, value)| !value.is_null()) {
        let field = format!("structured_outputs.{name}");
        match name.as_str() {
            "json" | "regex" | "choice" | "grammar" => {
                let kind = structured(name, &field, value)?;
                forms.push(Form::new(field, kind));
            }
            "json_object" => {
                if value.as_bool().ok_or_else(|| wrong(&field, "a boolean", value))? {
                    forms.push(Form::new(field, any_object()));
                }
            }
            _ if value == &Value::Bool(false) => {}
            _ => {
                return Err(ApiError::invalid(&*field, format!("'{field}' is not supported: leave it out.")));
            }
        }
    }
    Ok(forms)
}

fn response_format(fields: &Fields) -> Result<Option<Form>, ApiError> {
    let Some(format) = object(fields, "response_format")? else { return Ok(None) };
    let path = "response_format.type";
    let kind = format.get("type").unwrap_or(&Value::Null);
    match kind.as_str().ok_or_else(|| wrong(path, "a string", kind))? {
        "text" => Ok(None),
        "json_object" => match given(format, "schema") {
            None => Ok(Some(Form::new("response_format", any_object()))),
            Some(schema) => {
                let field = "response_format.schema";
                Ok(Some(Form::new(field, json_schema(field, schema)?)))
            }
        },
        "json_schema" => {
            let (path, field) = ("response_format.json_schema", "response_format.json_schema.schema");
            let given_schema = format.get("json_schema").unwrap_or(&Value::Null);
            let stated = given_schema.as_object().ok_or_else(|| wrong(path, "an object", given_schema))?;
            named(path, stated)?;
            let schema = stated.get("schema").unwrap_or(&Value::Null);
            if !schema.is_object() {
                return Err(wrong(field, "an object", schema));
            }
            let strict = match given(stated, "strict") {
                None => false,
                Some(value) => {
                    value.as_bool().ok_or_else(|| wrong(&format!("{path}.strict"), "a boolean", value))?
                }
            };
            Ok(Some(Form::new(field, FormKind::JsonSchema { schema: schema.clone(), strict })))
        }
        other => {
            let message =
                format!("Invalid value for '{path}': '{other}' is none of text, json_object, json_schema.");
            Err(ApiError::invalid(path, message))
        }
    }
}

fn named(path: &str, stated: &Fields) -> Result<(), ApiError> {
    match given(stated, "name") {
        Some(name) if !name.is_string() => Err(wrong(&format!("{path}.name"), "a string", name)),
        _ => Ok(()),
    }
}

fn any_object() -> FormKind {
    FormKind::JsonSchema { schema: json!({"type": "object"}), strict: true }
}

/// An object, or its JSON in a string.
fn json_schema(field: &str, value: &Value) -> Result<FormKind, ApiError> {
    let schema = match value {
        Value::String(json) => serde_json::from_str(json).map_err(|error| {
            ApiError::invalid(field, format!("Invalid value for '{field}': it is not JSON: {error}."))
        })?,
        other => other.clone(),
    };
    if !schema.is_object() {
        return Err(wrong(field, "an object", &schema));
    }
    Ok(FormKind::JsonSchema { schema, strict: true })
}

/// vLLM's ways to say what an answer must be.
fn structured(name: &str, field: &str, value: &Value) -> Result<FormKind, ApiError> {
    let text = || value.as_str().map(str::to_owned).ok_or_else(|| wrong(field, "a string", value));
    Ok(match name {
        "json" => json_schema(field, value)?,
        "regex" => FormKind::Regex(text()?),
        "grammar" => FormKind::Grammar(text()?),
        _ => {
            let texts = value.as_array().ok_or_else(|| wrong(field, "an array of strings", value))?;
            let texts = texts.iter().enumerate().map(|(i, text)| {
                let path = format!("{field}[{i}]");
                text.as_str().map(str::to_owned).ok_or_else(|| wrong(&path, "a string", text))
            });
            FormKind::Choice(texts.collect::<Result<_, _>>()?)
        }
    })
}

fn logit_bias(fields: &Fields) -> Result<Vec<(u32, f32)>, ApiError> {
    let Some(biases) = object(fields, "logit_bias")? else { return Ok(Vec::new()) };
    if biases.len() > MAX_BIASES {
        let message = format!("'logit_bias' has {} tokens; at most {MAX_BIASES} are possible.", biases.len());
        return Err(ApiError::invalid("logit_bias", message));
    }
    let bias = |id: &String| {
        let path = || format!("logit_bias.{id}");
        let token = id.parse::<u32>().map_err(|_| {
            ApiError::invalid(path(), format!("Invalid value for 'logit_bias': '{id}' is no token id."))
        })?;
        let value = &biases[id];
        let bias = value.as_f64().ok_or_else(|| wrong(&path(), "a number", value))?;
        if !(-100.0..=100.0).contains(&bias) {
            let message = format!("Invalid value for '{}': {bias} is not between -100 and 100.", path());
            return Err(ApiError::invalid(path(), message));
        }
        Ok((token, bias as f32))
    };
    biases.keys().map(bias).collect()
}

fn min_tokens(fields: &Fields) -> Result<usize, ApiError> {
    let least = integer(fields, "min_tokens", 0, i64::MAX)?.unwrap_or(0);
    let most = integer(fields, "max_completion_tokens", 1, i64::MAX)?;
    let most = most.or(integer(fields, "max_tokens", 0, i64::MAX)?);
    if most.is_some_and(|most| least > most) {
        return Err(ApiError::invalid("min_tokens", "'min_tokens' is more than the answer may have."));
    }
    string(fields, "guided_decoding_backend")?; // Chooses between libraries elsewhere; there is one here.
    Ok(usize::try_from(least).unwrap_or(usize::MAX))
}
