//! Lists of small trees.

use super::*;

/// A node below `parent` that shows and can be used.
fn node(parent: usize, depth: usize, role: &str, name: &str, extents: Box4) -> Node {
    let states =
        [state::SHOWING, state::VISIBLE, state::SENSITIVE].iter().fold(0, |all, state| all | 1 << state);
    Node {
        key: u64::from(extents.0.unsigned_abs()) << 32 | u64::from(extents.1.unsigned_abs()),
        role: role.to_owned(),
        name: name.to_owned(),
        states,
        extents: Some(extents),
        parent: Some(parent),
        depth,
        ..Node::default()
    }
}

/// A desktop, its one program, and a form at 100, 100.
fn form() -> Vec<Node> {
    vec![
        Node { role: "desktop frame".into(), ..Node::default() },
        node(0, 1, "application", "zenity", (0, 0, 0, 0)),
        node(1, 2, "dialog", "Contact", (100, 100, 200, 200)),
        node(2, 3, "filler", "", (100, 120, 200, 180)),
        // As programs have them: in no order that is seen.
        node(3, 4, "push button", "OK", (240, 260, 50, 30)),
        node(3, 4, "push button", "Cancel", (180, 262, 50, 30)),
        Node { text: Some("Lima".into()), ..node(3, 4, "text", "", (180, 160, 100, 30)) },
        node(3, 4, "label", "City", (110, 162, 40, 20)),
        node(3, 4, "label", "Please fill in", (110, 130, 100, 20)),
    ]
}

fn lines(nodes: &[Node], frames: &[Box4]) -> Vec<String> {
    elements(nodes, frames).iter().map(Element::line).collect()
}

#[test]
fn a_window_is_listed_in_reading_order_and_a_field_has_its_label() {
    let expected = [
        "dialog \"Contact\"",
        "text \"Please fill in\"",
        "textbox \"City\" value=\"Lima\"",
        "button \"Cancel\"",
        "button \"OK\"",
    ];
    assert_eq!(lines(&form(), &[(100, 100, 200, 200)]), expected);
}

#[test]
fn what_does_not_show_or_lies_under_another_window_is_not_listed() {
    let mut nodes = form();
    nodes[4].states = 0;
    let buttons = |nodes: &[Node], frames: &[Box4]| {
        lines(nodes, frames).into_iter().filter(|line| line.starts_with("button")).collect::<Vec<_>>()
    };
    assert_eq!(buttons(&nodes, &[(100, 100, 200, 200)]), ["button \"Cancel\""]);
    // The uppermost frame is the last.
    let below: [Box4; 2] = [(100, 100, 200, 200), (150, 250, 300, 300)];
    assert_eq!(buttons(&nodes, &below), [""; 0]);
    let above: [Box4; 2] = [(150, 250, 300, 300), (100, 100, 200, 200)];
    assert_eq!(buttons(&nodes, &above), ["button \"Cancel\""]);
}

#[test]
fn the_uppermost_window_comes_first_and_a_menu_that_is_open_before_it() {
    let mut nodes = form();
    nodes.push(node(1, 2, "frame", "Editor", (400, 100, 300, 300)));
    nodes.push(node(1, 2, "window", "", (410, 140, 80, 100)));
    let last = nodes.len() - 1;
    nodes.push(node(last, 3, "menu item", "Save", (412, 142, 70, 20)));
    let frames: [Box4; 2] = [(100, 100, 200, 200), (400, 100, 300, 300)];
    let listed = lines(&nodes, &frames);
    assert_eq!(listed[..4], ["window", "menuitem \"Save\"", "window \"Editor\"", "dialog \"Contact\""]);
}

#[test]
fn a_menu_of_gtk_2_is_listed_while_it_has_a_place_and_covers_what_is_below() {
    let mut nodes = form();
    nodes.push(node(3, 4, "menu", "Edit", (110, 105, 40, 15)));
    let menu = nodes.len() - 1;
    let item = Node {
        states: 1 << state::VISIBLE | 1 << state::SENSITIVE,
        ..node(menu, 5, "menu item", "", (0, 0, 0, 0))
    };
    let named = |name: &str, extents| Node { name: name.into(), extents, ..item.clone() };
    nodes.push(named("Rename", Some((170, 160, 120, 20))));
    nodes.push(named("Delete", Some((170, 185, 120, 20))));
    let frames = [(100, 100, 200, 200)];
    let open = lines(&nodes, &frames);
    assert!(
        open.contains(&"menuitem \"Rename\"".into()) && open.contains(&"menuitem \"Delete\"".into()),
        "{open:?}"
    );
    assert!(!open.iter().any(|line| line.starts_with("textbox")), "{open:?}");
    for node in &mut nodes[menu + 1..] {
        node.extents = None;
    }
    let closed = lines(&nodes, &frames);
    assert!(!closed.iter().any(|line| line.starts_with("menuitem")), "{closed:?}");
    assert!(closed.iter().any(|line| line.starts_with("textbox")), "{closed:?}");
}

#[test]
fn states_are_told_and_a_text_of_many_lines_is_told_line_by_line() {
    let mut nodes = form();
    nodes[4].role = "check box".to_owned();
    nodes[4].states |= 1 << state::CHECKED;
    nodes[5].states &= !(1 << state::SENSITIVE);
    nodes[6].role = "terminal".to_owned();
    nodes[6].name = "Terminal".to_owned();
    nodes[6].text = Some("$ ls\n\na b\n$ \n\n".to_owned());
    let listed = lines(&nodes, &[(100, 100, 200, 200)]);
    for line in [
        "checkbox \"OK\" checked",
        "button \"Cancel\" disabled",
        "terminal \"Terminal\"",
        "line \"$ ls\"",
        "line \"a b\"",
        "line \"$\"",
    ] {
        assert!(listed.contains(&line.to_owned()), "{line} is not in {listed:?}");
    }
    // Of more lines than fit, the last.
    let all: Vec<String> = (0..100).map(|number| format!("n{number}")).collect();
    nodes[6].text = Some(all.join("\n"));
    let listed = lines(&nodes, &[(100, 100, 200, 200)]);
    let told: Vec<&String> = listed.iter().filter(|line| line.starts_with("line")).collect();
    assert_eq!((told.len(), told.iter().any(|line| *line == "line \"n99\"")), (LINES, true));
}
