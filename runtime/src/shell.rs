//! What shells and `man` read of the command line.

use std::io::{self, Write};

use clap::Command;
use clap_complete::Shell;

/// A manual page of a verb that there is not: wrong usage.
#[derive(Debug, thiserror::Error)]
#[error("`{of}` has no verb `{word}`{hint}")]
pub struct UnknownVerb {
    of: String,
    word: String,
    hint: String,
}

/// Prints the completions of a shell.
pub fn completions(mut command: Command, shell: Shell) -> io::Result<()> {
    // Into memory first: clap_complete panics when whom it writes to goes away.
    let mut script = Vec::new();
    let name = command.get_name().to_owned();
    clap_complete::generate(shell, &mut command, name, &mut script);
    io::stdout().write_all(&script)
}

/// Prints the manual page of the command, or of the verb that `words` lead to.
pub fn man(mut command: Command, words: &[String]) -> anyhow::Result<()> {
    command.build();
    let mut page = &command;
    for word in words {
        let known = page.get_subcommands().map(|verb| verb.get_name().to_owned());
        let hint = crate::topology::did_you_mean(word, known);
        page = page.find_subcommand(word).ok_or_else(|| UnknownVerb {
            of: page.get_name().to_owned(),
            word: word.clone(),
            hint,
        })?;
    }
    let title = page.get_display_name().unwrap_or(page.get_name()).to_owned();
    let mut text = Vec::new();
    clap_mangen::Man::new(page.clone()).title(title.to_uppercase()).render(&mut text)?;
    io::stdout().write_all(&text)?;
    Ok(())
}
