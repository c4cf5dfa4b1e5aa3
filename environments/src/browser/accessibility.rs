//! What can be told apart on a page: the accessibility tree, with the boxes of the layout.

use std::collections::HashMap;

use serde_json::Value;

use crate::gui::{Bounds, Element};

/// Roles that group or only hold what is told in other lines.
const SILENT: &[&str] = &[
    "RootWebArea",
    "InlineTextBox",
    "generic",
    "none",
    "presentation",
    "paragraph",
    "group",
    "list",
    "listitem",
    "ListMarker",
    "LineBreak",
    "row",
    "rowgroup",
    "table",
    "grid",
    "MenuListPopup",
    "LabelText",
    "Legend",
    "section",
    "main",
    "navigation",
    "banner",
    "contentinfo",
    "region",
    "form",
    "article",
    "figure",
    "Iframe",
    "radiogroup",
    "menu",
    "menubar",
    "toolbar",
    "tablist",
    "tabpanel",
    "LayoutTable",
    "LayoutTableRow",
    "LayoutTableCell",
    "SvgRoot",
    "Canvas",
    "strong",
    "emphasis",
    "mark",
    "code",
    "blockquote",
    "DescriptionList",
    "complementary",
    "search",
    "document",
    "Abbr",
    "time",
    "superscript",
    "subscript",
    "Details",
    "StaticText",
    "listbox",
    "insertion",
    "deletion",
    "term",
    "definition",
    "DescriptionListTerm",
    "DescriptionListDetail",
];

/// Roles of what has a value. What is inside them is a part of it.
const FIELDS: &[&str] = &[
    "textbox",
    "searchbox",
    "combobox",
    "spinbutton",
    "slider",
    "date",
    "datetime",
    "inputtime",
    "colorwell",
];

/// The most options of a list that are told.
const OPTIONS: usize = 20;

/// In reading order.
pub(super) fn elements(tree: &Value, layout: &Value) -> Vec<Element> {
    let Layout { boxes, values } = Layout::read(layout);
    let nodes = tree["nodes"].as_array().map(Vec::as_slice).unwrap_or_default();
    let by_id: HashMap<&str, &Value> =
        nodes.iter().filter_map(|node| Some((node["nodeId"].as_str()?, node))).collect();
    let mut walk = Walk { by_id, boxes, values, elements: Vec::new() };
    if let Some(root) = nodes.first() {
        walk.node(root, "");
    }
    without_labels(walk.elements)
}

/// A text beside something that is called so says nothing new.
fn without_labels(elements: Vec<Element>) -> Vec<Element> {
    let is_label = |at: usize| {
        let beside = [at.checked_sub(1), Some(at + 1)].into_iter().flatten();
        let calls = |other: &Element| other.role != "text" && other.name == elements[at].name;
        elements[at].role == "text" && beside.filter_map(|at| elements.get(at)).any(calls)
    };
    let kept: Vec<bool> = (0..elements.len()).map(|at| !is_label(at)).collect();
    elements.into_iter().zip(kept).filter(|(_, kept)| *kept).map(|(element, _)| element).collect()
}

struct Walk<'a> {
    by_id: HashMap<&'a str, &'a Value>,
    boxes: HashMap<u64, Bounds>,
    values: HashMap<u64, String>,
    elements: Vec<Element>,
}

impl<'a> Walk<'a> {
    /// `around` is the name of what is around and was told: texts that are part of it are not told again. A stack of its
    /// own, because pages nest as deep as they like.
    fn node(&mut self, root: &'a Value, around: &str) {
        let mut waiting: Vec<(&'a Value, String)> = vec![(root, around.to_owned())];
        while let Some((node, around)) = waiting.pop() {
            let told = self.told(node, &around);
            let around = match &told {
                Some(element) if element.role != "text" => element.name.clone(),
                _ => around,
            };
            let goes_on = told.as_ref().is_none_or(|element| !FIELDS.contains(&&*element.role));
            self.elements.extend(told);
            if goes_on {
                let children = self.children(node);
                waiting.extend(children.into_iter().rev().map(|child| (child, around.clone())));
            }
        }
    }

    fn children(&self, node: &Value) -> Vec<&'a Value> {
        let ids = node["childIds"].as_array().map(Vec::as_slice).unwrap_or_default();
        ids.iter().filter_map(|id| self.by_id.get(id.as_str()?).copied()).collect()
    }

    fn told(&self, node: &'a Value, around: &str) -> Option<Element> {
        if node["ignored"] == true {
            return None;
        }
        let key = node["backendDOMNodeId"].as_u64()?;
        let bounds = self.boxes.get(&key).copied().unwrap_or_default();
        let role = node["role"]["value"].as_str().unwrap_or_default();
        let name = node["name"]["value"].as_str().unwrap_or_default().trim().to_owned();
        if role == "StaticText" {
            let new = !name.is_empty() && !around.contains(&name);
            return new.then(|| Element { key, role: "text".to_owned(), name, bounds, ..Element::default() });
        }
        let clickable = property(node, "focusable") == Some(&Value::Bool(true));
        if SILENT.contains(&role) && !(clickable && !name.is_empty() && role != "RootWebArea") {
            return None;
        }
        let value = FIELDS.contains(&&*role.to_lowercase()).then(|| {
            let value = &node["value"]["value"];
            let text = value.as_str().map(str::to_owned).or_else(|| value.as_f64().map(|n| n.to_string()));
            text.or_else(|| self.values.get(&key).cloned()).unwrap_or_default()
        });
        let mut states = states(node);
        if role == "combobox" {
            states.extend(self.options(node));
        }
        Some(Element { key, role: role.to_lowercase(), name, value, states, bounds })
    }

    /// What can be chosen, in one phrase.
    fn options(&self, node: &'a Value) -> Option<String> {
        let mut waiting = self.children(node);
        let mut names = Vec::new();
        while !waiting.is_empty() {
            let node = waiting.remove(0);
            match node["role"]["value"].as_str() {
                Some("option") => names.push(node["name"]["value"].as_str().unwrap_or_default().trim()),
                _ => waiting.extend(self.children(node)),
            }
        }
        let more = names.len().saturating_sub(OPTIONS);
        names.truncate(OPTIONS);
        let mut quoted: Vec<String> = names.iter().map(|name| format!("\"{name}\"")).collect();
        if more > 0 {
            quoted.push(format!("[{more} more]"));
        }
        (!quoted.is_empty()).then(|| format!("of {}", quoted.join(", ")))
    }
}

fn property<'a>(node: &'a Value, name: &str) -> Option<&'a Value> {
    let properties = node["properties"].as_array()?;
    properties.iter().find(|property| property["name"] == name).map(|property| &property["value"]["value"])
}

fn states(node: &Value) -> Vec<String> {
    let mut states = Vec::new();
    for name in ["disabled", "checked", "pressed", "selected", "expanded", "focused", "readonly"] {
        match property(node, name) {
            Some(Value::Bool(true)) => states.push(name.to_owned()),
            Some(Value::String(text)) if text == "true" => states.push(name.to_owned()),
            Some(Value::String(text)) if text == "mixed" => states.push(format!("{name} in part")),
            _ => {}
        }
    }
    states
}

/// What the layout says of nodes of the main document, by their numbers.
struct Layout {
    /// Where they are on the screen.
    boxes: HashMap<u64, Bounds>,
    /// What is in fields.
    values: HashMap<u64, String>,
}

impl Layout {
    fn read(layout: &Value) -> Self {
        let list = |value: &'_ Value| value.as_array().cloned().unwrap_or_default();
        let document = &layout["documents"][0];
        let nodes = list(&document["nodes"]["backendNodeId"]);
        let node = |index: &Value| nodes.get(index.as_u64()? as usize).and_then(Value::as_u64);
        let (left, top) = (number(&document["scrollOffsetX"]), number(&document["scrollOffsetY"]));
        let mut boxes = HashMap::new();
        for (index, bounds) in
            list(&document["layout"]["nodeIndex"]).iter().zip(list(&document["layout"]["bounds"]))
        {
            let Some(node) = node(index) else { continue };
            let (x, y) = (number(&bounds[0]) - left, number(&bounds[1]) - top);
            let bounds = Bounds { x, y, width: number(&bounds[2]), height: number(&bounds[3]) };
            boxes.entry(node).or_insert(bounds);
        }
        let inputs = &document["nodes"]["inputValue"];
        let text = |value: &Value| Some(layout["strings"][value.as_u64()? as usize].as_str()?.to_owned());
        let values = list(&inputs["index"]).into_iter().zip(list(&inputs["value"]));
        let values = values.filter_map(|(index, value)| node(&index).zip(text(&value))).collect();
        Self { boxes, values }
    }
}

fn number(value: &Value) -> f32 {
    value.as_f64().unwrap_or(0.0) as f32
}
