//! Reads TOML values into the topology's own types. A section states each key once, with its type and its
//! default; unknown, missing and mistyped keys follow from that.
//!
//! A value that cannot be read becomes a placeholder and a problem, so that reading and checking go on and every
//! problem is told. The caller uses the result only when there was none.

use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf};

use toml::{Table, Value};

use super::problems::{Problems, did_you_mean, join, nearest};

/// A type that a topology file can hold.
pub trait FromToml: Sized {
    /// Reads the value of `key`.
    fn from_toml(value: &Value, key: &str, problems: &mut Problems) -> Self;
    /// Stands in for a value that is missing or wrong; never used once a file was accepted.
    fn placeholder() -> Self;
}

/// The keys of one table, asked for one by one.
pub struct Keys<'t> {
    table: &'t Table,
    key: &'t str,
    known: Vec<&'static str>,
    missing: Vec<&'static str>,
    problems: &'t mut Problems,
}

static NO_TABLE: std::sync::LazyLock<Table> = std::sync::LazyLock::new(Table::new);

impl<'t> Keys<'t> {
    /// Opens the table at `key`.
    pub fn open(value: &'t Value, key: &'t str, problems: &'t mut Problems) -> Self {
        let table = value.as_table().unwrap_or_else(|| {
            problems.add(key, expected("a table", value));
            &NO_TABLE
        });
        Self { table, key, known: Vec::new(), missing: Vec::new(), problems }
    }

    /// The value of a key that must be there.
    pub fn required<T: FromToml>(&mut self, name: &'static str) -> T {
        let value = self.read(name);
        value.unwrap_or_else(|| {
            self.missing.push(name);
            T::placeholder()
        })
    }

    /// The value of a key, or its default.
    pub fn optional<T: FromToml>(&mut self, name: &'static str, default: impl FnOnce() -> T) -> T {
        self.read(name).unwrap_or_else(default)
    }

    /// Refuses a key that is known and has no use here.
    pub fn unused(&mut self, name: &'static str, message: &str) {
        self.known.push(name);
        if self.table.contains_key(name) {
            self.problems.add(&join(self.key, name), message);
        }
    }

    fn read<T: FromToml>(&mut self, name: &'static str) -> Option<T> {
        self.known.push(name);
        self.table.get(name).map(|value| T::from_toml(value, &join(self.key, name), self.problems))
    }

    /// Reports what was not asked for, and what was and is not there.
    pub fn finish(mut self) {
        for name in self.table.keys().filter(|name| !self.known.contains(&name.as_str())) {
            // A misspelt key is one problem: nothing else follows from the key that is therefore not there.
            if let Some(meant) = nearest(name, &self.known).filter(|meant| !self.table.contains_key(meant)) {
                self.missing.retain(|missing| *missing != meant);
                self.problems.misspelt(&join(self.key, &meant));
            }
            let message = format!("unknown key{}", did_you_mean(name, &self.known));
            self.problems.add(&join(self.key, name), message);
        }
        for name in self.missing {
            self.problems.add(&join(self.key, name), "missing");
        }
    }
}

/// Declares a table of the topology file: `key: type`, or `key: type = default`.
macro_rules! section {
    ($(#[$meta:meta])* pub struct $name:ident {
        $($(#[$doc:meta])* $field:ident: $type:ty $(= $default:expr)?,)*
    }) => {
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq, serde::Serialize)]
        pub struct $name { $($(#[$doc])* pub $field: $type,)* }

        impl $crate::topology::read::FromToml for $name {
            fn from_toml(
                value: &toml::Value,
                key: &str,
                problems: &mut $crate::topology::problems::Problems,
            ) -> Self {
                let mut keys = $crate::topology::read::Keys::open(value, key, problems);
                let section = Self {
                    $($field: $crate::topology::read::section!(@read keys $field $($default)?),)*
                };
                keys.finish();
                section
            }

            fn placeholder() -> Self {
                Self { $($field: <$type as $crate::topology::read::FromToml>::placeholder(),)* }
            }
        }
    };
    (@read $keys:ident $field:ident) => { $keys.required(stringify!($field)) };
    (@read $keys:ident $field:ident $default:expr) => { $keys.optional(stringify!($field), || $default) };
}

/// Declares a key that holds one of a few words; the first one is the placeholder.
macro_rules! words {
    ($(#[$meta:meta])* pub enum $name:ident { $($(#[$doc:meta])* $variant:ident = $word:literal,)* }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum $name { $($(#[$doc])* $variant,)* }

        impl $name {
            /// Every value, in the order of the documentation.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// The word that the topology file uses.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word),* }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl std::str::FromStr for $name {
            type Err = String;

            fn from_str(word: &str) -> Result<Self, String> {
                $crate::topology::read::word(word, Self::ALL, |known| known.as_str())
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }

        impl $crate::topology::read::FromToml for $name {
            fn from_toml(
                value: &toml::Value,
                key: &str,
                problems: &mut $crate::topology::problems::Problems,
            ) -> Self {
                $crate::topology::read::parsed(value, key, problems)
            }

            fn placeholder() -> Self {
                Self::ALL[0]
            }
        }
    };
}

/// Reads a word set that another crate declares, by its serde names; `$placeholder` is one of its values.
macro_rules! foreign_words {
    ($type:ident, $placeholder:ident, $words:expr) => {
        impl $crate::topology::read::FromToml for $type {
            fn from_toml(
                value: &toml::Value,
                key: &str,
                problems: &mut $crate::topology::problems::Problems,
            ) -> Self {
                $crate::topology::read::foreign_word(value, key, problems, &$words)
            }

            fn placeholder() -> Self {
                Self::$placeholder
            }
        }
    };
}
pub(crate) use {foreign_words, section, words};

/// The value of a set of words that is written `word`.
pub fn word<T: Copy>(word: &str, all: &[T], name: impl Fn(T) -> &'static str) -> Result<T, String> {
    all.iter().copied().find(|known| name(*known) == word).ok_or_else(|| {
        let names: Vec<_> = all.iter().map(|known| name(*known)).collect();
        format!("\"{word}\" is not one of {}{}", names.join(", "), did_you_mean(word, &names))
    })
}

/// Reads one of `words` as serde does.
pub fn foreign_word<T: FromToml + serde::de::DeserializeOwned>(
    value: &Value,
    key: &str,
    problems: &mut Problems,
    words: &[&'static str],
) -> T {
    let known = match value.as_str() {
        Some(text) => word(text, words, |known| known),
        None => Err(expected("a string", value)),
    };
    let read =
        known.and_then(|_| value.clone().try_into().map_err(|error: toml::de::Error| error.to_string()));
    read.unwrap_or_else(|message| {
        problems.add(key, message);
        T::placeholder()
    })
}

/// Reads a string that parses as `T`.
pub fn parsed<T: FromToml + std::str::FromStr<Err = String>>(
    value: &Value,
    key: &str,
    problems: &mut Problems,
) -> T {
    let Some(text) = value.as_str() else {
        problems.add(key, expected("a string", value));
        return T::placeholder();
    };
    text.parse().unwrap_or_else(|message: String| {
        problems.add(key, message);
        T::placeholder()
    })
}

pub(super) fn expected(what: &str, value: &Value) -> String {
    let found = match value {
        Value::String(text) => format!("the string \"{text}\""),
        Value::Integer(number) => format!("the number {number}"),
        Value::Float(number) => format!("the number {number}"),
        Value::Boolean(truth) => format!("{truth}"),
        Value::Datetime(time) => format!("the time {time}"),
        Value::Array(_) => "an array".to_owned(),
        Value::Table(_) => "a table".to_owned(),
    };
    format!("expected {what}, found {found}")
}

macro_rules! scalar {
    ($type:ty, $what:literal, $placeholder:expr, |$value:ident| $read:expr) => {
        impl FromToml for $type {
            fn from_toml($value: &Value, key: &str, problems: &mut Problems) -> Self {
                $read.unwrap_or_else(|| {
                    problems.add(key, expected($what, $value));
                    Self::placeholder()
                })
            }

            fn placeholder() -> Self {
                $placeholder
            }
        }
    };
}

scalar!(String, "a string", String::new(), |value| value.as_str().map(str::to_owned));
scalar!(PathBuf, "a path", PathBuf::new(), |value| value.as_str().map(PathBuf::from));
scalar!(bool, "true or false", false, |value| value.as_bool());
scalar!(usize, "a whole number from 0", 1, |value| value.as_integer().and_then(|n| n.try_into().ok()));
scalar!(u64, "a whole number from 0", 1, |value| value.as_integer().and_then(|n| n.try_into().ok()));
scalar!(f64, "a finite number", 1.0, |value| {
    let number = value.as_float().or_else(|| value.as_integer().map(|n| n as f64));
    number.filter(|n| n.is_finite())
});
scalar!(f32, "a finite number", 1.0, |value| {
    let number = value.as_float().or_else(|| value.as_integer().map(|n| n as f64));
    number.map(|n| n as f32).filter(|n| n.is_finite())
});
scalar!(
    SocketAddr,
    "an address such as \"127.0.0.1:30000\"",
    SocketAddr::from(([127, 0, 0, 1], 0)),
    |value| { value.as_str().and_then(|text| text.parse().ok()) }
);
scalar!([f64; 2], "two numbers", [0.0; 2], |value| {
    let numbers: Option<Vec<f64>> = value.as_array().and_then(|array| {
        array.iter().map(|n| n.as_float().or_else(|| n.as_integer().map(|n| n as f64))).collect()
    });
    numbers.and_then(|numbers| numbers.try_into().ok())
});

impl<T: FromToml> FromToml for Option<T> {
    fn from_toml(value: &Value, key: &str, problems: &mut Problems) -> Self {
        Some(T::from_toml(value, key, problems))
    }

    fn placeholder() -> Self {
        None
    }
}

impl<T: FromToml> FromToml for Vec<T> {
    fn from_toml(value: &Value, key: &str, problems: &mut Problems) -> Self {
        let Some(array) = value.as_array() else {
            problems.add(key, expected("an array", value));
            return Vec::new();
        };
        let items = array.iter().enumerate();
        items.map(|(i, item)| T::from_toml(item, &format!("{key}[{i}]"), problems)).collect()
    }

    fn placeholder() -> Self {
        Vec::new()
    }
}

impl<T: FromToml> FromToml for BTreeMap<String, T> {
    fn from_toml(value: &Value, key: &str, problems: &mut Problems) -> Self {
        let Some(table) = value.as_table() else {
            problems.add(key, expected("a table", value));
            return BTreeMap::new();
        };
        let read = |(name, value): (&String, &Value)| {
            (name.clone(), T::from_toml(value, &join(key, name), problems))
        };
        table.iter().map(read).collect()
    }

    fn placeholder() -> Self {
        BTreeMap::new()
    }
}
