//! What an agent is shown of the tree: what can be used or read, window by window from the uppermost, in reading order.

use std::collections::BTreeMap;

use crate::gui::{Bounds, Element};

use super::bus::{Node, state};

/// Of a title bar: where a window is clicked to come to the front.
const TITLE_PIXELS: i32 = 20;
/// Elements whose middles are so near are in one row.
const ROW_PIXELS: i32 = 8;
/// The most lines of a text that are elements of their own, from its end.
const LINES: usize = 30;
/// The height of a line of text where it is not known.
const LINE_PIXELS: i32 = 17;

/// What a role is called; none is not told of.
fn role_of(node: &Node) -> Option<&'static str> {
    Some(match node.role.as_str() {
        "push button" | "toggle button" | "button" => "button",
        "text" | "entry" | "password text" | "editbar" => "textbox",
        "spin button" => "spinbutton",
        "check box" => "checkbox",
        "radio button" => "radio",
        "combo box" => "combobox",
        "check menu item" | "radio menu item" | "menu item" | "tear off menu item" => "menuitem",
        "menu" => "menu",
        "page tab" => "tab",
        "terminal" => "terminal",
        "slider" => "slider",
        "link" => "link",
        "list item" => "listitem",
        "table cell" | "tree item" => "cell",
        "table column header" | "table row header" | "column header" => "header",
        "icon" | "image" => "icon",
        "label" | "static" | "heading" | "paragraph" => "text",
        "frame" | "window" => "window",
        "dialog" | "alert" | "file chooser" | "color chooser" => "dialog",
        "progress bar" => "progress",
        _ => return None,
    })
}

/// Roles that say nothing without a name.
const NAMED: [&str; 8] = ["cell", "icon", "text", "tab", "header", "menu", "menuitem", "listitem"];
/// Roles that are named by what stands before them.
const FIELDS: [&str; 4] = ["textbox", "combobox", "spinbutton", "slider"];

/// Left, top, width and height.
type Box4 = (i32, i32, i32, i32);

/// The elements of a tree. `frames` are those of the windows, the uppermost last: what lies under another is not seen.
pub(super) fn elements(nodes: &[Node], frames: &[Box4]) -> Vec<Element> {
    let mut windows: Vec<(usize, usize)> = Vec::new();
    for (at, node) in nodes.iter().enumerate() {
        if node.depth == 2 && node.is(state::SHOWING) {
            windows.push((rank(node, frames), at));
        }
    }
    windows.sort_unstable();
    let menus = open_menus(nodes);
    let mut elements = Vec::new();
    for (_, window) in windows {
        elements.extend(window_elements(nodes, window, frames, &menus));
    }
    elements
}

/// How far from the top a window is. One that the window manager does not have, a menu that is open, is over all.
fn rank(window: &Node, frames: &[Box4]) -> usize {
    frame_of(window, frames).map_or(0, |at| frames.len() - at)
}

/// Where the window of a node is among the frames.
fn frame_of(window: &Node, frames: &[Box4]) -> Option<usize> {
    let (x, y, width, height) = window.extents?;
    let near = |one: i32, other: i32| (one - other).abs() <= 40;
    let is =
        |frame: &Box4| near(frame.0, x) && near(frame.1, y) && near(frame.2, width) && near(frame.3, height);
    frames.iter().rposition(is)
}

fn window_elements(nodes: &[Node], window: usize, frames: &[Box4], menus: &[Box4]) -> Vec<Element> {
    let above = frame_of(&nodes[window], frames).map_or(&[][..], |at| &frames[at + 1..]);
    let inside: Vec<bool> = nodes
        .iter()
        .enumerate()
        .scan(Vec::new(), |inside: &mut Vec<bool>, (at, node)| {
            inside.push(at == window || node.parent.is_some_and(|parent| inside[parent]));
            inside.last().copied()
        })
        .collect();
    let mut labels: Vec<(Box4, &str)> = Vec::new();
    let mut found: Vec<(Box4, &Node, &'static str)> = Vec::new();
    for (node, _) in nodes.iter().zip(&inside).filter(|(_, inside)| **inside) {
        let (Some(role), Some(place)) = (role_of(node), node.extents) else { continue };
        let place =
            if node.depth == 2 { (place.0, place.1, place.2, place.3.min(TITLE_PIXELS)) } else { place };
        let on_menu = is_on_menu(nodes, node);
        // With GTK 2 what is on a menu never says that it shows, and has a place while it does.
        let shows = (node.is(state::SHOWING) || on_menu) && node.is(state::VISIBLE);
        let hidden = !shows || place.2 <= 0 || place.3 <= 0;
        let (x, y) = (place.0 + place.2 / 2, place.1 + place.3 / 2);
        let mut over = above.iter().chain(menus.iter().filter(|_| !on_menu));
        let covered = over.any(|over| holds(*over, x, y));
        if hidden || covered || NAMED.contains(&role) && node.name.trim().is_empty() {
            continue;
        }
        if role == "text" {
            labels.push((place, node.name.trim()));
        }
        found.push((place, node, role));
    }
    let named_by: Vec<Option<&str>> = found
        .iter()
        .map(|(place, node, role)| {
            (node.name.trim().is_empty() && FIELDS.contains(role))
                .then(|| label_before(*place, &labels))
                .flatten()
        })
        .collect();
    let mut elements: Vec<(Box4, Element)> = Vec::new();
    for ((place, node, role), label) in found.into_iter().zip(&named_by) {
        // Of a label that names a field nothing more is to be said.
        if role == "text" && named_by.iter().flatten().any(|used| *used == node.name.trim()) {
            continue;
        }
        elements.push((place, element(node, role, place, *label)));
        elements.extend(lines(node, place));
    }
    in_rows(elements)
}

/// Whether a place is in a box.
pub(super) fn holds((left, top, width, height): Box4, x: i32, y: i32) -> bool {
    (left..left + width).contains(&x) && (top..top + height).contains(&y)
}

fn is_on_menu(nodes: &[Node], node: &Node) -> bool {
    node.parent.is_some_and(|parent| nodes[parent].role == "menu")
}

/// Where menus are open: around what is on each.
fn open_menus(nodes: &[Node]) -> Vec<Box4> {
    let mut menus: BTreeMap<usize, Box4> = BTreeMap::new();
    for node in nodes.iter().filter(|node| is_on_menu(nodes, node) && node.is(state::VISIBLE)) {
        let (Some(parent), Some(place)) = (node.parent, node.extents) else { continue };
        let menu = menus.entry(parent).or_insert(place);
        let right = (menu.0 + menu.2).max(place.0 + place.2);
        let bottom = (menu.1 + menu.3).max(place.1 + place.3);
        let (left, top) = (menu.0.min(place.0), menu.1.min(place.1));
        *menu = (left, top, right - left, bottom - top);
    }
    menus.into_values().collect()
}

/// From the top to the bottom, each row from the left to the right.
fn in_rows(mut elements: Vec<(Box4, Element)>) -> Vec<Element> {
    let middle = |place: &Box4| place.1 + place.3 / 2;
    elements.sort_by_key(|(place, _)| (middle(place), place.0));
    let mut rows: Vec<Vec<(Box4, Element)>> = Vec::new();
    for (place, element) in elements {
        match rows.last_mut().filter(|row| middle(&place) - middle(&row[0].0) <= ROW_PIXELS) {
            Some(row) => row.push((place, element)),
            None => rows.push(vec![(place, element)]),
        }
    }
    for row in &mut rows {
        row.sort_by_key(|(place, _)| place.0);
    }
    rows.into_iter().flatten().map(|(_, element)| element).collect()
}

/// The label to the left of a field, in its row, or just above it.
fn label_before<'a>(field: Box4, labels: &[(Box4, &'a str)]) -> Option<&'a str> {
    let (middle, left) = (field.1 + field.3 / 2, field.0);
    let beside = labels.iter().filter(|(place, _)| {
        (place.1..=place.1 + place.3).contains(&middle) && place.0 + place.2 <= left + 4
    });
    if let Some((_, name)) = beside.max_by_key(|(place, _)| place.0) {
        return Some(name);
    }
    let above = labels.iter().filter(|(place, _)| {
        let gap = field.1 - (place.1 + place.3);
        (-4..=12).contains(&gap) && place.0 < field.0 + field.2 && place.0 + place.2 > field.0
    });
    above.max_by_key(|(place, _)| place.1).map(|(_, name)| *name)
}

fn element(node: &Node, role: &str, place: Box4, label: Option<&str>) -> Element {
    let mut states: Vec<String> = Vec::new();
    let told = [
        (node.is(state::CHECKED) && role != "button", "checked"),
        (node.is(state::PRESSED) || node.is(state::CHECKED) && role == "button", "pressed"),
        (node.is(state::SELECTED), "selected"),
        (node.is(state::EXPANDED), "expanded"),
        (node.is(state::FOCUSED), "focused"),
        (!node.is(state::SENSITIVE) && !matches!(role, "text" | "window" | "dialog"), "disabled"),
    ];
    states.extend(told.into_iter().filter(|(is, _)| *is).map(|(_, name)| name.to_owned()));
    let is_one_line = node.text.as_deref().is_some_and(|text| !text.trim_end().contains('\n'));
    Element {
        key: node.key,
        role: role.to_owned(),
        name: label.unwrap_or(node.name.trim()).to_owned(),
        value: node.text.as_deref().filter(|_| role != "terminal" && is_one_line).map(str::to_owned),
        states,
        bounds: bounds(place),
    }
}

/// The lines of a text of many are elements, so that each can be read; the last of them, where there are too many.
fn lines(node: &Node, place: Box4) -> Vec<(Box4, Element)> {
    let Some(text) = node.text.as_deref() else { return Vec::new() };
    let text = text.trim_end();
    if node.role != "terminal" && !text.contains('\n') {
        return Vec::new();
    }
    let all: Vec<&str> = text.lines().collect();
    let last = &all[all.len().saturating_sub(LINES)..];
    let line = |(number, text): (i32, &&str)| {
        let top = (place.1 + number * LINE_PIXELS).min(place.1 + place.3 - 1);
        let place = (place.0, top, place.2, LINE_PIXELS.min(place.3));
        let key = node.key.rotate_left(17) ^ number as u64;
        let element = Element {
            key,
            role: "line".to_owned(),
            name: text.trim_end().to_owned(),
            bounds: bounds(place),
            ..Element::default()
        };
        (place, element)
    };
    (0..).zip(last).filter(|(_, text)| !text.trim().is_empty()).map(line).collect()
}

fn bounds((x, y, width, height): Box4) -> Bounds {
    Bounds { x: x as f32, y: y as f32, width: width as f32, height: height as f32 }
}

#[cfg(test)]
#[path = "look_tests.rs"]
mod tests;
