//! `openclaw-rl import`: a model that another tool holds, as a checkpoint folder.

use std::{
    io::{self, Write},
    path::PathBuf,
};

use anyhow::Context;
use clap::{Args, ValueEnum};
use openclaw_model::{WeightDtype, checkpoint, gguf};

/// Examples for `--help`.
pub const EXAMPLES: &str = "\
Reads GGUF files of the architectures llama, qwen2 and qwen3, in F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q4_K, Q5_K and \
Q6_K, with a byte-level BPE vocabulary.

Examples:
  openclaw-rl import SmolLM2-135M-Instruct.Q4_1.gguf models/smollm2
  openclaw-rl import qwen2.5-0.5b-instruct-q4_k_m.gguf models/qwen --dtype bf16";

/// Arguments of `import`.
#[derive(Clone, Debug, Args)]
pub struct ImportArgs {
    /// The file.
    #[arg(value_name = "FILE.gguf")]
    file: PathBuf,
    /// The checkpoint folder to write.
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// How weights are stored: f32 keeps every value of the file, bf16 takes half of the room.
    #[arg(long, value_enum, default_value_t)]
    dtype: Stored,
    /// Replaces the model that is at DIR.
    #[arg(long)]
    force: bool,
}

/// How weights are stored.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
pub enum Stored {
    /// Every bit.
    #[default]
    F32,
    /// In half of the room.
    Bf16,
}

impl From<Stored> for WeightDtype {
    fn from(stored: Stored) -> Self {
        match stored {
            Stored::F32 => Self::F32,
            Stored::Bf16 => Self::Bf16,
        }
    }
}

/// Makes the folder and says what it holds.
pub fn run(args: &ImportArgs) -> anyhow::Result<()> {
    checkpoint::may_write(&args.dir, args.force)?;
    let imported = gguf::import(&args.file, &args.dir, args.dtype.into())
        .with_context(|| format!("cannot import {}", args.file.display()))?;
    for warning in &imported.warnings {
        eprintln!("{}: warning: {warning}", args.file.display());
    }
    let config = &imported.config;
    writeln!(
        io::stdout(),
        "{}: {}, {} layers of width {}, {} tokens, context {}",
        args.dir.display(),
        config.family.traits().model_type,
        config.layers,
        config.hidden_size,
        config.vocab_size,
        config.max_positions,
    )?;
    Ok(())
}
