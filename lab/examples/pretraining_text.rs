//! Prints pretraining documents as JSON lines: `pretraining_text [COUNT] [SEED]`.
use openclaw_lab::pretrain::DocumentGenerator;
use std::io::Write;

fn main() -> std::io::Result<()> {
    let mut arguments = std::env::args().skip(1).map(|argument| argument.parse::<u64>().unwrap_or(1));
    let count = arguments.next().unwrap_or(30) as usize;
    let seed = arguments.next().unwrap_or(1);
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    for document in DocumentGenerator::new(seed).take(count) {
        let line = serde_json::json!({
            "kind": format!("{:?}", document.kind),
            "messages": document.messages,
            "tools": document.tools,
            "trained": document.trained,
        });
        writeln!(out, "{line}")?;
    }
    Ok(())
}
