//! `--set actors.judge.votes=5`: a dotted path into the topology file and a TOML value, or a bare string.

use toml::{Table, Value};

/// One `--set`.
#[derive(Clone, Debug, PartialEq)]
pub struct Override {
    /// The dotted key; `actors.rollout[0].workers` reaches into an array.
    pub key: String,
    /// Its value.
    pub value: Value,
}

impl std::str::FromStr for Override {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (key, value) = text.split_once('=').ok_or("expected KEY=VALUE")?;
        let key = key.trim();
        steps(key).ok_or_else(|| format!("\"{key}\" is not a dotted key"))?;
        Ok(Self { key: key.to_owned(), value: value_of(value.trim()) })
    }
}

impl std::fmt::Display for Override {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}={}", self.key, self.value)
    }
}

/// What is not TOML is a string: `--set run.name=blue` needs no quotes.
fn value_of(text: &str) -> Value {
    let parsed = format!("value = {text}").parse::<Table>().ok().filter(|table| table.len() == 1);
    parsed.and_then(|mut table| table.remove("value")).unwrap_or_else(|| Value::String(text.to_owned()))
}

enum Step<'k> {
    Key(&'k str),
    Index(usize),
}

fn steps(key: &str) -> Option<Vec<Step<'_>>> {
    let mut steps = Vec::new();
    for part in key.split('.') {
        let mut indices = part.split('[');
        let name = indices.next().filter(|name| !name.is_empty())?;
        steps.push(Step::Key(name));
        for index in indices {
            steps.push(Step::Index(index.strip_suffix(']')?.parse().ok()?));
        }
    }
    Some(steps)
}

/// Puts the value at its key, making the tables on the way there.
pub fn apply(table: &mut Table, set: &Override) -> Result<(), String> {
    let steps = steps(&set.key).ok_or("is not a dotted key")?;
    let mut place = Place::Table(table);
    for step in steps {
        place = match (step, place.into_value()?) {
            (Step::Key(name), Inner::Table(table)) => {
                Place::Value(table.entry(name).or_insert_with(|| Value::Table(Table::new())))
            }
            (Step::Index(index), Inner::Array(array)) => {
                let length = array.len();
                Place::Value(array.get_mut(index).ok_or_else(|| format!("there are only {length} of them"))?)
            }
            (Step::Key(name), Inner::Array(_)) => return Err(format!("`{name}` is looked for in an array")),
            (Step::Index(_), Inner::Table(_)) => return Err("a table has no numbered entries".to_owned()),
        };
    }
    if let Place::Value(value) = place {
        *value = set.value.clone();
    }
    Ok(())
}

enum Place<'t> {
    Table(&'t mut Table),
    Value(&'t mut Value),
}

enum Inner<'t> {
    Table(&'t mut Table),
    Array(&'t mut Vec<Value>),
}

impl<'t> Place<'t> {
    fn into_value(self) -> Result<Inner<'t>, String> {
        match self {
            Self::Table(table) | Self::Value(Value::Table(table)) => Ok(Inner::Table(table)),
            Self::Value(Value::Array(array)) => Ok(Inner::Array(array)),
            Self::Value(other) => Err(format!("the {} there has no keys", other.type_str())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(text: &str, on: &str) -> Result<String, String> {
        let mut table: Table = on.parse().expect("the test's TOML");
        apply(&mut table, &text.parse()?)?;
        Ok(table.to_string())
    }

    #[test]
    fn values_are_toml_or_else_strings() {
        let values = [
            ("5", Value::Integer(5)),
            ("1e-4", Value::Float(1e-4)),
            ("true", Value::Boolean(true)),
            ("\"5\"", Value::String("5".to_owned())),
            ("runs/a b", Value::String("runs/a b".to_owned())),
            ("1\nb = 2", Value::String("1\nb = 2".to_owned())),
            ("", Value::String(String::new())),
        ];
        for (text, expected) in values {
            assert_eq!(value_of(text), expected, "{text}");
        }
        assert!(value_of("{ kind = \"opd\" }").is_table());
    }

    #[test]
    fn an_override_reaches_into_tables_and_arrays_and_makes_what_is_missing() {
        assert_eq!(set("a.b=2", "[a]\nb = 1\n").unwrap(), "[a]\nb = 2\n");
        assert_eq!(set("a.b=2", "").unwrap(), "[a]\nb = 2\n");
        assert_eq!(
            set("a[1].b=2", "[[a]]\nb = 1\n[[a]]\nb = 1\n").unwrap(),
            "[[a]]\nb = 1\n\n[[a]]\nb = 2\n"
        );
    }

    #[test]
    fn an_override_that_leads_nowhere_says_why() {
        for wrong in ["a", "=1", "a..b=1", "a[x]=1"] {
            assert!(set(wrong, "").is_err(), "{wrong}");
        }
        assert!(set("a.b.c=1", "[a]\nb = 1").unwrap_err().contains("integer"));
        assert!(set("a[3].b=1", "[[a]]\nb = 1").unwrap_err().contains("only 1"));
    }
}
