//! The few calls of pyautogui that tasks prepare a desktop with, read and never run as Python.

/// What a script does, in order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Script(pub Vec<Deed>);

/// One call.
#[derive(Clone, Debug, PartialEq)]
pub enum Deed {
    /// The pointer goes there.
    Move(f32, f32),
    /// A button is clicked so often: 1 is left, 2 the middle, 3 right. Where the pointer is, unless a place is named.
    Click {
        /// Where.
        at: Option<(f32, f32)>,
        /// Which.
        button: u8,
        /// How often.
        count: u8,
    },
    /// A text is typed.
    Write(String),
    /// Keys are held together.
    Hotkey(Vec<String>),
    /// Clicks of the wheel; more than 0 is up.
    Scroll(i32),
    /// Seconds.
    Sleep(f64),
}

/// The most calls of a script.
const DEEDS: usize = 200;
/// The longest sleep, in seconds.
const SLEEP_SECS: f64 = 30.0;

/// An argument.
#[derive(Clone, Debug, PartialEq)]
enum Value {
    Text(String),
    Number(f64),
    List(Vec<Value>),
}

impl Script {
    /// Reads a script; the error is what cannot be done.
    pub(super) fn parse(source: &str) -> Result<Self, String> {
        let mut deeds = Vec::new();
        for statement in statements(source)? {
            let plain = statement.starts_with("import ") || statement.starts_with("from ");
            if plain || statement.is_empty() || statement.starts_with('#') {
                continue;
            }
            let (name, rest) = statement.split_once('(').ok_or_else(|| first_words(&statement))?;
            let inside = rest.trim_end().strip_suffix(')').ok_or_else(|| first_words(&statement))?;
            let arguments = arguments(inside).ok_or_else(|| first_words(&statement))?;
            let name = name.trim().rsplit('.').next().unwrap_or_default();
            deeds.extend(deed(name, &arguments).ok_or_else(|| name.to_owned())?);
            if deeds.len() > DEEDS {
                return Err("too many calls".to_owned());
            }
        }
        Ok(Self(deeds))
    }
}

fn first_words(statement: &str) -> String {
    statement.chars().take(30).collect()
}

fn deed(name: &str, arguments: &[(Option<String>, Value)]) -> Option<Vec<Deed>> {
    let positional: Vec<&Value> =
        arguments.iter().filter(|(key, _)| key.is_none()).map(|(_, value)| value).collect();
    let named =
        |name: &str| arguments.iter().find(|(key, _)| key.as_deref() == Some(name)).map(|(_, value)| value);
    let number = |at: usize, name: &str| match positional.get(at).copied().or_else(|| named(name)) {
        Some(Value::Number(number)) => Some(*number),
        _ => None,
    };
    let words = |at: usize| match positional.get(at).copied() {
        Some(Value::Text(text)) => Some(text.clone()),
        _ => None,
    };
    let place = || Some((number(0, "x")? as f32, number(1, "y")? as f32));
    let click = |button, count| {
        // A place that is not two numbers is a picture to look for, say.
        let at = place();
        (at.is_some() || positional.is_empty()).then(|| vec![Deed::Click { at, button, count }])
    };
    match name {
        "click" | "leftClick" => {
            let button = match named("button") {
                None => 1,
                Some(Value::Text(button)) if button == "left" => 1,
                Some(Value::Text(button)) if button == "right" => 3,
                Some(_) => return None,
            };
            let count = number(2, "clicks").unwrap_or(1.0) as u8;
            click(button, count.clamp(1, 3))
        }
        "doubleClick" => click(1, 2),
        "tripleClick" => click(1, 3),
        "rightClick" => click(3, 1),
        "middleClick" => click(2, 1),
        "moveTo" => place().map(|(x, y)| vec![Deed::Move(x, y)]),
        "write" | "typewrite" => words(0).map(|text| vec![Deed::Write(text)]),
        "press" => {
            let keys: Vec<String> = match positional.first()? {
                Value::Text(key) => vec![key.clone()],
                Value::List(keys) => texts(keys)?,
                Value::Number(_) => return None,
            };
            let times = number(1, "presses").unwrap_or(1.0).clamp(1.0, 50.0) as usize;
            let once: Vec<Deed> = keys.into_iter().map(|key| Deed::Hotkey(vec![key])).collect();
            Some(std::iter::repeat_n(once, times).flatten().collect())
        }
        "hotkey" => {
            let keys: Option<Vec<String>> = (0..positional.len()).map(words).collect();
            let keys = keys.filter(|keys| (1..=8).contains(&keys.len()))?;
            Some(vec![Deed::Hotkey(keys)])
        }
        "scroll" => number(0, "clicks").map(|clicks| vec![Deed::Scroll(clicks.clamp(-100.0, 100.0) as i32)]),
        "sleep" => number(0, "seconds").map(|seconds| vec![Deed::Sleep(seconds.clamp(0.0, SLEEP_SECS))]),
        _ => None,
    }
}

fn texts(values: &[Value]) -> Option<Vec<String>> {
    let text = |value: &Value| match value {
        Value::Text(text) => Some(text.clone()),
        _ => None,
    };
    values.iter().map(text).collect()
}

/// Parts between `;` and line ends that are in no text and in no brackets.
fn statements(source: &str) -> Result<Vec<String>, String> {
    split(source, &[';', '\n']).ok_or_else(|| "a text without an end".to_owned())
}

/// Parts between separators that are in no text and in no brackets; none where a text or a bracket has no end.
fn split(source: &str, separators: &[char]) -> Option<Vec<String>> {
    let mut parts = vec![String::new()];
    let (mut quote, mut depth, mut escaped) = (None, 0usize, false);
    for c in source.chars() {
        let is_end = quote.is_none() && depth == 0 && separators.contains(&c);
        if is_end {
            parts.push(String::new());
            continue;
        }
        match (quote, c) {
            (Some(_), _) if escaped => escaped = false,
            (Some(_), '\\') => escaped = true,
            (Some(open), c) if open == c => quote = None,
            (None, '\'' | '"') => quote = Some(c),
            (None, '(' | '[') => depth += 1,
            (None, ')' | ']') => depth = depth.checked_sub(1)?,
            _ => {}
        }
        parts.last_mut()?.push(c);
    }
    (quote.is_none() && depth == 0).then(|| parts.iter().map(|part| part.trim().to_owned()).collect())
}

fn arguments(inside: &str) -> Option<Vec<(Option<String>, Value)>> {
    if inside.trim().is_empty() {
        return Some(Vec::new());
    }
    let argument = |part: &String| {
        let is_name = |name: &str| !name.is_empty() && name.chars().all(|c| c.is_alphanumeric() || c == '_');
        match part.split_once('=').map(|(name, rest)| (name.trim(), rest)) {
            Some((name, rest)) if is_name(name) => Some((Some(name.to_owned()), value(rest.trim())?)),
            _ => Some((None, value(part)?)),
        }
    };
    split(inside, &[','])?.iter().map(argument).collect()
}

fn value(text: &str) -> Option<Value> {
    if let Some(inside) = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        return split(inside, &[','])?
            .iter()
            .map(|part| value(part))
            .collect::<Option<Vec<_>>>()
            .map(Value::List);
    }
    for quote in ['\'', '"'] {
        let inside = text.strip_prefix(quote).and_then(|rest| rest.strip_suffix(quote));
        if let Some(inside) = inside.filter(|_| text.len() >= 2) {
            return Some(Value::Text(unescaped(inside)));
        }
    }
    text.parse().ok().map(Value::Number)
}

fn unescaped(text: &str) -> String {
    let mut out = String::new();
    let mut characters = text.chars();
    while let Some(c) = characters.next() {
        match (c, c == '\\') {
            (_, true) => match characters.next() {
                Some('n') => out.push('\n'),
                Some('t') => out.push('\t'),
                Some(other) => out.push(other),
                None => {}
            },
            (c, false) => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts_of_tasks_are_read() {
        let script = Script::parse(
            "import pyautogui; import time; pyautogui.click(512, 384); time.sleep(0.5); \
             pyautogui.hotkey('ctrl', 'alt', 't'); pyautogui.write('stty; size\\n', interval=0.1)\npyautogui.press(['down', 'enter'])",
        );
        let key = |keys: &[&str]| Deed::Hotkey(keys.iter().map(|key| (*key).to_owned()).collect());
        let deeds = vec![
            Deed::Click { at: Some((512.0, 384.0)), button: 1, count: 1 },
            Deed::Sleep(0.5),
            key(&["ctrl", "alt", "t"]),
            Deed::Write("stty; size\n".to_owned()),
            key(&["down"]),
            key(&["enter"]),
        ];
        assert_eq!(script, Ok(Script(deeds)));
    }

    #[test]
    fn what_is_no_plain_call_is_named_and_nothing_is_run() {
        for (source, what) in [
            ("pyautogui.locateOnScreen('a.png')", "locateOnScreen"),
            ("pyautogui.click('button.png')", "click"),
            ("for i in range(3): pyautogui.press('a')", "for i in range(3): pyautogui.press('a')"),
            ("x = 1", "x = 1"),
            ("pyautogui.write('a", "a text without an end"),
            ("pyautogui.write(open('/etc/passwd').read())", "pyautogui.write(open('/etc/pas"),
        ] {
            let told = Script::parse(source).expect_err("it cannot be done");
            assert!(what.starts_with(&told), "{source}: {told}");
        }
    }
}
