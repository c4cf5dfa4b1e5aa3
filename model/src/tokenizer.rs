//! Text to token ids and back, for byte-level BPE tokenizers in Hugging Face's format.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use serde_json::{Value, json};
use tokenizers::{
    Model as _, NormalizedString, Normalizer as _, OffsetReferential, OffsetType, PreTokenizedString,
    PreTokenizer as _,
};

use crate::text_error::{TextError, read_json_if_present, write_text};

/// A byte-level BPE tokenizer. Cheap to clone.
#[derive(Clone)]
pub struct Tokenizer {
    inner: Arc<Inner>,
}

struct Inner {
    tokenizer: tokenizers::Tokenizer,
    /// The exact bytes of each id; empty for an id that no token has.
    bytes: Vec<Box<[u8]>>,
    special: Vec<bool>,
    /// See [`Tokenizer::marks`].
    marks: Vec<String>,
    is_mark: Vec<bool>,
    longest_bytes: usize,
    vocab_size: usize,
    named: NamedTokens,
}

/// The most that normalizing shortens a text: a letter and its accents, of three bytes or more, become one of two.
const MOST_NORMALIZED: usize = 3;

/// The tokens that tokenizer_config.json gives a role.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NamedTokens {
    /// Begins a text.
    pub bos: Option<String>,
    /// Ends a response.
    pub eos: Option<String>,
    /// Fills a batch.
    pub pad: Option<String>,
    /// Stands for what has no token.
    pub unk: Option<String>,
}

impl NamedTokens {
    /// Reads `bos_token`, `eos_token`, `pad_token` and `unk_token` of tokenizer_config.json, each a string or an
    /// object with `content`.
    pub(crate) fn from_config(config: &Value) -> Self {
        let token = |key: &str| {
            let value = &config[key];
            value.as_str().or_else(|| value["content"].as_str()).map(str::to_owned)
        };
        Self {
            bos: token("bos_token"),
            eos: token("eos_token"),
            pad: token("pad_token"),
            unk: token("unk_token"),
        }
    }

    /// Each set token under the name that chat templates use.
    pub(crate) fn template_variables(&self) -> impl Iterator<Item = (&'static str, &str)> {
        [
            ("bos_token", &self.bos),
            ("eos_token", &self.eos),
            ("pad_token", &self.pad),
            ("unk_token", &self.unk),
        ]
        .into_iter()
        .filter_map(|(name, token)| Some((name, token.as_deref()?)))
    }
}

impl Tokenizer {
    /// Reads tokenizer.json, and tokenizer_config.json if there is one.
    pub fn from_dir(dir: &Path) -> Result<Self, TextError> {
        let path = dir.join("tokenizer.json");
        let bytes =
            std::fs::read(&path).map_err(|source| TextError::ReadFile { path: path.clone(), source })?;
        let tokenizer = tokenizers::Tokenizer::from_bytes(bytes)
            .map_err(|source| TextError::LoadTokenizer { path: path.clone(), source })?;
        let config = read_json_if_present(&dir.join("tokenizer_config.json"))?.unwrap_or(Value::Null);
        Self::new(tokenizer, NamedTokens::from_config(&config))
            .map_err(|source| TextError::LoadTokenizer { path, source })
    }

    pub(crate) fn new(
        mut tokenizer: tokenizers::Tokenizer,
        named: NamedTokens,
    ) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        // A decoder of another kind would need another way from token to bytes.
        let decoder = serde_json::to_string(&tokenizer.get_decoder())?;
        if !decoder.contains("\"ByteLevel\"") {
            return Err(format!("its decoder is {decoder}, not ByteLevel").into());
        }
        // Files may carry the settings of some training run; a prompt is never cut or filled.
        tokenizer.with_truncation(None)?;
        tokenizer.with_padding(None);

        let vocab_size = tokenizer.get_vocab_size(true);
        let vocab = tokenizer.get_vocab(true);
        let slots = vocab.values().max().map_or(0, |&id| id as usize + 1);
        let mut bytes: Vec<Box<[u8]>> = vec![Box::default(); slots];
        let mut special = vec![false; slots];
        let byte_of_char = byte_of_char();
        for (token, id) in &vocab {
            // A character outside the byte alphabet can only come from a token that was added as plain text.
            let raw: Option<Vec<u8>> =
                token.chars().map(|c| byte_of_char.get(c as usize).copied()?).collect();
            bytes[*id as usize] = raw.unwrap_or_else(|| token.clone().into_bytes()).into();
        }
        let mut marks = Vec::new();
        let mut is_mark = vec![false; slots];
        for (id, token) in tokenizer.get_added_tokens_decoder() {
            special[id as usize] = token.special;
            if token.special || (token.content.starts_with('<') && token.content.ends_with('>')) {
                is_mark[id as usize] = true;
                marks.push(token.content.clone());
            }
            bytes[id as usize] = token.content.into_bytes().into();
        }
        let longest_bytes = bytes.iter().map(|bytes| bytes.len()).max().unwrap_or(1).max(1);
        let inner = Inner { tokenizer, bytes, special, marks, is_mark, longest_bytes, vocab_size, named };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// The tokens that have a role.
    pub fn named(&self) -> &NamedTokens {
        &self.inner.named
    }

    /// Writes tokenizer.json and tokenizer_config.json, as `transformers` reads them.
    pub fn save(&self, dir: &Path) -> Result<(), TextError> {
        let path = dir.join("tokenizer.json");
        let text = self.inner.tokenizer.to_string(true).map_err(|error| TextError::WriteFile {
            path: path.clone(),
            source: std::io::Error::other(error),
        })?;
        write_text(&path, &(text + "\n"))?;

        let named = &self.inner.named;
        let config = json!({
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": named.bos,
            "eos_token": named.eos,
            "pad_token": named.pad,
            "unk_token": named.unk,
            "clean_up_tokenization_spaces": false,
        });
        write_text(&dir.join("tokenizer_config.json"), &format!("{config:#}\n"))
    }

    /// The ids of a text. Special tokens written in the text are recognised, so that it must be one's own; none are added.
    /// Prompts are made by [`crate::Prompt`].
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, TextError> {
        let encoding = self
            .inner
            .tokenizer
            .encode_fast(text, false)
            .map_err(|source| TextError::Encode { bytes: text.len(), source })?;
        Ok(encoding.get_ids().to_vec())
    }

    /// The ids of a text in which `seam` stands within each mark that is no mark: the text without the seams, of whose
    /// marks only the others are recognised.
    pub(crate) fn encode_sewn(&self, text: &str, seam: char) -> Result<Vec<u32>, TextError> {
        let failed = |source| TextError::Encode { bytes: text.len(), source };
        let tokenizer = &self.inner.tokenizer;
        let added = tokenizer.get_added_vocabulary();
        let split = added.extract_and_normalize(tokenizer.get_normalizer(), text);
        let mut ids = Vec::new();
        for (_, (start, end), tokens) in split.get_splits(OffsetReferential::Original, OffsetType::Byte) {
            match tokens {
                Some(tokens) => ids.extend(tokens.iter().map(|token| token.id)),
                None => {
                    let stretch = text[start..end].replace(seam, "");
                    self.push_letters(&stretch, &mut ids).map_err(failed)?;
                }
            }
        }
        Ok(ids)
    }

    /// The ids of a text in which nothing is a mark.
    pub(crate) fn encode_letters(&self, text: &str) -> Result<Vec<u32>, TextError> {
        let mut ids = Vec::new();
        let failed = |source| TextError::Encode { bytes: text.len(), source };
        self.push_letters(text, &mut ids).map_err(failed)?;
        Ok(ids)
    }

    /// See [`Self::encode_letters`].
    fn push_letters(
        &self,
        text: &str,
        ids: &mut Vec<u32>,
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let tokenizer = &self.inner.tokenizer;
        let mut normalized = NormalizedString::from(text);
        if let Some(normalizer) = tokenizer.get_normalizer() {
            normalizer.normalize(&mut normalized)?;
        }
        let mut words = PreTokenizedString::from(normalized);
        if let Some(pre_tokenizer) = tokenizer.get_pre_tokenizer() {
            pre_tokenizer.pre_tokenize(&mut words)?;
        }
        let model = tokenizer.get_model();
        for (word, _, _) in words.get_splits(OffsetReferential::Original, OffsetType::None) {
            let tokens = model.tokenize(word)?;
            if tokens.iter().all(|token| !self.is_mark(token.id)) {
                ids.extend(tokens.iter().map(|token| token.id));
                continue;
            }
            // A vocabulary may list its marks among its words; their letters are in it in any case.
            for letter in word.chars() {
                ids.extend(model.tokenize(letter.encode_utf8(&mut [0; 4]))?.iter().map(|token| token.id));
            }
        }
        Ok(())
    }

    /// The text of ids; bytes that are not UTF-8 become U+FFFD. Ids that no token has give no text.
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> String {
        let mut bytes = Vec::new();
        for &id in ids {
            if !(skip_special && self.is_special(id)) {
                bytes.extend_from_slice(self.bytes_of(id));
            }
        }
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// The exact bytes of one token, which may be a part of a character. Empty for an id that no token has.
    pub fn token_bytes(&self, id: u32) -> Vec<u8> {
        self.bytes_of(id).to_vec()
    }

    /// One token as text; bytes that are not UTF-8 on their own become U+FFFD.
    pub fn token_text(&self, id: u32) -> String {
        String::from_utf8_lossy(self.bytes_of(id)).into_owned()
    }

    pub(crate) fn bytes_of(&self, id: u32) -> &[u8] {
        self.inner.bytes.get(id as usize).map_or(&[], |bytes| bytes)
    }

    /// A text of so many bytes has this many tokens at least.
    pub fn least_tokens(&self, bytes: usize) -> usize {
        let shortened = if self.inner.tokenizer.get_normalizer().is_some() { MOST_NORMALIZED } else { 1 };
        bytes / (self.inner.longest_bytes * shortened)
    }

    /// How many tokens there are, added ones included. A model's own vocabulary may be padded beyond it.
    pub fn vocab_size(&self) -> usize {
        self.inner.vocab_size
    }

    /// One more than the highest id of a token.
    pub fn id_limit(&self) -> usize {
        self.inner.bytes.len()
    }

    /// The id of a token that is matched as a whole, such as `<|im_end|>` or `<think>`.
    pub fn special_id(&self, token: &str) -> Option<u32> {
        self.inner.tokenizer.get_added_vocabulary().get_vocab().get(token).copied()
    }

    /// Whether the tokenizer calls this token special: a control token, no part of the text.
    pub fn is_special(&self, id: u32) -> bool {
        self.inner.special.get(id as usize).copied().unwrap_or(false)
    }

    /// The added tokens that stand for no text: the special ones, and the others of the form `<..>`, such as `<think>`.
    pub fn marks(&self) -> &[String] {
        &self.inner.marks
    }

    /// See [`Self::marks`].
    pub(crate) fn is_mark(&self, id: u32) -> bool {
        self.inner.is_mark.get(id as usize).copied().unwrap_or(false)
    }

    /// The tokens that have a role.
    pub fn named_tokens(&self) -> &NamedTokens {
        &self.inner.named
    }

    /// The id of the token that ends a response.
    pub fn eos_id(&self) -> Option<u32> {
        self.inner.tokenizer.token_to_id(self.inner.named.eos.as_deref()?)
    }
}

impl fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokenizer").field("vocab_size", &self.inner.vocab_size).finish_non_exhaustive()
    }
}

/// Byte-level BPE writes each byte as one printable character: printable Latin-1 bytes as themselves, the other 68 in
/// order from U+0100 on.
fn byte_of_char() -> Vec<Option<u8>> {
    let mut table = vec![None; 0x100 + 68];
    let mut moved = 0x100;
    for byte in 0..=255u8 {
        let code = match byte {
            b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF => byte as usize,
            _ => {
                moved += 1;
                moved - 1
            }
        };
        table[code] = Some(byte);
    }
    table
}
