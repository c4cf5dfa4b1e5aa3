//! Keys by the names that agents and scripts have for them.

/// The keysym of a character.
pub(super) fn of_char(character: char) -> Option<u32> {
    match character {
        '\n' | '\r' => Some(RETURN),
        '\t' => Some(TAB),
        ' '..='~' | '\u{a0}'..='\u{ff}' => Some(u32::from(character)),
        '\u{100}'.. => Some(0x0100_0000 | u32::from(character)),
        _ => None,
    }
}

/// The keysym of a key by its name, whatever its case: `ctrl`, `Return`, `a`, `f5`.
pub(super) fn of_name(name: &str) -> Option<u32> {
    let mut characters = name.chars();
    if let (Some(only), None) = (characters.next(), characters.next()) {
        return of_char(only);
    }
    let name = name.to_ascii_lowercase().replace(['_', '-', ' '], "");
    if let Some(number) = name.strip_prefix('f').and_then(|number| number.parse::<u32>().ok()) {
        return (1..=12).contains(&number).then(|| 0xffbd + number);
    }
    NAMES.iter().find(|(known, _)| *known == name).map(|(_, keysym)| *keysym)
}

/// The return key.
pub(super) const RETURN: u32 = 0xff0d;
/// The tabulator.
pub(super) const TAB: u32 = 0xff09;
/// Takes out what is selected.
pub(super) const DELETE: u32 = 0xffff;
/// The left control key.
pub(super) const CONTROL: u32 = 0xffe3;
/// The left shift key.
pub(super) const SHIFT: u32 = 0xffe1;

const NAMES: &[(&str, u32)] = &[
    ("return", RETURN),
    ("enter", RETURN),
    ("kpenter", 0xff8d),
    ("tab", TAB),
    ("esc", 0xff1b),
    ("escape", 0xff1b),
    ("backspace", 0xff08),
    ("delete", DELETE),
    ("del", DELETE),
    ("insert", 0xff63),
    ("home", 0xff50),
    ("left", 0xff51),
    ("arrowleft", 0xff51),
    ("up", 0xff52),
    ("arrowup", 0xff52),
    ("right", 0xff53),
    ("arrowright", 0xff53),
    ("down", 0xff54),
    ("arrowdown", 0xff54),
    ("pageup", 0xff55),
    ("pgup", 0xff55),
    ("pagedown", 0xff56),
    ("pgdn", 0xff56),
    ("end", 0xff57),
    ("space", 0x20),
    ("ctrl", CONTROL),
    ("control", CONTROL),
    ("ctrlleft", CONTROL),
    ("controll", CONTROL),
    ("ctrlright", 0xffe4),
    ("shift", SHIFT),
    ("shiftleft", SHIFT),
    ("shiftright", 0xffe2),
    ("alt", 0xffe9),
    ("altleft", 0xffe9),
    ("altright", 0xffea),
    ("option", 0xffe9),
    ("super", 0xffeb),
    ("win", 0xffeb),
    ("winleft", 0xffeb),
    ("meta", 0xffeb),
    ("cmd", 0xffeb),
    ("command", 0xffeb),
    ("capslock", 0xffe5),
    ("menu", 0xff67),
    ("apps", 0xff67),
    ("printscreen", 0xff61),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_known_by_the_names_that_models_use() {
        for (name, keysym) in [
            ("a", 0x61),
            ("A", 0x41),
            ("Return", RETURN),
            ("page_down", 0xff56),
            ("F12", 0xffc9),
            ("Control_L", CONTROL),
            ("\u{e4}", 0xe4),
            ("\u{20ac}", 0x0100_20ac),
            (" ", 0x20),
        ] {
            assert_eq!(of_name(name), Some(keysym), "{name}");
        }
        for name in ["", "f13", "f0", "hyper", "\u{7}"] {
            assert_eq!(of_name(name), None, "{name}");
        }
    }
}
