//! Trains a byte-level BPE tokenizer as Qwen's are made: NFC, Qwen2's split pattern, digits one by one.

use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::normalizers::unicode::NFC;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{AddedToken, PreTokenizerWrapper, SplitDelimiterBehavior};

use crate::text_error::TextError;
use crate::tokenizer::{NamedTokens, Tokenizer};

const SPLIT_PATTERN: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// Trains on `texts` until there are `vocab_size` tokens, or fewer if the texts have no more pairs to merge.
///
/// `special_tokens` get the first ids, in order, and are never split. Those written `<|like_this|>` are control tokens;
/// others (`<think>`, `<tool_call>`) are part of the text and survive decoding, as in Qwen3's vocabulary. `<|im_end|>`
/// ends a response and `<|endoftext|>` fills a batch, if they are among them.
pub fn train_bpe(
    texts: impl Iterator<Item = String> + Send,
    vocab_size: usize,
    special_tokens: &[&str],
) -> Result<Tokenizer, TextError> {
    let needed = 256 + special_tokens.len();
    if vocab_size < needed {
        let special_tokens = special_tokens.len();
        return Err(TextError::VocabularyTooSmall { vocab_size, special_tokens, needed });
    }
    let added = special_tokens.iter().map(|token| {
        let is_control = token.starts_with("<|") && token.ends_with("|>");
        AddedToken::from(*token, is_control).normalized(false)
    });
    let mut trainer = BpeTrainer::builder()
        .vocab_size(vocab_size)
        .min_frequency(2)
        .show_progress(false)
        .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
        .special_tokens(added.collect())
        .build();

    let byte_level = ByteLevel::new(false, false, false);
    let train = || {
        let split =
            Split::new(SplitPattern::Regex(SPLIT_PATTERN.into()), SplitDelimiterBehavior::Isolated, false)?;
        let pre_tokenizer = Sequence::new(vec![
            PreTokenizerWrapper::Split(split),
            PreTokenizerWrapper::ByteLevel(byte_level),
        ]);
        let mut tokenizer = tokenizers::TokenizerBuilder::<
            BPE,
            tokenizers::NormalizerWrapper,
            PreTokenizerWrapper,
            tokenizers::PostProcessorWrapper,
            tokenizers::DecoderWrapper,
        >::default()
        .with_model(BPE::default())
        .with_normalizer(Some(NFC.into()))
        .with_pre_tokenizer(Some(pre_tokenizer.into()))
        .with_post_processor(Some(byte_level.into()))
        .with_decoder(Some(byte_level.into()))
        .build()?;
        tokenizer.train(&mut trainer, texts)?;
        // Through the file's format, so that what is used now is what will be loaded later.
        let trained = tokenizers::Tokenizer::from_bytes(tokenizer.to_string(false)?)?;
        let named = |token: &str| special_tokens.contains(&token).then(|| token.to_owned());
        Tokenizer::new(
            trained,
            NamedTokens { eos: named("<|im_end|>"), pad: named("<|endoftext|>"), ..NamedTokens::default() },
        )
    };
    train().map_err(|source| TextError::TrainTokenizer { source })
}
