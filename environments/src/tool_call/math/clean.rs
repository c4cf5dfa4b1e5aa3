//! One spelling for what LaTeX and plain text can write in many: delimiters, spacing, fonts, signs.

/// Words that are one spelling of another, longest first where one begins another.
const SPELLINGS: &[(&str, &str)] = &[
    ("{,}", ""),
    ("\\left\\{", "\\{"),
    ("\\right\\}", "\\}"),
    ("\\lbrace", "\\{"),
    ("\\rbrace", "\\}"),
    ("\\dfrac", "\\frac"),
    ("\\tfrac", "\\frac"),
    ("\\cfrac", "\\frac"),
    ("\\dbinom", "\\binom"),
    ("\\displaystyle", " "),
    ("\\qquad", " "),
    ("\\quad", " "),
    ("\\!", ""),
    ("\\,", " "),
    ("\\;", " "),
    ("\\:", " "),
    ("\\ ", " "),
    ("~", " "),
    ("\\%", "%"),
    ("\\mathrm", "\\text"),
    ("\\textbf", "\\text"),
    ("\\textit", "\\text"),
    ("\\textrm", "\\text"),
    ("\\mathbf", "\\text"),
    ("\\mbox", "\\text"),
    ("\\operatorname", "\\text"),
    ("\\degree", "^\\circ"),
    ("^{\\circ}", "^\\circ"),
    ("\\cup", " \\cup "),
    ("\u{2212}", "-"),
    ("\u{2013}", "-"),
    ("\u{d7}", "\\times "),
    ("\u{b7}", "\\cdot "),
    ("\u{f7}", "/"),
    ("\u{3c0}", "\\pi "),
    ("\u{221e}", "\\infty "),
    ("\u{b0}", "^\\circ"),
    ("\u{b1}", "\\pm "),
    ("\u{b2}", "^2"),
    ("\u{b3}", "^3"),
    ("\u{222a}", " \\cup "),
    ("\u{a0}", " "),
    ("\u{2009}", " "),
    ("\u{202f}", " "),
];

/// `text` in the one spelling.
pub(super) fn clean(text: &str) -> String {
    let mut text = text.to_owned();
    for (from, to) in SPELLINGS {
        if text.contains(from) {
            text = text.replace(from, to);
        }
    }
    text = drop_command(&drop_command(&text, "\\left"), "\\right");
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    unwrap(&text).to_owned()
}

/// Takes `command` out, but not the beginning of a longer one such as `\leftarrow`.
fn drop_command(text: &str, command: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(command) {
        out.push_str(&rest[..at]);
        let after = &rest[at + command.len()..];
        if after.starts_with(|c: char| c.is_ascii_alphabetic()) {
            out.push_str(command);
        } else if let Some(nothing) = after.strip_prefix('.') {
            // `\right.` closes what is not shown.
            rest = nothing;
            continue;
        }
        rest = after;
    }
    out.push_str(rest);
    out
}

/// Takes off what stands around the whole: `$..$`, `\(..\)`, `\[..\]`, `\boxed{..}`, `\text{..}`, a full stop.
fn unwrap(mut text: &str) -> &str {
    loop {
        let before = text.len();
        text = text.trim();
        if let Some(rest) = text.strip_suffix(['.', ',', ';']).filter(|rest| !rest.ends_with("\\")) {
            text = rest.trim_end();
        }
        for (open, close) in [("$$", "$$"), ("$", "$"), ("\\(", "\\)"), ("\\[", "\\]")] {
            if let Some(inside) = text.strip_prefix(open).and_then(|rest| rest.strip_suffix(close))
                && !inside.contains(open)
            {
                text = inside;
            }
        }
        for command in ["\\boxed", "\\fbox", "\\text"] {
            if let Some(inside) = text.strip_prefix(command).and_then(whole_group) {
                text = inside;
            }
        }
        if text.len() == before {
            return text;
        }
    }
}

/// The inside of `{..}` if that is all of `text`.
pub(super) fn whole_group(text: &str) -> Option<&str> {
    let inside = text.strip_prefix('{')?.strip_suffix('}')?;
    let (mut depth, mut escaped) = (0i32, false);
    for byte in inside.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'{' => depth += 1,
            b'}' => depth -= 1,
            _ => {}
        }
        if depth < 0 {
            return None;
        }
    }
    (depth == 0 && !escaped).then_some(inside)
}
