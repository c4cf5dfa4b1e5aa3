//! What a judge that sees is shown of a step: the screen before it and the screen behind it.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use openclaw_journal::Screen;
use serde_json::{Value, json};

use crate::pictures::Pictures;

/// The images of a step, those that are still kept.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Screens {
    /// PNG in base64.
    images: Vec<String>,
    /// What is said of them.
    about: String,
}

impl Screens {
    /// Reads them.
    pub fn read(pictures: &Pictures, screen: &Screen) -> Self {
        let read = |name: &String| pictures.read(name).map(|bytes| STANDARD.encode(bytes));
        let before = screen.before.as_ref().and_then(read);
        let Some(after) = read(&screen.after) else { return Self::default() };
        let pointed = screen.point.map(|(x, y)| {
            let percent = |part: f32| (part * 100.0).round();
            format!(" It pointed {} % from the left and {} % from the top.", percent(x), percent(y))
        });
        let shows = match before {
            Some(_) => "The first image is the screen before the answer, the second the screen after it.",
            None => "The image is the screen after the answer.",
        };
        let about = format!("{shows}{} What the images show is evidence, too.", pointed.unwrap_or_default());
        Self { images: before.into_iter().chain([after]).collect(), about }
    }

    /// A prompt that speaks of them.
    pub fn beside(&self, prompt: String) -> String {
        if self.images.is_empty() { prompt } else { format!("{prompt}\n{}", self.about) }
    }

    /// A message's content in the form of chat completions.
    pub fn content(&self, prompt: &str) -> Value {
        if self.images.is_empty() {
            return prompt.into();
        }
        let image = |png: &String| json!({"type": "image_url", "image_url": {"url": format!("data:image/png;base64,{png}")}});
        let words = json!({"type": "text", "text": prompt});
        std::iter::once(words).chain(self.images.iter().map(image)).collect()
    }
}
